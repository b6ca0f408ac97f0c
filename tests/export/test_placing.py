"""A repository is as it was or has all that is new: whatever fails, and whenever it is killed."""

import errno
import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from export import placing
from export.errors import ExportError
from export.placing import reserved, staged

OLD = {
    "one/config.pbtxt": "old",
    "one/1/model.onnx": "old",
    "one/2/model.onnx": "tuned",
    "one/labels.txt": "x",
}
NEW = {
    "one/config.pbtxt": "new",
    "one/1/model.onnx": "new",
    "two/config.pbtxt": "new",
    "two/1/model.onnx": "new",
}
BOTH = {**OLD, **NEW}


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def read(folder: Path) -> dict[str, str]:
    """All of a folder's files, hidden ones too; an empty folder is one without a text."""
    leaves = [path for path in folder.rglob("*") if path.is_file() or not any(path.iterdir())]
    return {str(p.relative_to(folder)): p.read_text() if p.is_file() else "" for p in leaves}


def export_and(error: BaseException, repository: Path, files: dict[str, str] = NEW) -> None:
    """Fail when all has been made."""
    with staged(repository) as staging:
        write(staging, files)
        raise error


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    write(tmp_path / "models", OLD)
    return tmp_path / "models"


@pytest.fixture(params=["beside", "within"])
def either(request: pytest.FixtureRequest, repository: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository that is staged beside, and one that must be staged within."""
    if request.param == "within":
        monkeypatch.setattr(
            placing, "_place", lambda path: path / "one" if path == repository else path.parent
        )
    return repository


@pytest.mark.parametrize("exchange", [True, False])
def test_all_moves_in_and_what_else_is_there_stays(
    either: Path, exchange: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not exchange:
        monkeypatch.setattr(placing, "_exchange", lambda one, other: False)
    with staged(either) as staging:
        write(staging, NEW)
        assert staging.parent in {either.parent, either / "one"}
        assert {name: text for name, text in read(either).items() if ".export-" not in name} == OLD
    assert read(either) == BOTH
    assert [path.name for path in either.parent.iterdir()] == ["models"]
    # Others read it too: Triton may run as another user.
    assert (either / "two").stat().st_mode & 0o055


def test_links_and_folders_of_a_model_stay(repository: Path) -> None:
    (repository / "one" / "current").symlink_to("1")
    write(repository / "one" / "notes", {"a/b.txt": "deep"})
    with staged(repository) as staging:
        write(staging, NEW)
    assert os.readlink(repository / "one" / "current") == "1"
    assert (repository / "one" / "notes" / "a" / "b.txt").read_text() == "deep"


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("no")])
def test_a_failure_changes_nothing(either: Path, error: BaseException) -> None:
    with pytest.raises(type(error)):
        export_and(error, either)
    assert read(either) == OLD
    assert [path.name for path in either.parent.iterdir()] == ["models"]


@pytest.mark.parametrize("exchange", [True, False])
def test_a_move_that_fails_takes_those_before_it_back(
    repository: Path, exchange: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not exchange:
        monkeypatch.setattr(placing, "_exchange", lambda one, other: False)
    rename = os.rename

    def fail(source: Path, target: Path) -> None:
        if Path(target) == repository / "two":
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        rename(source, target)

    monkeypatch.setattr(os, "rename", fail)
    with (
        pytest.raises(ExportError, match=f"Cannot write to {repository}: Read-only"),
        staged(repository) as staging,
    ):
        write(staging, NEW)
    assert read(repository) == OLD


def test_one_export_at_a_time(repository: Path) -> None:
    with (
        reserved(repository),
        pytest.raises(
            ExportError, match=f"Another export is writing to {repository}: wait until it has ended"
        ),
        reserved(repository),
    ):
        pass
    with reserved(repository):
        pass


def test_a_filesystem_without_locks_will_do(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(handle: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", fail)
    with reserved(repository):
        pass


def test_a_new_repository_stays_only_with_something_in_it(tmp_path: Path) -> None:
    new = tmp_path / "of" / "models"
    with pytest.raises(RuntimeError), reserved(new):
        raise RuntimeError
    assert not new.exists()
    with reserved(new), staged(new) as staging:
        write(staging, NEW)
    assert read(new) == NEW


def test_what_cannot_be_a_repository(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ExportError, match="file is a file: give a folder with --repository"):
        reserved(tmp_path / "file").__enter__()
    with pytest.raises(ExportError, match=f"Cannot write to {tmp_path}/file/models: Not a directory"):
        reserved(tmp_path / "file" / "models").__enter__()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A filesystem of 2 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting is not allowed here")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk(small_disk: Path) -> None:
    # Its own mount: there is no place beside it.
    write(small_disk, OLD)
    full = f"The disk of {small_disk} is full: make room"
    with pytest.raises(ExportError, match=full), staged(small_disk) as staging:
        (staging / "big").write_bytes(bytes(3 << 20))
    assert staging.parent == small_disk / "one"
    assert read(small_disk) == OLD
    # As a library in C++ has it, which says nothing of the disk.
    with pytest.raises(ExportError, match=full):
        export_and(RuntimeError("write failed"), small_disk, {"big/1/model.onnx": "-" * (3 << 19)})
    assert read(small_disk) == OLD


def test_a_full_disk_that_a_library_speaks_of(repository: Path) -> None:
    error = RuntimeError("Failed to export the model")
    error.__cause__ = OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(ExportError, match=f"The disk of {repository} is full"):
        export_and(error, repository)


def test_a_read_only_disk_is_told_before_any_work(small_disk: Path) -> None:
    write(small_disk, OLD)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(ExportError, match=f"Cannot write to {small_disk}: Read-only file system"):
        reserved(small_disk).__enter__()


# Kills itself at the given of all steps that change a disk, Python's audit events of them.
VICTIM = """
import os, signal, sys
from pathlib import Path
from export import placing
from export.placing import reserved, staged

def export(repository, new, step):
    left = [step]
    def count(event, arguments):
        writes = event == "open" and arguments[2] & os.O_ACCMODE
        if writes or event in {"os.mkdir", "os.rename", "os.link", "os.remove", "os.rmdir", "ctypes.call"}:
            left[0] -= 1
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)
    exchange = placing._exchange
    def audited(one, other):
        sys.audit("ctypes.call")
        done = exchange(one, other)
        sys.audit("ctypes.call")
        return done
    placing._exchange = audited
    sys.addaudithook(count)
    with reserved(repository), staged(repository) as staging:
        for name, text in new.items():
            (staging / name).parent.mkdir(parents=True, exist_ok=True)
            (staging / name).write_text(text)
    os._exit(0)

