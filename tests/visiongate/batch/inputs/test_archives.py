"""WebDataset archives as inputs of a job."""

import io
import os
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fsspec
import pytest

from visiongate.batch.inputs import open_source
from visiongate.batch.item import Source

# Whole blocks of 512 bytes, and others.
FILES = {
    "b/0001.jpg": b"1" * 512,
    "b/0001.json": b"{}",
    "a.png": b"2" * 1000,
    ".c.jpg": b"",
    "ü.jpg": b"4" * 99_999,
}
IMAGES = ["b/0001.jpg", "a.png", "ü.jpg"]


def packed(mode: str = "w", names: dict[str, bytes] = FILES) -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode=mode) as tar:  # type: ignore[call-overload]
        for name, data in names.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return target.getvalue()


def write(folder: str, name: str, data: bytes) -> str:
    """Write a file to a folder of this machine or of memory, and return its address."""
    with fsspec.open(f"{folder}/{name}", "wb") as file:
        file.write(data)
    return f"{folder}/{name}"


@pytest.fixture(params=["here", "memory"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path) if request.param == "here" else f"memory://{tmp_path.name}"


@pytest.mark.parametrize(("name", "mode"), [("x.tar", "w"), ("x.tar.gz", "w:gz"), ("x.tgz", "w:gz")])
def test_archive(folder: str, name: str, mode: str) -> None:
    source = open_source([write(folder, name, packed(mode))])
    assert source.count() in (3, None)
    items = list(source)
    # In the archive's order, not sorted.
    assert [item.id for item in items] == [f"{name}/{image}" for image in IMAGES]
    assert source.ignored == 1
    with ThreadPoolExecutor(8) as threads:
        data = list(threads.map(lambda item: item.read(), items * 10))
    assert data == [FILES[image] for image in IMAGES] * 10
    assert len({item.version for item in items}) == 3


def test_only_an_archive_at_hand_is_counted(tmp_path: Path) -> None:
    assert open_source([write(str(tmp_path), "x.tar", packed())]).count() == 3
    assert open_source([write(str(tmp_path), "x.tar.gz", packed("w:gz"))]).count() is None


def test_braces_and_patterns(folder: str) -> None:
    for number in range(9, 12):
        write(folder, f"x-{number:03}.tar", packed(names={f"{number}.jpg": b"x"}))
    ids = [f"x-{number:03}.tar/{number}.jpg" for number in range(9, 12)]
    assert [item.id for item in open_source([f"{folder}/x-{{009..011}}.tar"])] == ids
    assert [item.id for item in open_source([f"{folder}/x-*.tar"])] == ids
    # One that is missing is an input that fails.
    items = list(open_source([f"{folder}/x-{{008..010}}.tar"]))
    assert [item.id for item in items] == ["x-008.tar/", *ids[:2]]
    with pytest.raises(FileNotFoundError, match=r"there is no file .*x-008\.tar$"):
        items[0].read()


def end_of(source: Source) -> tuple[list[str], str]:
    """Return the ids of all items but the last, and what its `read` raises."""
    *items, last = source
    with pytest.raises(ValueError, match=r"x\.tar") as caught:
        last.read()
    assert last.id.endswith((".tar/", ".gz/"))
    return [item.id.partition("/")[2] for item in items], str(caught.value)


# Within a file, between two (the files' data begin at 512 and at 2048), within a header, before the end.
@pytest.mark.parametrize(
    ("length", "ids"),
    [(700, IMAGES[:1]), (1024, IMAGES[:1]), (1200, IMAGES[:1]), (4000, IMAGES[:2]), (20_000, IMAGES)],
)
def test_archive_that_breaks_off(folder: str, length: int, ids: list[str]) -> None:
    found, sentence = end_of(open_source([write(folder, "x.tar", packed()[:length])]))
    assert found == ids
    assert "x.tar is no whole tar file: " in sentence


def test_file_that_breaks_off(folder: str) -> None:
    items = list(open_source([write(folder, "x.tar", packed()[:20_000])]))
    with pytest.raises(ValueError, match=r"x\.tar breaks off within .*ü\.jpg"):
        items[2].read()


def test_damaged_header(folder: str) -> None:
    data = bytearray(packed())
    data[1024 : 1024 + 512] = os.urandom(512)
    found, sentence = end_of(open_source([write(folder, "x.tar", bytes(data))]))
    assert found == IMAGES[:1]
    assert "no whole tar file" in sentence


@pytest.mark.parametrize("data", [b"", b"no archive" * 100])
def test_no_archive(folder: str, data: bytes) -> None:
    found, sentence = end_of(open_source([write(folder, "x.tar", data)]))
    assert not found
    assert "x.tar is no whole tar file: " in sentence


def test_compressed_archive_that_breaks_off(folder: str) -> None:
    names = {f"{number}.jpg": os.urandom(50_000) for number in range(20)}
    data = packed("w:gz", names)
    found, sentence = end_of(open_source([write(folder, "x.tar.gz", data[: len(data) // 2])]))
    assert found == [f"{number}.jpg" for number in range(len(found))]
    assert 5 < len(found) < 12
    assert "x.tar.gz is no whole gzip file" in sentence


def test_link_in_an_archive(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        link = tarfile.TarInfo("a.jpg")
        link.type = tarfile.SYMTYPE
        link.linkname = "/etc/passwd"
        tar.addfile(link)
    (item,) = open_source([str(tmp_path / "x.tar")])
    with pytest.raises(ValueError, match=r"x\.tar/a\.jpg is no file but a link"):
        item.read()
