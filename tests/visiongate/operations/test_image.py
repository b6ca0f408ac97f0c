"""However an image is handed over, the server sees the same pixels."""

import base64
import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from gateway.models import image as images
from visiongate import ImageHandle, ImageId, Pixels, pillow_images
from visiongate.operations import image as client_image
from visiongate.operations import image_file
from visiongate.operations.image import image_message
from visiongate.operations.image_file import MAX_BYTES
from visiongate.pillow_images import to_rgb
from visiongate.v1 import image_pb2

RNG = np.random.default_rng(0)
NOISE = RNG.integers(0, 256, (24, 40, 3), np.uint8)
GREY16 = RNG.integers(0, 1 << 16, (24, 40), np.uint16)
FORMATS = ("PNG", "TIFF", "JPEG", "WEBP", "GIF", "BMP", "AVIF")


MODES = [
    "1", "L", "La", "LA", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV", "I", "F",
    "I;16", "I;16L", "I;16B", "I;16N",
]  # fmt: skip
# Those that no file has. The colours of premultiplied ones come back as far as 8 bits hold them.
TWINS = {"La": "LA", "RGBa": "RGBA", "HSV": "RGB", "I;16N": "I;16"}


def decoded(message: Any) -> NDArray[np.uint8]:
    """What the server makes of a message."""
    if message.WhichOneof("source") == "raw":
        raw = message.raw
        pixels = np.frombuffer(raw.data, np.uint8).reshape(raw.height, raw.width, -1)
        if raw.format == image_pb2.PIXEL_FORMAT_GRAY:
            assert pixels.shape[2] == 1
            return np.repeat(pixels, 3, axis=2)
        assert pixels.shape[2] == 3
        return pixels[:, :, ::-1] if raw.format == image_pb2.PIXEL_FORMAT_BGR else pixels
    return images.decode(message.encoded, max_pixels=10**8)


def picture(mode: str) -> Image.Image:
    """Noise in any of Pillow's modes, over the whole range of its values."""
    noise, grey = Image.fromarray(NOISE), Image.fromarray(NOISE[..., 0])
    with_alpha = noise.copy()
    with_alpha.putalpha(grey)
    made = {
        "I;16B": lambda: Image.frombytes(mode, grey.size, GREY16.astype(">u2").tobytes()),
        "I": lambda: Image.fromarray(GREY16.astype(np.int32)),
        "F": lambda: Image.fromarray(GREY16.astype(np.float32)),
        "RGBA": lambda: with_alpha,
        "RGBa": lambda: with_alpha.convert("RGBa"),
        "LA": lambda: with_alpha.convert("LA"),
        "La": lambda: with_alpha.convert("LA").convert("La"),
        "PA": lambda: Image.merge("LA", [noise.quantize(64).convert("L"), grey]).convert("PA"),
        "HSV": lambda: Image.frombytes(mode, noise.size, NOISE.tobytes()),
        "LAB": lambda: Image.frombytes(mode, noise.size, NOISE.tobytes()),
        "CMYK": lambda: Image.merge("CMYK", [*noise.split(), grey]),
    }
    for name in ("I;16", "I;16L", "I;16N"):
        made[name] = lambda: Image.frombytes(mode, grey.size, GREY16.astype("<u2").tobytes())
    return made.get(mode, lambda: noise.convert(mode))()


def files(mode: str) -> list[tuple[str, bytes]]:
    found = []
    for format in FORMATS:
        file = io.BytesIO()
        try:
            picture(mode).save(file, format)
        except (OSError, KeyError, ValueError):
            continue
        found.append((format, file.getvalue()))
    return found


def assert_same(file: bytes) -> None:
    expected = images.decode(file, max_pixels=10**8)
    with Image.open(io.BytesIO(file)) as opened:
        np.testing.assert_array_equal(decoded(image_message(opened)), expected)
        np.testing.assert_array_equal(np.asarray(to_rgb(opened)), expected)
    np.testing.assert_array_equal(decoded(image_message(file)), expected)


@pytest.mark.parametrize(
    "mode",
    [mode for mode in MODES if mode not in TWINS],
)
def test_a_pillow_image_has_the_pixels_of_the_file_it_was_opened_from(mode: str) -> None:
    assert files(mode)
    for _, file in files(mode):
        assert_same(file)