root, within, old, new = Path(sys.argv[1]), sys.argv[2] == "within", *map(eval, sys.argv[3:])
for step in range(1, 1000):
    repository = root / str(step) / "models"
    for name, text in old.items():
        (repository / name).parent.mkdir(parents=True, exist_ok=True)
        (repository / name).write_text(text)
    child = os.fork()
    if not child:
        if within:
            placing._place = lambda path: path / "one"
        export(repository, new, step)
    status = os.waitpid(child, 0)[1]
    if os.WIFEXITED(status):
        print(step - 1, os.WEXITSTATUS(status))
        break
"""


@pytest.mark.parametrize("where", ["beside", "within"])
def test_killed_at_any_step(tmp_path: Path, where: str) -> None:
    command = [sys.executable, "-c", VICTIM, str(tmp_path), where, repr(OLD), repr(NEW)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    steps, status = map(int, result.stdout.split())
    assert status == 0
    assert steps > 20
    seen = []
    visible = 0
    for step in range(1, steps + 1):
        repository = tmp_path / str(step) / "models"
        found = {name: text for name, text in read(repository).items() if ".export-" not in name}
        # Between the two models' moves: each is whole, the old or the new.
        assert found in (OLD, {**OLD, **{k: v for k, v in NEW.items() if k.startswith("one")}}, BOTH)
        seen.append(found)
        visible += any(path.is_dir() for path in repository.glob(".*"))
        # The next one sweeps, and does it all.
        with reserved(repository), staged(repository) as staging:
            write(staging, NEW)
        assert read(repository) == BOTH
        assert [path.name for path in repository.parent.iterdir()] == ["models"]
    # Only while models move, and only where there is no place beside the repository.
    assert 0 < visible < 8 if where == "within" else not visible
    assert seen[0] == OLD
    assert seen[-1] == BOTH
