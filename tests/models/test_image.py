import io
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageOps

import bad_input
from bad_input import encoded
from gateway.models import image as images

Noise = Callable[[int, int], NDArray[np.uint8]]
LIMIT = 10_000_000


def reference(data: bytes) -> NDArray[np.uint8]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))


CASES = [
    ("RGB", "JPEG"),
    ("RGB", "PNG"),
    ("RGB", "WEBP"),
    ("RGB", "BMP"),
    ("RGB", "TIFF"),
    ("RGB", "GIF"),
    ("L", "JPEG"),
    ("L", "PNG"),
    ("L", "TIFF"),
    ("LA", "PNG"),
    ("RGBA", "PNG"),
    ("RGBA", "WEBP"),
    ("RGBA", "TIFF"),
    ("P", "PNG"),
    ("P", "GIF"),
    ("P", "BMP"),
    ("1", "PNG"),
    ("1", "TIFF"),
    ("CMYK", "JPEG"),
    ("CMYK", "TIFF"),
    ("YCbCr", "TIFF"),
]


@pytest.mark.parametrize(("mode", "format"), CASES)
@pytest.mark.parametrize("size", [(37, 53), (1, 1), (1, 70), (70, 1)])
def test_equals_pillow(noise: Noise, mode: str, format: str, size: tuple[int, int]) -> None:
    picture = Image.fromarray(noise(*size))
    if mode in ("LA", "RGBA"):
        picture.putalpha(Image.fromarray(noise(*size)[..., 0]))
    data = encoded(picture.convert(mode), format)
    decoded = images.decode(data, max_pixels=LIMIT)
    assert decoded.shape == (*size, 3)
    assert decoded.dtype == np.uint8
    assert decoded.flags.c_contiguous
    assert not decoded.flags.writeable
    np.testing.assert_array_equal(decoded, reference(data))


def test_adobe_cmyk_is_not_a_negative() -> None:
    red = encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG")
    assert np.abs(images.decode(red, max_pixels=LIMIT)[4, 4].astype(int) - [255, 0, 0]).max() < 4


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_alpha_is_dropped_not_blended(format: str) -> None:
    data = encoded(Image.new("RGBA", (2, 2), (10, 20, 30, 0)), format)
    np.testing.assert_array_equal(images.decode(data, max_pixels=LIMIT)[0, 0], [10, 20, 30])


@pytest.mark.parametrize("transparency", [0, bytes([0, 128, 255])])
def test_palette_transparency_neither_warns_nor_changes_colours(noise: Noise, transparency: int) -> None:
    picture = Image.fromarray(noise(20, 30)).quantize(3)
    data = encoded(picture, "PNG", transparency=transparency)
    np.testing.assert_array_equal(images.decode(data, max_pixels=LIMIT), np.asarray(picture.convert("RGB")))


@pytest.mark.parametrize("order", ["<u2", ">u2"])
def test_16_bit_grey_keeps_its_high_byte(order: str) -> None:
    grey = np.array([[0, 255, 256, 0x6400, 0x64FF, 0xFFFF]], dtype=order)
    data = encoded(Image.fromarray(grey), "TIFF")
    decoded = images.decode(data, max_pixels=LIMIT)
    np.testing.assert_array_equal(decoded, np.repeat([[[0], [0], [1], [100], [100], [255]]], 3, axis=2))