@pytest.mark.parametrize(("mode", "same"), TWINS.items())
def test_a_mode_that_no_file_has_is_sent_as_its_twin(mode: str, same: str) -> None:
    image = picture(mode)
    twin = picture("I;16") if same == "I;16" else image.convert(same)
    expected = decoded(image_message(twin))
    np.testing.assert_array_equal(decoded(image_message(image)), expected)
    np.testing.assert_array_equal(np.asarray(to_rgb(image)), expected)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("orientation", [1, 3, 6, 7])
def test_what_is_drawn_on_is_what_the_server_sees(mode: str, orientation: int) -> None:
    image = picture(mode)
    image.getexif()[0x0112] = orientation
    seen = decoded(image_message(image))
    assert seen.shape[:2] == ((40, 24) if orientation > 4 else (24, 40))
    np.testing.assert_array_equal(np.asarray(to_rgb(image)), seen)
    assert seen.std() > 20, "neither white nor black"


@pytest.mark.parametrize(
    "values",
    [
        [0, 1, 2], [-7, 0, 255], [0, 256, 4095], [0, 65_535, 65_536], [0, 1, 2**31 - 1],
        [0.0, 0.5, 1.0], [0.0, 0.4, 1.2], [0.0, 0.4, 1.3], [-3.0, 30.7, 261.0], [0.0, 400.0, 65_535.0],
        [0.0, 1e9, 4e9], [0.0, 1e30, 3e38], [float("nan"), 0.5, float("inf")],
        [float("-inf"), 100.0, float("inf")], [float("nan")] * 3,
    ],
)  # fmt: skip
def test_wide_values_are_scaled_by_one_rule_on_both_sides(values: list[float]) -> None:
    kind = np.int32 if isinstance(values[0], int) else np.float32
    image = Image.fromarray(np.array([values], kind))
    np.testing.assert_array_equal(np.asarray(to_rgb(image)), decoded(image_message(image)))


def test_large_tiffs_are_compressed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pillow_images, "_PLAIN_TIFF_BYTES", 1000)
    for mode in ("I", "F", "CMYK", "YCbCr", "LAB"):
        image = picture(mode)
        np.testing.assert_array_equal(decoded(image_message(image)), np.asarray(to_rgb(image)))


@pytest.mark.parametrize("transparency", [0, 255, bytes([0, 128, 255])])
def test_transparent_palettes(transparency: Any) -> None:
    for format in ("PNG", "GIF"):
        if format == "GIF" and isinstance(transparency, bytes):
            continue
        file = io.BytesIO()
        picture("P").save(file, format, transparency=transparency)
        assert_same(file.getvalue())
    palette = Image.fromarray(NOISE).quantize(4)
    palette.putpalette(bytes([9, 8, 7, 0, 50, 60, 70, 128, 200, 100, 0, 255, 1, 2, 3, 4]), "RGBA")
    np.testing.assert_array_equal(decoded(image_message(palette)), np.asarray(palette.convert("RGB")))


@pytest.mark.parametrize("colour", ["black", (1, 2, 3)])
def test_a_transparent_colour(colour: Any) -> None:
    file = io.BytesIO()
    picture("RGB").save(file, "PNG", transparency=(0, 0, 0) if colour == "black" else colour)
    assert_same(file.getvalue())


def test_metadata_is_neither_sent_nor_in_the_way() -> None:
    file = io.BytesIO()
    picture("1").save(file, "TIFF", compression="group4", dpi=(72, 72), icc_profile=bytes(100_000))
    assert_same(file.getvalue())
    with Image.open(file) as opened:
        assert len(image_message(opened).encoded) < 1000
    damaged = io.BytesIO()
    picture("RGB").save(damaged, "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff\x12\x01", icc_profile=b"none")
    assert_same(damaged.getvalue())
    # What loses is not repeated: the pixels are those of the file, not of a JPEG of them.
    lossy = io.BytesIO()
    picture("CMYK").save(lossy, "TIFF", compression="jpeg")
    assert_same(lossy.getvalue())


