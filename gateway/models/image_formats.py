"""The image formats that are read, and short descriptions of other data for error messages."""

import importlib
import re

from PIL import AvifImagePlugin

# Pillow's names. JPEG 2000 is left out on purpose: photos are rarely kept in it, its decoder takes seconds
# for a photo, and it has been a source of memory faults.
_FORMATS = ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "AVIF"]

# Each worker thread decodes an image of its own: more threads would compete for the same cores.
AvifImagePlugin.DEFAULT_MAX_THREADS = 1

try:
    _heif = importlib.import_module("pi_heif")
except ImportError:
    pass
else:
    _heif.register_heif_opener(thumbnails=False, depth_images=False, aux_images=False, decode_threads=1)
    _FORMATS.append("HEIF")

FORMATS = tuple(_FORMATS)

_HEIC_DESCRIPTION = (
    "a HEIC image, which a server reads if its extra `heic` (the package pi-heif) is installed"
)

# Descriptions of files of the ISO base media family, by their brand.
_BRANDS = {
    b"avif": "an AVIF image, but a damaged one",
    b"avis": "an AVIF image, but a damaged one",
    **dict.fromkeys(
        (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"), _HEIC_DESCRIPTION
    ),
    b"crx ": "a camera's raw file (CR3)",
    b"jp2 ": "a JPEG 2000 image",
    b"qt  ": "a QuickTime video",
}

# Descriptions of other data. The first pattern that matches the start of the data counts.
_KINDS = tuple(
    (re.compile(pattern, re.DOTALL | re.IGNORECASE), kind)
    for pattern, kind in (
        (rb"\xff\xd8\xff", "a JPEG image, but a damaged one"),
        (rb"\x89PNG", "a PNG image, but a damaged one"),
        (rb"RIFF....WEBP", "a WebP image, but a damaged one"),
        (rb"II\*\0\x10\0\0\0CR", "a camera's raw file (CR2)"),
        (
            rb"(?:II[*+]\0|MM\0[*+])",
            "a TIFF file, but of an unsupported kind (such as a raw photo) or damaged",
        ),
        (rb"GIF8", "a GIF image, but a damaged one"),
        (rb"BM", "a BMP image, but a damaged one"),
        (rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51", "a JPEG 2000 image"),
        (rb"\xff\x0a|\0\0\0\x0cJXL ", "a JPEG XL image"),
        (rb"\0\0\x01\0", "an icon (ICO)"),
        (rb"8BPS", "a Photoshop file"),
        (rb"%PDF", "a PDF document: draw its pages as images first"),
        (rb"%!PS|\xc5\xd0\xd3\xc6", "a PostScript file"),
        (rb"P[1-7]\s", "a PNM image (PBM, PGM, PPM)"),
        (rb"\x76\x2f\x31\x01", "an OpenEXR image"),
        (rb"#\?RADIANCE", "a Radiance HDR image"),
        (rb"DDS ", "a DDS texture"),
        (rb"\x93NUMPY", "a NumPy array: send its pixels raw"),
        (rb"\x1aE\xdf\xa3", "a video (WebM or Matroska)"),
        (rb"RIFF....AVI ", "a video (AVI)"),
        (rb"PK\x03\x04", "a ZIP archive or an office document"),
        (rb"\x1f\x8b", "gzip data"),
        (rb"version https://git-lfs", "a Git LFS pointer: fetch the file itself with git lfs pull"),
        (rb"data:image/|/9j/|iVBORw0KGgo|R0lGOD|UklGR", "base64 text: decode it before sending"),
        (
            rb"\s*(?:<\?xml[^>]*>\s*)?(?:<!--.{0,500}?-->\s*)?(?:<!doctype svg[^>]*>\s*)?<svg",
            "an SVG drawing",
        ),
        (rb"\s*<(?:!doctype html|html|head|body)", "a web page (HTML)"),
        (rb"\s*<\?xml", "XML text"),
        (rb"\s*[\[{]", "JSON text"),
        (rb"https?://", "an address: send it as the image's uri"),
    )
)
# Printable ASCII, white space, and the bytes of other characters in UTF-8.
_TEXT = bytes([9, 10, 13, *range(32, 127), *range(128, 256)])


def looks_like(data: bytes) -> str:
    """Return what the data seems to be, with an article, or "" if nothing is known of it."""
    start = data[:1024].removeprefix(b"\xef\xbb\xbf")
    if start[4:8] == b"ftyp":
        return _BRANDS.get(start[8:12], "a video (MP4)")
    for pattern, kind in _KINDS:
        if pattern.match(start):
            return kind
    if not any(start):
        return "nothing but zeros"
    if len(start.translate(None, _TEXT)) == 0 and _is_utf8(start):
        return "text"
    return ""


def _is_utf8(start: bytes) -> bool:
    try:
        start.decode()
    except UnicodeDecodeError as error:
        return error.start > len(start) - 4 and error.reason == "unexpected end of data"
    return True