def test_16_bit_grey_and_colour_png_agree() -> None:
    ramp = np.arange(0, 65536, 97, dtype=np.uint16)[None]
    grey = cv2.imencode(".png", ramp)[1].tobytes()
    colour = cv2.imencode(".png", np.repeat(ramp[..., None], 3, axis=2))[1].tobytes()
    decoded = images.decode(grey, max_pixels=LIMIT)
    np.testing.assert_array_equal(decoded, images.decode(colour, max_pixels=LIMIT))
    assert decoded.max() == 255
    assert len(np.unique(decoded)) == 256


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([[0, 7, 255]], np.int32), [0, 7, 255]),
        (np.array([[-5, 512, 65535]], np.int32), [0, 2, 255]),
        (np.array([[0, 1 << 30, (1 << 31) - 1]], np.int32), [0, 64, 127]),
        (np.array([[0.0, 0.5, 1.0]], np.float32), [0, 128, 255]),
        (np.array([[0.0, 100.0, 255.0]], np.float32), [0, 100, 255]),
        # A filter overshoots.
        (np.array([[-3.0, 300.0, np.nan]], np.float32), [0, 255, 0]),
        (np.array([[-0.1, 0.5, 1.1]], np.float32), [0, 128, 255]),
        # As the same integers.
        (np.array([[-5.0, 512.0, 65535.0]], np.float32), [0, 2, 255]),
        (np.array([[0.0, 1 << 30, (1 << 31) - 1]], np.float32), [0, 64, 128]),
        (np.array([[0.0, 1e30, 2e30]], np.float32), [0, 127, 255]),
        (np.array([[np.nan, 0.5, np.inf]], np.float32), [0, 128, 255]),
        (np.array([[-np.inf, 100.0, np.inf]], np.float32), [0, 100, 255]),
        (np.array([[-np.inf, 30_000.0, 65_535.0]], np.float32), [0, 117, 255]),
        (np.array([[-1.0, 0.0, np.nan]], np.float32), [0, 0, 0]),
        (np.array([[np.nan, np.nan, np.inf]], np.float32), [0, 0, 255]),
    ],
)
def test_wide_tiff(values: NDArray[np.generic], expected: list[int]) -> None:
    decoded = images.decode(encoded(Image.fromarray(values), "TIFF"), max_pixels=LIMIT)
    np.testing.assert_array_equal(decoded[0, :, 1], expected)


UNDO = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, 1),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a, -1),
}


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_undone(noise: Noise, format: str, orientation: int) -> None:
    upright = noise(40, 24)
    stored = Image.fromarray(np.ascontiguousarray(UNDO[orientation](upright)))
    exif = Image.Exif()
    exif[0x0112] = orientation
    lossless: dict[str, dict[str, Any]] = {
        "JPEG": {"quality": 100, "subsampling": 0},
        "WEBP": {"lossless": True},
        "AVIF": {"quality": 100, "subsampling": "4:4:4"},
    }
    decoded = images.decode(encoded(stored, format, exif=exif, **lossless.get(format, {})), max_pixels=LIMIT)
    assert decoded.shape == upright.shape
    assert np.abs(decoded.astype(int) - upright).max() <= (8 if format in ("JPEG", "AVIF") else 0)


@pytest.mark.parametrize(
    "exif", [b"Exif\0\0garbage", b"Exif\0\0II*\0\x08\0\0\0\xff\xff\x12\x01", b"Exif\0\0"]
)
def test_damaged_metadata_does_not_cost_the_image(noise: Noise, exif: bytes) -> None:
    picture = Image.fromarray(noise(16, 16))
    data = encoded(picture, "JPEG", exif=exif)
    np.testing.assert_array_equal(
        images.decode(data, max_pixels=LIMIT), np.asarray(Image.open(io.BytesIO(encoded(picture, "JPEG"))))
    )


def test_threads_leave_the_warning_filters_as_they_were(noise: Noise) -> None:
    data = encoded(Image.fromarray(noise(64, 64)), "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff\x12\x01")
    before = list(warnings.filters)
    with ThreadPoolExecutor(8) as pool:
        decoded = list(pool.map(lambda _: images.decode(data, max_pixels=LIMIT), range(64)))
    assert all(np.array_equal(decoded[0], other) for other in decoded)
    assert list(warnings.filters) == before


@pytest.mark.parametrize("format", ["GIF", "WEBP", "TIFF", "PNG"])
def test_first_frame_of_many(format: str) -> None:
    frames = [Image.new("RGB", (12, 9), colour) for colour in ("red", "blue", "lime")]
    data = encoded(
        frames[0],
        format,
        save_all=True,
        append_images=frames[1:],
        **({"lossless": True} if format == "WEBP" else {}),
    )
    decoded = images.decode(data, max_pixels=LIMIT)
    np.testing.assert_array_equal(decoded, np.full((9, 12, 3), [255, 0, 0], dtype=np.uint8))


