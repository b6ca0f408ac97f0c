"""Folders of jobs, here and in buckets: files are whole or not there; what fails is a sentence."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from batch_jobs import Inputs, rows, work
from s3 import S3Server
from visiongate.batch.files import Block, FileWriter
from visiongate.batch.store import open_store
from visiongate.command_error import CommandError

WRITER = """
import sys
from visiongate.batch.store import open_store
store = open_store(sys.argv[1])
with store.lock(), store.temporary("part-000000.parquet") as path:
    path.write_bytes(b"half of i")
    print("writing", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(params=["folder", "memory", "s3"])
def out(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A place that is not there yet."""
    if request.param == "folder":
        return str(tmp_path / "made" / "by it")
    if request.param == "memory":
        return f"memory://{tmp_path.name}/made/by it"
    use_bucket(request, may_write=True)
    return f"s3://jobs/{tmp_path.name}/made/by it"


def use_bucket(request: pytest.FixtureRequest, *, may_write: bool) -> S3Server:
    server: S3Server = request.getfixturevalue("s3")
    server.put("jobs/other", b"")
    patch: pytest.MonkeyPatch = request.getfixturevalue("monkeypatch")
    for name, value in server.variables(may_write=may_write).items():
        patch.setenv(name, value)
    return server


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """What mounts a file system in memory with these options, and unmounts it at the end."""
    folder = tmp_path / "mounted"
    folder.mkdir()

    def mount(options: str) -> Path:
        command = ["mount", "-t", "tmpfs", "-o", options, "none", str(folder)]
        if subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip("only root can mount")
        return folder

    yield mount
    subprocess.run(["umount", str(folder)], capture_output=True, check=False)


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[tuple[Path, subprocess.Popen[str]]]:
    """A folder, and another process that has half written a file there."""
    command = [sys.executable, "-c", WRITER, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "writing\n"
        yield tmp_path, process
        process.kill()


def test_files_come_are_replaced_and_go(out: str, tmp_path: Path) -> None:
    store = open_store(out)
    assert store.names() == []
    with store.lock():
        store.write_bytes("_b.json", b"first")
        store.write_bytes("_b.json", b"second, which is longer")
        other = tmp_path / "other"
        other.write_bytes(b"mine")
        store.put("a.txt", other)
        store.remove("never there")
    assert other.read_bytes() == b"mine"
    again = open_store(out)
    assert again.names() == ["_b.json", "a.txt"]
    assert again.read_bytes("_b.json") == b"second, which is longer"
    assert again.read_bytes("a.txt") == b"mine"
    with pytest.raises(FileNotFoundError):
        again.read_bytes("c.txt")
    again.remove("a.txt")
    assert again.names() == ["_b.json"]


def test_a_job_is_the_same_in_a_bucket(out: str) -> None:
    store, source = open_store(out), Inputs([f"{number}.jpg" for number in range(12)])

    def end(writer: FileWriter, block: Block) -> bool:
        if block.number == 1:
            writer.add(4, {"id": block.items[4].id, "status": "OK", "error_message": "", "version": "1"})
            writer.keep()
        return block.number == 0

    work(store, source, 5, do=end)
    assert store.names() == ["_open-000001.parquet", "part-000000.parquet"]
    work(store, source, 5)
    assert store.names() == [f"part-{number:06}.parquet" for number in range(3)]
    assert [row["id"] for row in rows(store)] == source.ids
    assert rows(store)[9]["answer"] is None


def test_nothing_is_left_of_a_file_that_was_not_finished(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))

    def fail() -> None:
        with store.temporary("part") as path:
            path.write_bytes(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_two_processes_do_not_share_a_shard(writer: tuple[Path, subprocess.Popen[str]]) -> None:
    folder, process = writer
    store = open_store(str(folder))
    with (
        pytest.raises(CommandError, match=f"another process writes to {folder} now"),
        store.lock(),
    ):
        pass
    # Nor does a shard of another number, which would write the same files. What is written now is left alone.
    for shard in ((0, 2), (1, 2)):
        with pytest.raises(CommandError, match=f"another process writes to {folder} now"), store.lock(shard):
            pass
    assert {path.name.partition("temporary")[0] for path in folder.iterdir()} == {
        "_lock-0-of-1",
        ".visiongate-",
    }
    process.communicate("")
    with store.lock():
        assert store.names() == ["_lock-0-of-1"]
    assert list(folder.iterdir()) == []


def test_shards_keep_out_jobs_that_overlap_them(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    with store.lock((0, 2)), store.lock((1, 2)):
        for shard in ((0, 1), (0, 3)):
            with pytest.raises(CommandError, match="another process writes to"), store.lock(shard):
                pass
    with store.lock():
        assert store.names() == ["_lock-0-of-1"]


def test_what_a_killed_process_left_is_removed(writer: tuple[Path, subprocess.Popen[str]]) -> None:
    folder, process = writer
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert len(list(folder.glob(".visiongate-*"))) == 1
    # Its lock keeps nobody out.
    with open_store(str(folder)).lock((0, 2)), open_store(str(folder)).lock((1, 2)):
        pass
    with open_store(str(folder)).lock():
        assert [path.name for path in folder.iterdir()] == ["_lock-0-of-1"]
    assert list(folder.iterdir()) == []


def test_a_full_disk_is_a_sentence_and_leaves_whole_files_alone(mounted: Callable[[str], Path]) -> None:
    folder = mounted("size=200k")
    store = open_store(str(folder))
    # What cannot be made smaller.
    source = Inputs([os.urandom(500).hex() for _ in range(1000)])
    with pytest.raises(CommandError) as raised:
        work(store, source, 100)
    names = store.names()
    assert str(raised.value) == (
        f"{folder}/part-{len(names):06}.parquet cannot be written: No space left on device"
    )
    assert 0 < len(names) < 10
    assert sorted(os.listdir(folder)) == names
    assert [row["id"] for row in rows(store)] == source.ids[: 100 * len(names)]


def test_a_folder_that_is_read_only_is_a_sentence(mounted: Callable[[str], Path]) -> None:
    folder = mounted("size=200k,ro")
    for out in (folder, folder / "new"):
        store = open_store(str(out))
        with (
            pytest.raises(CommandError, match="cannot be written: Read-only file system"),
            store.lock(),
        ):
            pass
        with pytest.raises(CommandError, match="cannot be written: Read-only file system"):
            store.write_bytes("_job.json", b"")


def test_a_bucket_that_is_read_only_is_a_sentence(request: pytest.FixtureRequest) -> None:
    server = use_bucket(request, may_write=False)
    store = open_store("s3://jobs/read-only")
    with pytest.raises(CommandError) as raised:
        store.write_bytes("_job.json", b"{}")
    assert re.fullmatch(
        r"s3://jobs/read-only/_job\.json cannot be written: .*ACCESS_DENIED.*", str(raised.value)
    )
    with pytest.raises(CommandError, match=r"other cannot be removed: .*ACCESS_DENIED"):
        open_store("s3://jobs").remove("other")
    assert server.filesystem().get_file_info("jobs/read-only").type.name == "NotFound"


def test_a_bucket_that_vanishes_is_a_sentence(request: pytest.FixtureRequest) -> None:
    server = use_bucket(request, may_write=True)
    server.put("brief/first", b"")
    store = open_store("s3://brief/out")

    def vanish(writer: FileWriter, block: Block) -> bool:
        if block.number == 1:
            server.filesystem().delete_dir_contents("brief")
            server.filesystem().delete_dir("brief")
        return True

    with pytest.raises(CommandError, match=r"part-000001\.parquet cannot be written: .*NO_SUCH_BUCKET"):
        work(store, Inputs(["a", "b"]), 1, do=vanish)
    with pytest.raises(CommandError, match=r"s3://brief/out cannot be listed: .*NO_SUCH_BUCKET"):
        store.names()


@pytest.mark.parametrize(
    ("out", "sentence"),
    [
        ("", "--out is empty"),
        ("{folder}/file", "is a file: give a folder"),
        ("{folder}/file/below", "cannot be written: "),
        ("never://heard/of", "--out never://heard/of: never:// cannot be opened here"),
        ("s3:///x", "--out s3:///x names no bucket"),
    ],
)
def test_what_is_no_folder_is_a_sentence(out: str, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CommandError, match=sentence) as raised:
        open_store(out.format(folder=tmp_path)).write_bytes("a", b"")
    assert "\n" not in str(raised.value)
