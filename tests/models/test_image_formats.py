import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from bad_input import encoded
from gateway.models import image as images

LIMIT = 10_000_000


def written(format: str) -> bytes:
    return encoded(Image.new("RGB", (16, 16), "red"), format)


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"%PDF-1.7\n%\xe2\xe3", "a PDF document: draw its pages as images first"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "an SVG drawing"),
        (b"\xef\xbb\xbf<?xml version='1.0'?>\n<!-- made by hand -->\n<svg/>", "an SVG drawing"),
        (b"<!DOCTYPE html><title>404", "a web page (HTML)"),
        (b"\n<html>", "a web page (HTML)"),
        (b"<?xml version='1.0'?><feed/>", "XML text"),
        (b'{"error": "not found"}', "JSON text"),
        (b"hello", "text"),
        ("кошка".encode() * 200, "text"),
        (b"https://images.example/a.jpg", "an address: send it as the image's uri"),
        (b"/9j/4AAQSkZJRg", "base64 text: decode it before sending"),
        (b"data:image/png;base64,iVBORw0KGgo", "base64 text: decode it before sending"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "a Git LFS pointer: fetch the file"),
        (b"\0\0\0\x18ftypisom\0\0\2\0", "a video (MP4)"),
        (b"\0\0\0\x14ftypqt  \0\0\2\0", "a QuickTime video"),
        (b"\x1aE\xdf\xa3\x9f", "a video (WebM or Matroska)"),
        (b"RIFF\0\0\0\0AVI LIST", "a video (AVI)"),
        (b"PK\x03\x04\x14\0", "a ZIP archive or an office document"),
        (b"\x1f\x8b\x08\0", "gzip data"),
        (b"\x93NUMPY\1\0", "a NumPy array"),
        (b"8BPS\0\1", "a Photoshop file"),
        (b"\xff\x0a\xfa", "a JPEG XL image"),
        (written("JPEG2000"), "a JPEG 2000 image"),
        (written("ICO"), "an icon (ICO)"),
        (written("PPM"), "a PNM image"),
        (written("EPS"), "a PostScript file"),
        (written("DDS"), "a DDS texture"),
        (written("PNG")[:12], "a PNG image, but a damaged one"),
        (written("AVIF")[:40], "an AVIF image, but a damaged one"),
        (bytes(1000), "nothing but zeros"),
    ],
)
def test_what_is_no_image_is_named(data: bytes, kind: str) -> None:
    with pytest.raises(images.ImageError) as caught:
        images.decode(data, max_pixels=LIMIT)
    message = str(caught.value)
    assert message.startswith(
        "The data is not an image in a supported format (JPEG, PNG, WEBP, BMP, TIFF, GIF"
    )
    assert f": it looks like {kind}" in message
    assert message.endswith(".")


def test_what_is_unknown_is_refused_without_a_guess() -> None:
    for data in (b"\x81\x02\xfe\x00" * 9, written("TGA")):
        with pytest.raises(images.ImageError, match=r"supported format \([A-Z, ]*AVIF[A-Z, ]*\)\.$"):
            images.decode(data, max_pixels=LIMIT)


def test_heic_without_its_extra_names_what_to_install() -> None:
    code = """
import sys
sys.modules["pi_heif"] = None
import bad_input
from gateway.models import image
try:
    image.decode(bad_input.HEIC, max_pixels=1000)
except image.ImageError as error:
    print(error)
"""
    tests = str(Path(__file__).parents[1])
    result = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": tests},
    )
    assert "it looks like a HEIC image" in result.stdout
    assert "if its extra `heic` (the package pi-heif) is installed" in result.stdout
