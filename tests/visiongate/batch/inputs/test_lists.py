"""Lists of images as inputs of a job: text files and standard input."""

import gzip
import io
import os
from pathlib import Path

import pytest

from visiongate.batch.inputs import open_source


class Pipe(io.TextIOWrapper):
    """Standard input that is no terminal."""

    def __init__(self, data: bytes) -> None:
        super().__init__(io.BytesIO(data))


def test_list(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a b.jpg").write_bytes(b"1")
    (tmp_path / os.fsdecode(b"\xff.jpg")).write_bytes(b"2")
    lines = [
        "\ufeffin/a b.jpg".encode(),
        b"",
        b"\xff.jpg\r",
        str(tmp_path / "in/a b.jpg").encode(),
        b"gone.jpg",
    ]
    (tmp_path / "list.txt").write_bytes(b"\n".join(lines))
    source = open_source([str(tmp_path / "list.txt")])
    *items, gone = source
    # Relative to the list's folder, wherever this process is. Ids are as the list has them.
    assert [(item.id, item.read()) for item in items] == [
        ("in/a b.jpg", b"1"),
        ("\\xff.jpg", b"2"),
        (f"{tmp_path}/in/a b.jpg", b"1"),
    ]
    assert items[0].version == items[2].version != ""
    with pytest.raises(FileNotFoundError, match=r"there is no file .*/gone\.jpg$"):
        gone.read()
    assert source.count() == 4
    (tmp_path / "list.txt.gz").write_bytes(gzip.compress(b"\n".join(lines)))
    assert [item.id for item in open_source([str(tmp_path / "list.txt.gz")])] == [item.id for item in source]


def test_list_that_breaks_off(tmp_path: Path) -> None:
    path = tmp_path / "list.txt.gz"
    path.write_bytes(gzip.compress(os.urandom(1000))[:-20])
    with pytest.raises(ValueError, match=r"list\.txt\.gz is no whole gzip file"):
        list(open_source([str(path)]))


@pytest.mark.parametrize(
    ("data", "ids"),
    [
        (b"a.jpg\nb c.jpg\r\n\n", ["a.jpg", "b c.jpg"]),
        # As `find -print0` writes it.
        (b"a\nb.jpg\0c.jpg\0", ["a\nb.jpg", "c.jpg"]),
        (b"", []),
    ],
)
def test_standard_input(data: bytes, ids: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", Pipe(data))
    monkeypatch.chdir(tmp_path)
    for name in ids:
        (tmp_path / name).write_bytes(name.encode())
    source = open_source(["-"])
    monkeypatch.chdir("/")
    assert source.count() == len(ids)
    # It can be read once, but iterated any number of times.
    for _ in range(2):
        assert [(item.id, item.read()) for item in source] == [(name, name.encode()) for name in ids]


def test_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Pipe(b"")
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr("sys.stdin", terminal)
    with pytest.raises(ValueError, match="which is this terminal"):
        open_source(["-"])


def test_addresses_of_files_and_data(tmp_path: Path) -> None:
    (tmp_path / "a b.jpg").write_bytes(b"1")
    (tmp_path / "list.txt").write_text(f"file://{tmp_path}/a b.jpg\ndata:image/png;base64,MQ==\nabc://x/y\n")
    file, data, unknown = open_source([str(tmp_path / "list.txt")])
    assert file.read() == data.read() == b"1"
    with pytest.raises(ValueError, match="abc:// cannot be opened here"):
        unknown.read()
