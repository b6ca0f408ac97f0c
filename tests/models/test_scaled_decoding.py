"""Large JPEGs are decoded at a reduced size, and CLIP's squares hardly change by it."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from tokenizers import Tokenizer
from tokenizers.models import BPE

from gateway.models import image
from gateway.models.clip import ClipSpec
from gateway.models.image_claims import claimed_size

Photo = Callable[[str], NDArray[np.uint8]]
MAX_PIXELS = 64_000_000
ORIENTATION = 0x0112


def jpeg(pixels: NDArray[np.uint8], orientation: int = 1, mode: str = "RGB", **options: object) -> bytes:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    Image.fromarray(pixels).convert(mode).save(file := io.BytesIO(), "JPEG", exif=exif, quality=90, **options)
    return file.getvalue()


def squares(file: bytes, spec: ClipSpec) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """A file's square from the reduced size, and from the full one."""
    opened = image.open_image(file, max_pixels=MAX_PIXELS)
    scaled, full = opened.decode_picture(spec.min_side), image.decode(file, max_pixels=MAX_PIXELS)
    assert scaled.size == (full.shape[1], full.shape[0])
    assert scaled.image.width < scaled.size[0]
    assert min(scaled.image.size) >= spec.min_side
    return spec.preprocess_picture(scaled).astype(np.int32), spec.preprocess(full).astype(np.int32)


def spec_of(image_size: int, resize_mode: str = "shortest") -> ClipSpec:
    return ClipSpec(image_size, resize_mode, "bicubic", 0, 77, 100, 512, Tokenizer(BPE()), 0, 1)


def differences(file: bytes, spec: ClipSpec) -> NDArray[np.int32]:
    scaled, full = squares(file, spec)
    difference: NDArray[np.int32] = np.abs(scaled - full)
    return difference


@pytest.mark.parametrize("resize_mode", ["shortest", "longest", "squash"])
@pytest.mark.parametrize("factor", [7.5, 15])
def test_squares_of_photos_are_within_the_bound(
    data: Callable[[str], Path], resize_mode: str, factor: float
) -> None:
    """At the largest inputs for which photos are decoded at a half, and at a quarter."""
    means = []
    for name in ("truck.jpg", "groceries.jpg"):
        file = data(f"images/{name}").read_bytes()
        with Image.open(io.BytesIO(file)) as opened:
            size = int(min(opened.size) / factor)
        difference = differences(file, spec_of(size, resize_mode))
        assert difference.max() <= 3
        means.append(difference.mean())
    assert np.mean(means) <= 0.25
    assert max(means) <= 0.28


@pytest.mark.parametrize("orientation", range(1, 9))
def test_squares_of_turned_photos_are_within_the_bound(data: Callable[[str], Path], orientation: int) -> None:
    with Image.open(data("images/truck.jpg")) as opened:
        pixels = np.asarray(opened.resize((720, 960), Image.Resampling.LANCZOS))
    assert differences(jpeg(pixels, orientation), spec_of(64)).max() <= 3


@pytest.mark.parametrize("mode", ["L", "CMYK"])
@pytest.mark.parametrize("progressive", [False, True])
def test_squares_of_other_jpegs_are_within_the_bound(
    data: Callable[[str], Path],
    mode: str,
    progressive: bool,
) -> None:
    with Image.open(data("images/truck.jpg")) as opened:
        pixels = np.asarray(opened.convert("RGB"))
    difference = differences(jpeg(pixels, mode=mode, progressive=progressive), spec_of(112))
    assert difference.max() <= 3
    assert difference.mean() <= 0.25


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF"])
@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "CMYK", "P", "I;16", "LA", "1"])
@pytest.mark.parametrize("min_side", [None, 60])
def test_pictures_are_what_is_decoded(
    noise: Callable[[int, int], NDArray[np.uint8]], image_format: str, mode: str, min_side: int | None
) -> None:
    """A JPEG is one too where its sides are too short for half of them."""
    grey = Image.fromarray(noise(101, 67)).convert("L")
    picture = Image.fromarray(noise(101, 67)) if mode not in ("I;16", "LA") else grey
    try:
        picture = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257) if mode == "I;16" else picture
        picture.convert(mode).save(file := io.BytesIO(), image_format)
    except (OSError, ValueError):
        pytest.skip("there are no such files")
    opened = image.open_image(file.getvalue(), max_pixels=MAX_PIXELS)
    made = opened.decode_picture(min_side)
    assert made.size == made.image.size
    expected = image.decode(file.getvalue(), max_pixels=MAX_PIXELS)
    np.testing.assert_array_equal(np.asarray(made.image), expected)


@pytest.mark.parametrize("size", [(200, 4000), (801, 800), (800, 801), (158, 160)])
def test_some_jpegs_are_decoded_in_full(size: tuple[int, int]) -> None:
    file = jpeg(np.zeros((*size, 3), np.uint8))
    assert image.open_image(file, max_pixels=MAX_PIXELS).decode_picture(80).image.size == size[::-1]


def test_a_broken_large_jpeg_is_refused() -> None:
    file = jpeg(np.random.default_rng(1).integers(0, 255, (800, 800, 3), np.uint8))
    with pytest.raises(image.ImageError, match="damaged"):
        image.open_image(file[: len(file) // 2], max_pixels=MAX_PIXELS).decode_picture(100)


@pytest.mark.parametrize("scale", [2, 4])
def test_less_memory_is_counted_for_a_reduced_size(scale: int) -> None:
    file = jpeg(np.zeros((800, 1200, 3), np.uint8))
    opened = image.open_image(file, max_pixels=MAX_PIXELS)
    counted = opened.peak_bytes_at(1600 // scale**2)
    assert counted == image.peak_bytes(file, 1200, 800, 1600 // scale**2)
    assert counted < opened.peak_bytes == opened.peak_bytes_at(None)


def test_claims_are_those_of_the_headers() -> None:
    pixels = np.zeros((70, 40, 3), np.uint8)
    for options in ({}, {"progressive": True}, {"comment": b"x" * 60_000}):
        assert claimed_size(jpeg(pixels, **options)) == (40, 70)
    Image.fromarray(pixels).save(file := io.BytesIO(), "PNG")
    assert claimed_size(file.getvalue()) == (40, 70)
    Image.fromarray(pixels).save(file := io.BytesIO(), "GIF")
    assert claimed_size(file.getvalue()) is None


def test_broken_headers_claim_nothing() -> None:
    for file in (jpeg(np.zeros((70, 40, 3), np.uint8)), b"\xff\xd8" + 100 * b"\xff\xe0\x00\x02"):
        for length in range(len(file)):
            assert claimed_size(file[:length]) in (None, (40, 70))
    assert claimed_size(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0") is None
