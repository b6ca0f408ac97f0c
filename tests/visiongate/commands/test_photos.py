import io
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from visiongate import draw
from visiongate.command_error import CommandError
from visiongate.commands.photos import Photo, Picture, check_output, refuse_photos


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def photo() -> Photo:
    Path("[").mkdir()
    Image.new("RGB", (8, 6), "white").save("[/] a.png")
    return Photo.named("[/] a.png")


def standard_input(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data)))


def test_a_file(photo: Photo) -> None:
    assert photo == Photo("[/] a.png", Path("[/] a.png"))


def test_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    standard_input(monkeypatch, b"data")
    assert Photo.named("-") == Photo("-", b"data")
    with pytest.raises(CommandError, match=r"standard input, where - reads a photo, is empty"):
        Photo.named("-")


def test_standard_input_that_is_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    standard_input(monkeypatch, b"")
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    with pytest.raises(CommandError, match="is this terminal"):
        Photo.named("-")


def test_a_pipe_is_read_once() -> None:
    reading, writing = os.pipe()
    with open(writing, "wb") as file:
        file.write(b"data")
    assert Photo.named(f"/dev/fd/{reading}").image == b"data"
    os.close(reading)


@pytest.mark.parametrize(
    "uri", ["https://example.com/a.png", "HTTPS://x/y", "data:image/png;base64," + "A" * 9999]
)
def test_what_a_uri_may_be_is_the_clients_business(uri: str) -> None:
    assert Photo.named(uri) == Photo(uri, uri)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("[/] none.png", "no file matches [/] none.png (in FOLDER)"),
        ("none.png", "there is no file none.png (in FOLDER)"),
        ("photos/*.jpg", "no file matches photos/*.jpg (in FOLDER)"),
        (".", ". is a folder: name the photos in it, such as ./*.jpg"),
    ],
)
def test_what_is_no_photo(name: str, says: str, folder: Path) -> None:
    with pytest.raises(CommandError) as raised:
        Photo.named(name)
    assert str(raised.value) == says.replace("FOLDER", str(folder))


def test_without_save_nothing_is_drawn(photo: Photo) -> None:
    def items() -> Iterator[draw.Item]:
        yield pytest.fail("an item was made")

    Picture(photo, None).draw(items())


def test_the_picture_is_written(photo: Photo, capsys: pytest.CaptureFixture[str]) -> None:
    path = Path("new") / "[sic] out.JPG"
    picture = Picture(photo, path)
    assert path.parent.is_dir()
    assert not path.exists()
    picture.draw([draw.Item(0, box=np.array([1, 1, 5, 4]))])
    with Image.open(path) as drawn:
        assert drawn.size == (8, 6)
    assert capsys.readouterr().err == f"wrote {path}\n"


def test_photos_of_standard_input_are_drawn_upright() -> None:
    file = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (8, 6)).save(file, "JPEG", exif=exif)
    Picture(Photo("-", file.getvalue()), Path("out.png")).draw([])
    with Image.open("out.png") as drawn:
        assert drawn.size == (6, 8)


@pytest.mark.parametrize("name", ["out/noext", "out.", "out.txt", "out.xbm", "out.png/"])
def test_endings_that_no_picture_has(photo: Photo, name: str) -> None:
    Path("out.png").mkdir()
    with pytest.raises(
        CommandError,
        match=r"--save: no picture can be written to out.*(\.png, \.jpg or \.webp|a folder)$",
    ):
        Picture(photo, Path(name))
    assert not Path("out").exists()


@pytest.mark.parametrize("ending", ["png", "PNG", "jpg", "jpeg", "webp", "tif", "bmp"])
def test_endings_that_pictures_have(photo: Photo, ending: str) -> None:
    path = Path(f"out.{ending}")
    Picture(photo, path).draw([])
    assert path.stat().st_size


def test_places_where_nothing_can_be_written(photo: Photo) -> None:
    Path("file").touch()
    with pytest.raises(CommandError, match=r"^--save file/out\.png cannot be written: "):
        Picture(photo, Path("file/out.png"))
    with pytest.raises(CommandError, match=r"^--out /proc/out\.npy cannot be written: "):
        check_output("--out", Path("/proc/out.npy"), [])


def test_what_is_there_stays_until_it_is_replaced(photo: Photo) -> None:
    Path("out.npy").write_bytes(b"old")
    check_output("--out", Path("out.npy"), [photo])
    assert Path("out.npy").read_bytes() == b"old"


def test_the_photo_itself_is_not_overwritten(photo: Photo) -> None:
    with pytest.raises(CommandError, match=r"^--save .* would overwrite the photo"):
        Picture(photo, Path("[/] a.png").absolute())


def test_nothing_is_drawn_on_what_only_the_server_has() -> None:
    with pytest.raises(CommandError, match=r"only the server fetches https://example.*: download it"):
        Picture(Photo.named("https://example.com/a.png"), Path("out.png"))


def test_photos_are_no_words(photo: Photo) -> None:
    Path("cup").touch()
    Path("notes.txt").touch()
    Path("phone.HEIC").touch()
    refuse_photos(
        ["a cat", "cup", "none.png", "notes.txt", "x" * 9999 + ".png", "\0.png"], "phrase", "advice"
    )
    for name in (photo.name, "phone.HEIC"):
        with pytest.raises(CommandError) as raised:
            refuse_photos(["cat", name], "phrase", "advice")
        assert str(raised.value) == f"{name} is a file here, and is read as a phrase: advice"
