"""Folders, patterns and files as inputs of a job."""

import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from visiongate.batch.inputs import open_source
from visiongate.batch.item import Item


def write(folder: Path, *names: str | bytes) -> Path:
    """Write files whose contents are their names."""
    for name in names:
        path = os.path.join(os.fsencode(folder), os.fsencode(name))
        os.makedirs(os.path.dirname(path), exist_ok=True)
        Path(os.fsdecode(path)).write_bytes(os.fsencode(name))
    return folder


def ids(items: Iterable[Item]) -> list[str]:
    return [item.id for item in items]


def test_folder(tmp_path: Path) -> None:
    names = [
        "b/x.jpg",
        "a/x.jpg",
        "a.png",
        "a b'\".JPEG",
        "c\nd.webp",
        "ü.gif",
        "notes.md",
        "a/.hidden.jpg",
        ".git/x.jpg",
    ]
    source = open_source([str(write(tmp_path, *names))])
    items = list(source)
    # The order of whole paths' bytes, as in a bucket: "a b" before "a.png" before "a/x".
    assert ids(items) == ["a b'\".JPEG", "a.png", "a/x.jpg", "b/x.jpg", "c\nd.webp", "ü.gif"]
    assert [item.read().decode() for item in items] == ids(items)
    assert source.ignored == 1
    assert source.count() == 6
    assert source.name == str(tmp_path)
    assert ids(source) == ids(items)
    assert "notes.md" in ids(open_source([str(tmp_path)], all_files=True))


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    write(tmp_path, b"\xff.jpg", b"a\x1b[1m.jpg", b"\xc3\xa4.jpg")
    items = list(open_source([str(tmp_path)]))
    assert ids(items) == ["a\x1b[1m.jpg", "ä.jpg", "\\xff.jpg"]
    assert [item.read() for item in items] == [b"a\x1b[1m.jpg", b"\xc3\xa4.jpg", b"\xff.jpg"]
    for text in (os.fsdecode(b"\xff.jpg"), "*"):
        open_source([f"{tmp_path}/{text}"]).name.encode()


def test_version_changes_with_the_file(tmp_path: Path) -> None:
    write(tmp_path, "a.jpg", "b.jpg")
    source = open_source([str(tmp_path)])
    before = [item.version for item in source]
    os.utime(tmp_path / "a.jpg", ns=(1, 1))
    after = [item.version for item in source]
    assert after[0] != before[0]
    assert after[1] == before[1] != ""


def test_links(tmp_path: Path) -> None:
    root = write(tmp_path / "root", "a/x.jpg")
    other = write(tmp_path / "other", "y.jpg", "deep/z.jpg")
    (root / "file.jpg").symlink_to(other / "y.jpg")
    (root / "gone.jpg").symlink_to(other / "nothing.jpg")
    (root / "linked").symlink_to(other)
    # Each of these would never end.
    (root / "a" / "up").symlink_to(root)
    (root / "a" / "top").symlink_to(tmp_path)
    (other / "deep" / "back").symlink_to(other)
    (root / "self").symlink_to(root / "self")
    items = {item.id: item for item in open_source([str(root)])}
    assert list(items) == ["a/x.jpg", "file.jpg", "gone.jpg", "linked/deep/z.jpg", "linked/y.jpg"]
    assert items["linked/y.jpg"].read() == items["file.jpg"].read() == b"y.jpg"
    with pytest.raises(FileNotFoundError, match=r"^there is no file .*gone\.jpg$"):
        items["gone.jpg"].read()
    # It can be read once it is there.
    write(other, "nothing.jpg")
    assert items["gone.jpg"].read() == b"nothing.jpg"