def test_arrays_are_rgb_and_opencv_says_bgr() -> None:
    np.testing.assert_array_equal(decoded(image_message(NOISE)), NOISE)
    np.testing.assert_array_equal(decoded(image_message(Pixels(NOISE))), NOISE)
    np.testing.assert_array_equal(decoded(image_message(Pixels(NOISE[:, :, ::-1], color="bgr"))), NOISE)
    with pytest.raises(ValueError, match='color is "rgb" or "bgr", not \'BGRA\''):
        Pixels(NOISE, color="BGRA")  # type: ignore[arg-type]


def test_alpha_is_dropped_and_grey_is_grey() -> None:
    alpha = np.dstack([NOISE, NOISE[:, :, 0]])
    np.testing.assert_array_equal(decoded(image_message(alpha)), NOISE)
    bgra = np.dstack([NOISE[:, :, ::-1], NOISE[:, :, 0]])
    np.testing.assert_array_equal(decoded(image_message(Pixels(bgra, "bgr"))), NOISE)
    grey = np.repeat(NOISE[:, :, :1], 3, axis=2)
    np.testing.assert_array_equal(decoded(image_message(NOISE[:, :, 0])), grey)
    np.testing.assert_array_equal(decoded(image_message(NOISE[:, :, :1])), grey)
    np.testing.assert_array_equal(decoded(image_message(Pixels(NOISE[:, :, :1], "bgr"))), grey)


@pytest.mark.parametrize(
    ("array", "says"),
    [
        (NOISE / 255, r"float64 \[24, 40, 3\]: .* use \(array \* 255\).round\(\)"),
        (NOISE.transpose(2, 0, 1), r"uint8 \[3, 24, 40\]: channels first\? Use array.transpose\(1, 2, 0\)"),
        ((NOISE / 255).transpose(2, 0, 1), r"channels first\?"),
        (NOISE[None], r"\[1, 24, 40, 3\]: a batch\?"),
        (GREY16, r"uint16 \[24, 40\]: .*>> 8"),
        (NOISE[:, :, 0] > 9, r"bool \[24, 40\]: use array.astype\(np.uint8\) \* 255"),
        (NOISE[:, :, :2], r"uint8 \[24, 40, 2\]$"),
        (NOISE[:0], r"uint8 \[0, 40, 3\]$"),
        (NOISE[0, 0], r"uint8 \[3\]$"),
    ],
)
def test_other_arrays_are_refused_with_what_to_do(array: Any, says: str) -> None:
    with pytest.raises(ValueError, match=rf"^images\[3\]: pixels are uint8 .*{says}"):
        image_message(array, "images[3]")


def test_large_arrays_become_smaller_without_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    smooth = np.broadcast_to(np.arange(200, dtype=np.uint8)[None, :, None], (100, 200, 3))
    noise = RNG.integers(0, 256, (100, 200, 3), np.uint8)
    monkeypatch.setattr(client_image, "_MAX_RAW_BYTES", 50_000)
    assert image_message(noise[:, :, 0]).WhichOneof("source") == "raw", "one byte a pixel"
    for color in ("rgb", "bgr"):
        message = image_message(Pixels(smooth, color))
        assert len(message.encoded) < 20_000
        np.testing.assert_array_equal(decoded(message), smooth)
    np.testing.assert_array_equal(decoded(image_message(Pixels(noise[:, :, ::-1], "bgr"))), noise)
    grey = np.tile(noise[:, :, :1], (3, 1, 1))
    message = image_message(grey)
    assert message.WhichOneof("source") == "encoded"
    np.testing.assert_array_equal(decoded(message), np.repeat(grey, 3, axis=2))
    monkeypatch.setattr(pillow_images, "_PNG_PIXELS", 10_000)
    message = image_message(smooth)
    assert message.encoded[8:12] == b"WEBP"
    np.testing.assert_array_equal(decoded(message), smooth)
    np.testing.assert_array_equal(decoded(image_message(Image.fromarray(noise))), noise)
    # Noise, for which a file is no smaller: by default the server takes larger pixels than files.
    monkeypatch.setattr(client_image, "MAX_FILE_BYTES", 50_000)
    for image in (noise, Image.fromarray(noise)):
        assert image_message(image).WhichOneof("source") == "raw"
        np.testing.assert_array_equal(decoded(image_message(image)), noise)
    turned = Image.fromarray(noise)
    turned.getexif()[0x0112] = 6
    np.testing.assert_array_equal(decoded(image_message(turned)), np.rot90(noise, -1))


