"""What an assistant may name as an image, and what it may not, whatever the path looks like."""

import base64
import io
import os
import socket
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from visiongate.draw import Item
from visiongate.mcp import images
from visiongate.mcp.images import MAX_PICTURE_SIDE, Images, Photo

CONTENT = b"\x89PNG and more"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with an image, a subfolder with one, and a secret file beside the folder."""
    (tmp_path / "secret.png").write_bytes(b"secret")
    (tmp_path / "root-like").mkdir()
    (tmp_path / "root-like" / "secret.png").write_bytes(b"secret")
    folder = tmp_path / "root"
    (folder / "sub").mkdir(parents=True)
    (folder / "photo.png").write_bytes(CONTENT)
    (folder / "sub" / "photo.png").write_bytes(CONTENT)
    return folder


async def refusal(source: Images, text: str) -> str:
    with pytest.raises(ValueError, match=r".+") as caught:
        await source.read(text)
    return str(caught.value)


async def test_files_below_the_root_are_read(root: Path) -> None:
    (root / "link.png").symlink_to(root / "sub" / "photo.png")
    (root / "linked").symlink_to(root / "sub")
    source = Images(root)
    for text in (
        "photo.png",
        "sub/photo.png",
        "./sub/../photo.png",
        str(root / "photo.png"),
        "link.png",
        "linked/photo.png",
    ):
        assert (await source.read(text)).content == CONTENT, text


async def test_a_root_may_itself_be_a_link(root: Path) -> None:
    link = root.parent / "link"
    link.symlink_to(root)
    for text in ("photo.png", str(link / "photo.png"), str(root / "photo.png")):
        assert (await Images(link).read(text)).content == CONTENT


async def test_files_outside_the_root_are_refused_whether_they_exist_or_not(root: Path) -> None:
    outside = root.parent
    (root / "link.png").symlink_to(outside / "secret.png")
    (root / "relative.png").symlink_to("../secret.png")
    (root / "linked").symlink_to(outside)
    (root / "dangling.png").symlink_to(outside / "absent.png")
    source = Images(root)
    for text in (
        "../secret.png",
        "../absent.png",
        "sub/../../secret.png",
        "../root-like/secret.png",
        str(outside / "secret.png"),
        str(outside / "absent.png"),
        "/etc/passwd",
        "link.png",
        "relative.png",
        "linked/secret.png",
        "dangling.png",
    ):
        assert await refusal(source, text) == (
            f"image: {text!r} cannot be read: it is not below {root}, the only folder that is read"
        )


async def test_what_is_no_file_is_refused_without_waiting(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(root / "pipe")
    (root / "empty.png").touch()
    (root / "device").symlink_to("/dev/zero")
    (root / "circle").symlink_to("circle")
    source = Images(root)
    assert "'pipe' cannot be read: it is not a regular file" in await refusal(source, "pipe")
    assert "'sub' cannot be read: it is a folder" in await refusal(source, "sub")
    assert "it is not below" in await refusal(source, "device")
    assert "'empty.png' cannot be read: it is empty" in await refusal(source, "empty.png")
    assert "'circle' cannot be read: " in await refusal(source, "circle")
    assert "there is no file 'none.png' below" in await refusal(source, "none.png")
    assert "'photo.png/more' cannot be read: not a directory" in await refusal(source, "photo.png/more")
    assert "cannot be read: " in await refusal(source, "a\0b")
    assert "cannot be read: file name too long" in await refusal(source, "." + "a" * 255)
    assert "~/photo.png" in await refusal(source, "~/photo.png")
    monkeypatch.chdir(root)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket")  # a longer path would not do
        assert "'socket' cannot be read: " in await refusal(source, "socket")
    devices = Images(Path("/dev"))
    assert "'zero' cannot be read: it is not a regular file" in await refusal(devices, "zero")


async def test_a_name_that_comes_to_stand_for_a_link_is_not_followed(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "link.png").symlink_to(root.parent / "secret.png")
    source = Images(root)
    # As if the link had been made between the comparison and the opening.
    monkeypatch.setattr("os.path.realpath", os.path.abspath)
    assert "'link.png' cannot be read: too many levels of symbolic links" in await refusal(source, "link.png")


async def test_files_that_are_too_large_are_refused(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "MAX_FILE_BYTES", 1 << 20)
    (root / "large.png").write_bytes(bytes((1 << 20) + 1))
    (root / "fits.png").write_bytes(bytes(1 << 20))
    source = Images(root)
    assert "'large.png' cannot be read: it has more than 1 MiB" in await refusal(source, "large.png")
    assert len((await source.read("fits.png")).content) == 1 << 20


async def test_without_a_root_no_file_is_read(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)
    for text in ("photo.png", str(root / "photo.png"), "/dev/zero"):
        said = await refusal(Images(), text)
        assert said.startswith(f"image is {text!r}, which is no image data, and no files are read here")
        assert "data:image/png;base64" in said


@pytest.mark.parametrize("missing", ["none", "photo.png"])
def test_a_root_must_be_a_folder(root: Path, missing: str) -> None:
    with pytest.raises(ValueError, match=rf"--root .*{missing} is not a folder"):
        Images(root / missing)


def test_a_root_may_start_at_home(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(root.parent))
    assert f"below {root}," in Images(Path("~/root")).description


@pytest.mark.parametrize("has_root", [True, False])
async def test_image_data_is_decoded(root: Path, has_root: bool) -> None:
    source = Images(root if has_root else None)
    data = os.urandom(1000)
    plain = base64.b64encode(data).decode()
    for text in (
        f"data:image/png;base64,{plain}",
        f"DATA:;base64,{plain}",
        plain,
        plain.rstrip("="),
        base64.urlsafe_b64encode(data).decode(),
        base64.encodebytes(data).decode(),
    ):
        assert (await source.read(text)).content == data, text[:40]
    assert "is not base64" in await refusal(source, "data:image/png;base64,?")


async def test_addresses_are_refused_unless_they_are_allowed(root: Path) -> None:
    (root / "http:").mkdir()
    for text in ("https://a.test/b.png", "HTTP://a.test/b.png", f"file://{root}/photo.png", "s3://a/b"):
        assert "and none is taken" in await refusal(Images(root), text)
    allowed = Images(root, allow_uris=True)
    assert (await allowed.read("https://a.test/b.png")).content == "https://a.test/b.png"
    # The client would open a file:// address itself.
    for text in (f"file://{root.parent}/secret.png", f"FILE://{root}/photo.png", "http://a.test/b.png"):
        assert "an address starts with https://" in await refusal(allowed, text)


async def test_no_path_reaches_the_client(root: Path) -> None:
    """It reads paths and file: addresses, which start with one slash too, wherever they are."""
    source = Images(root, allow_uris=True)
    for text in (f"file:{root.parent}/secret.png", "file:/etc/passwd", "https:/etc/passwd"):
        assert "there is no file" in await refusal(source, text)


def test_the_description_says_what_is_allowed(root: Path) -> None:
    assert "base64" in Images().description
    assert "path" not in Images().description
    assert str(root) in Images(root).description
    assert "https://" not in Images(root).description
    assert "https://" in Images(allow_uris=True).description


def test_pictures_are_upright_scaled_down_and_drawn_on() -> None:
    file = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees
    Image.new("RGB", (4000, 3000), "white").save(file, "JPEG", exif=exif)
    box = np.array([750.0, 1000.0, 2250.0, 3000.0])
    with Image.open(io.BytesIO(Photo(file.getvalue()).drawn([Item(0, box=box)]))) as picture:
        assert picture.format == "JPEG"
        assert picture.size == (MAX_PICTURE_SIDE * 3 // 4, MAX_PICTURE_SIDE)
        pixels = np.asarray(picture.convert("L")).astype(int)
    assert pixels[512, 192] < 180  # the left edge of the box
    assert pixels[512, 384] > 240  # its middle
    assert pixels[512, 100] > 240


@pytest.mark.parametrize("content", [b"no image", b"\x89PNG\r\n\x1a\n", "https://a.test/b.png"])
def test_what_cannot_be_drawn_on_is_said(content: bytes | str) -> None:
    with pytest.raises(ValueError, match=r"format|only the server"):
        Photo(content).drawn([])