@pytest.fixture
def nobody() -> Iterator[None]:
    """Inside, this process is no superuser, who may read everything."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    yield
    os.seteuid(user)


@pytest.fixture
def public_folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o777)
        yield Path(folder)


def test_what_may_not_be_read(public_folder: Path, nobody: None) -> None:
    write(public_folder, "a/x.jpg", "b/x.jpg", "c/x.jpg")
    (public_folder / "b").chmod(0)
    (public_folder / "c/x.jpg").chmod(0)
    items = list(open_source([str(public_folder)]))
    assert ids(items) == ["a/x.jpg", "b/", "c/x.jpg"]
    assert items[0].read() == b"a/x.jpg"
    for item in items[1:]:
        with pytest.raises(PermissionError, match=r"/(b|c/x\.jpg) cannot be read: permission denied$"):
            item.read()
    with pytest.raises(PermissionError, match=r"/b cannot be read: permission denied$"):
        list(open_source([f"{public_folder}/b"]))
    (public_folder / "b").chmod(0o700)


def test_folder_that_goes_away_meanwhile(tmp_path: Path) -> None:
    write(tmp_path, "a/x.jpg", "b/x.jpg", "c/x.jpg")
    items = iter(open_source([str(tmp_path)]))
    found = [next(items)]
    shutil.rmtree(tmp_path / "b")
    found += items
    assert ids(found) == ["a/x.jpg", "b/", "c/x.jpg"]
    with pytest.raises(FileNotFoundError, match=r"there is no file or folder .*b$"):
        found[1].read()


def test_files_that_are_none(tmp_path: Path) -> None:
    write(tmp_path, "a.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "empty.jpg").touch()
    items = {item.id: item for item in open_source([str(tmp_path)])}
    for name in ("pipe.jpg", "empty.jpg"):
        with pytest.raises(ValueError, match=f"{name} is empty"):
            items[name].read()


def test_patterns(tmp_path: Path) -> None:
    write(
        tmp_path, "a.jpg", "b.png", "x/c.jpg", "x/y/d.jpg", "x/y/e.txt", "x/.h/f.jpg", ".g.jpg", "raw/1.bin"
    )

    def found(pattern: str) -> list[str]:
        source = open_source([f"{tmp_path}/{pattern}"])
        assert source.count() == len(list(source))
        return ids(source)

    assert found("*.jpg") == ["a.jpg"]
    assert found("**/*.jpg") == ["a.jpg", "x/c.jpg", "x/y/d.jpg"]
    assert found("x/**/*.jpg") == ["c.jpg", "y/d.jpg"]
    assert found("x/**") == ["c.jpg", "y/d.jpg"]
    assert found("?.*") == ["a.jpg", "b.png"]
    assert found("[!a].png") == ["b.png"]
    assert found("x/.*/*.jpg") == [".h/f.jpg"]
    assert found("*.{png,jpg}") == ["b.png", "a.jpg"]
    # As a shell would, with a folder that a pattern matches.
    assert found("[x]") == ["x/c.jpg", "x/y/d.jpg"]
    # Who writes an ending means it.
    assert found("raw/*.bin") == ["1.bin"]
    assert found("*/*/*/*/*") == []


def test_pattern_characters_in_names(tmp_path: Path) -> None:
    write(tmp_path, "[x].jpg", "{1,2}/y.jpg", "x.jpg")
    assert ids(open_source([f"{tmp_path}/[x].jpg"])) == ["[x].jpg"]
    assert ids(open_source([f"{tmp_path}/{{1,2}}"])) == ["y.jpg"]


def test_several_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "a/x.jpg", "b/x.jpg", "b/c/x.jpg", "no.md")
    monkeypatch.chdir(tmp_path)
    source = open_source(["b", "a/x.jpg", "b/c/*.jpg"])
    assert ids(source) == ["b/c/x.jpg", "b/x.jpg", "a/x.jpg", "b/c/x.jpg"]
    assert source.count() == 4
    monkeypatch.chdir(tmp_path / "a")
    same = open_source(["../b", "x.jpg", "../b/c/*.jpg"])
    assert same.name == source.name
    assert ids(same) == ids(source)


def test_many_texts_have_a_short_name(tmp_path: Path) -> None:
    write(tmp_path, *(f"{number:03}.jpg" for number in range(100)))
    names = sorted(map(str, tmp_path.iterdir()))
    source = open_source(names)
    assert len(ids(source)) == 100
    assert len(source.name) < 1000
    assert source.name != open_source(names[::-1]).name


@pytest.mark.parametrize(
    ("texts", "options", "sentence"),
    [
        ([], {}, "give the images"),
        ([""], {}, "the name of an input is empty"),
        (["nothing"], {}, "there is no file or folder nothing in "),
        (["a\0b"], {}, "there is no file or folder a"),
        (["-", "-"], {}, "standard input can be read once"),
        (["."], {"kind": "films"}, "no kind of input 'films'; there are images, list"),
        (["."], {"every_nth": 0}, "1 or more, not 0"),
        (["."], {"every_nth": 2}, "every_nth is of videos, and no input is one"),
        (["."], {"column": "image"}, r"column is of tables \(csv, tsv, jsonl, parquet\), and no input is"),
        (["-"], {"id_column": "name"}, "id_column is of tables"),
        (["https://x/a.jpg"], {"all_files": True}, "all_files is of folders and archives"),
        (["abc://x"], {}, "abc:// cannot be opened here: Protocol not known: abc"),
        (["s3:///x"], {}, "names no bucket: give s3://BUCKET/FOLDER"),
    ],
)
def test_bad_texts(texts: list[str], options: dict[str, str], sentence: str) -> None:
    with pytest.raises((ValueError, OSError), match=sentence):
        open_source(texts, **options)  # type: ignore[arg-type]


def test_many_files_in_a_folder(tmp_path: Path) -> None:
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else tmp_path) as folder:
        for number in range(100_000):
            os.close(os.open(f"{folder}/{number}.jpg", os.O_CREAT | os.O_WRONLY))
        found = ids(open_source([folder]))
    assert found == sorted(f"{number}.jpg" for number in range(100_000))