def test_the_header_says_how_much_memory_decoding_takes(noise: Noise) -> None:
    picture = Image.fromarray(noise(20, 30))
    file = images.open_image(encoded(picture, "PNG"), max_pixels=LIMIT)
    assert file.peak_bytes == images.PEAK_BYTES_PER_PIXEL * 600
    np.testing.assert_array_equal(file.decode(), np.asarray(picture))
    # A tile of 64x48 for a picture of 30x20.
    tiled = bad_input.tiff(
        {
            256: (4, 1, 30),
            257: (4, 1, 20),
            322: (4, 1, 64),
            323: (4, 1, 48),
            324: (4, 1, 256),
            325: (4, 1, 9),
        },
        bytes(300),
    )
    damaged = images.open_image(tiled, max_pixels=LIMIT)
    assert damaged.peak_bytes == images.PEAK_BYTES_PER_PIXEL * 64 * 48
    with pytest.raises(images.ImageError, match="damaged"):
        damaged.decode()
    with pytest.raises(images.ImageError, match="limit is 599"):
        images.open_image(encoded(picture, "PNG"), max_pixels=599)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "AVIF"])
@pytest.mark.parametrize("part", [0.02, 0.5, 0.9])
def test_truncated(noise: Noise, format: str, part: float) -> None:
    data = encoded(Image.fromarray(noise(64, 64)), format)
    with pytest.raises(images.ImageError) as caught:
        images.decode(data[: int(len(data) * part)], max_pixels=LIMIT)
    message = str(caught.value)
    assert message.endswith(".")
    assert "\n" not in message
    assert "BytesIO" not in message


def test_empty() -> None:
    with pytest.raises(images.ImageError, match="empty"):
        images.decode(b"", max_pixels=LIMIT)


@pytest.mark.parametrize("options", [{}, {"subsampling": "4:4:4"}, {"range": "limited"}])
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L"])
def test_avif(noise: Noise, mode: str, options: dict[str, Any]) -> None:
    picture = Image.fromarray(noise(37, 53))
    if mode == "RGBA":
        picture.putalpha(Image.fromarray(noise(37, 53)[..., 0]))
    data = encoded(picture.convert(mode), "AVIF", **options)
    np.testing.assert_array_equal(images.decode(data, max_pixels=LIMIT), reference(data))


def test_first_frame_of_an_avif_sequence(noise: Noise) -> None:
    frames = [Image.new("RGB", (12, 9), colour) for colour in ("red", "blue", "lime")]
    data = encoded(frames[0], "AVIF", save_all=True, append_images=frames[1:])
    decoded = images.decode(data, max_pixels=LIMIT)
    assert np.abs(decoded.astype(int) - [255, 0, 0]).max() < 4


@pytest.mark.skipif("HEIF" not in images.FORMATS, reason="the extra for HEIC is not installed")
def test_heic() -> None:
    slope = images.decode(bad_input.HEIC, max_pixels=LIMIT).astype(int)
    assert slope.shape == (18, 24, 3)
    assert np.abs(slope[2, 2] - [35, 220, 220]).max() < 15
    assert np.abs(slope[15, 21] - [220, 35, 35]).max() < 15
    with pytest.raises(images.ImageError, match="24x18 = 432 pixels; the limit is 431 pixels"):
        images.decode(bad_input.HEIC, max_pixels=431)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    format=st.sampled_from(["JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "AVIF"]),
    where=st.floats(0, 0.999),
    garbage=st.binary(min_size=1, max_size=12),
)
def test_damage_gives_an_image_or_an_image_error(
    noise: Noise, format: str, where: float, garbage: bytes
) -> None:
    data = bytearray(encoded(Image.fromarray(noise(24, 24)), format))
    place = int(where * len(data))
    data[place : place + len(garbage)] = garbage
    try:
        decoded = images.decode(bytes(data), max_pixels=LIMIT)
    except images.ImageError:
        return
    assert decoded.shape[2] == 3