def test_what_no_message_holds_is_refused_before_it_is_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    says = r"^images\[2\] has more than 63 MiB, .* smaller"
    path = tmp_path / "large.tif"
    with path.open("wb") as file:
        file.truncate(10 * MAX_BYTES)
    with pytest.raises(ValueError, match=says):
        image_message(path, "images[2]")
    with pytest.raises(ValueError, match=says):
        image_message(bytes(MAX_BYTES + 1), "images[2]")
    with path.open("rb") as file, pytest.raises(ValueError, match=says):
        image_message(file, "images[2]")
    for module, name in (
        (client_image, "MAX_BYTES"),
        (image_file, "MAX_BYTES"),
        (client_image, "_MAX_RAW_BYTES"),
    ):
        monkeypatch.setattr(module, name, 1000)
    with pytest.raises(ValueError, match=r"^images\[2\] has more than"):
        image_message(NOISE, "images[2]")
    with pytest.raises(ValueError, match=r"^images\[2\] has more than"):
        image_message(picture("F"), "images[2]")


def test_bytes_and_open_files(tmp_path: Path) -> None:
    file = io.BytesIO()
    picture("RGB").save(file, "PNG")
    data = file.getvalue()
    path = tmp_path / "ä b.png"
    path.write_bytes(data)
    for image in (data, bytearray(data), memoryview(data), path, str(path), io.BytesIO(data), path.as_uri()):
        assert image_message(image).encoded == data
    with path.open("rb") as opened:
        assert image_message(opened).encoded == data
        with pytest.raises(ValueError, match=r"^image: there is nothing to read: .* was read before"):
            image_message(opened)
    empty = tmp_path / "empty.png"
    empty.touch()
    with pytest.raises(ValueError, match=r"^image: the file '.*empty\.png' is empty$"):
        image_message(empty)
    with path.open() as text, pytest.raises(TypeError, match=r"^image: _io.TextIOWrapper .*'rb'"):
        image_message(text)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"StringIO .*'rb'"):
        image_message(io.StringIO("x"))  # type: ignore[arg-type]
    encoded = base64.b64encode(data).decode()
    assert image_message(f"data:image/png;base64,{encoded}").encoded == data
    assert image_message(f"DATA:;BASE64,{encoded.replace('=', '%3D')}").encoded == data


def test_an_image_that_the_server_keeps_is_named() -> None:
    assert image_message(ImageHandle(ImageId("abc"), 1, 1)).image_id == "abc"


def test_addresses() -> None:
    for address in ("https://images.example/a.png", "HTTPS://images.example/a.png"):
        assert image_message(address).uri == address


@pytest.mark.parametrize(
    ("image", "error", "says"),
    [
        (
            "http://images.example/a.png",
            ValueError,
            "http://, which is not supported: the server fetches https:// only",
        ),
        ("S3://bucket/a.png", ValueError, "starts with s3://, which is not supported: give a path"),
        ("file://host/a.png", ValueError, "on another machine"),
        ("data:image/png;base64,@@", ValueError, "is not base64"),
        ("data:image/png;base64", ValueError, "no data"),
        ("", ValueError, "the path is empty"),
        ("no\0file", ValueError, "null byte"),
        ("iVBORw0KGgo" * 9000, OSError, "cannot be read: file name too long"),
        ("a cat", FileNotFoundError, f"there is no file 'a cat' in {os.getcwd()}"),
        (Path("/nowhere/a.png"), FileNotFoundError, "there is no file '/nowhere/a.png'$"),
        ("file:///nowhere/a%20b.png", FileNotFoundError, "there is no file '/nowhere/a b.png'$"),
        (Path("/"), IsADirectoryError, "'/' is a folder"),
        (None, TypeError, "not NoneType"),
        ([1], TypeError, "not list"),
        (Image.new("RGB", (0, 4)), ValueError, "is 0x4 pixels"),
    ],
)
def test_what_is_no_image_is_refused_by_name(image: Any, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=rf"^images\[1\].*{says}") as caught:
        image_message(image, "images[1]")
    assert len(str(caught.value)) < 400
