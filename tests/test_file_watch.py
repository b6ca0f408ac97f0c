import os
from pathlib import Path

from gateway.file_watch import FileWatch


def replace(path: Path, text: str) -> None:
    """As programs do that never leave half a file."""
    new = path.with_suffix(".new")
    new.write_text(text)
    new.replace(path)


def test_a_change_is_told_once(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.write_text("a")
    watch = FileWatch(first, second)
    assert not watch.has_changed()
    replace(first, "b")
    assert watch.has_changed()
    assert not watch.has_changed()
    second.write_text("appears")
    assert watch.has_changed()
    first.unlink()
    assert watch.has_changed()
    assert not watch.has_changed()


def test_an_older_file_of_the_same_length_is_a_change(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("new")
    watch = FileWatch(path)
    old = tmp_path / "old"
    old.write_text("old")
    os.utime(old, ns=(path.stat().st_mtime_ns, path.stat().st_mtime_ns))
    old.replace(path)
    assert watch.has_changed()


def test_a_link_that_turns_is_a_change(tmp_path: Path) -> None:
    """Kubernetes renews the files of a mounted secret in this way."""
    for version in ("1", "2"):
        (tmp_path / version).mkdir()
        (tmp_path / version / "file").write_text(version)
    (tmp_path / "data").symlink_to("1")
    (tmp_path / "file").symlink_to("data/file")
    watch = FileWatch(tmp_path / "file")
    (tmp_path / "next").symlink_to("2")
    (tmp_path / "next").replace(tmp_path / "data")
    assert watch.has_changed()
