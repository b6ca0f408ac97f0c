import os
import select
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from gateway.embedded import EmbeddedTritonError, runs, shared_memory


@pytest.fixture(autouse=True)
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    memory, temporary = tmp_path / "memory", tmp_path / "temporary"
    memory.mkdir()
    temporary.mkdir()
    monkeypatch.setattr(shared_memory, "FOLDER", memory)
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    return memory, temporary


def fill(run: runs.Run) -> None:
    run.memory.with_name(f"{run.name}5f2a").touch()
    (run.folder / "inner").mkdir()
    (run.folder / "inner" / "file").touch()


def files(*places: Path) -> list[str]:
    return sorted(path.name for place in places for path in place.iterdir())


def test_a_run_is_swept_once_its_last_process_has_ended(places: tuple[Path, Path]) -> None:
    with runs.claim() as run:
        fill(run)
        process = subprocess.Popen(
            [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=run.locks
        )
    with process:
        before = files(*places)
        assert before == [run.name, run.name, f"{run.name}5f2a"]
        runs.sweep()
        assert files(*places) == before, "a living run was swept"
        assert (run.folder / "inner" / "file").exists()
        process.communicate(b"\n")
    runs.sweep()
    assert files(*places) == []


def test_a_process_of_a_model_that_has_outlived_its_triton_is_ended(
    places: tuple[Path, Path], tmp_path: Path
) -> None:
    """As those do that were starting when their Triton was killed: they hold the run's locks for ever."""
    model = tmp_path / "triton_python_backend_stub"
    model.symlink_to(shutil.which("sleep") or "sleep")
    with runs.claim() as run:
        # The shell stays the parent, as another command follows.
        command = f"{shlex.quote(str(model))} 1000 & echo $!; wait"
        triton = subprocess.Popen(
            ["sh", "-c", command], cwd=run.folder, stdout=subprocess.PIPE, text=True, pass_fds=run.locks
        )
    with triton:
        assert triton.stdout is not None
        started = int(triton.stdout.readline())
        ended = os.pidfd_open(started)
        try:
            while Path(f"/proc/{started}/comm").read_text() != "triton_python_b\n":
                time.sleep(0.01)
            runs.sweep()
            assert not select.select([ended], [], [], 0)[0], "one with a Triton was ended"
            triton.kill()
            triton.wait()
            runs.end(run, 5)
            assert select.select([ended], [], [], 0)[0]
        finally:
            os.close(ended)
    assert files(*places) == []


def test_each_place_has_a_lock_of_its_own(places: tuple[Path, Path]) -> None:
    """Containers may share one place and not the other."""
    for alive in range(2):
        with runs.claim() as run:
            kept = os.dup(run.locks[alive])
        runs.sweep()
        assert files(places[alive]) == [run.name]
        assert files(places[1 - alive]) == []
        os.close(kept)
        runs.sweep()
        assert files(*places) == []


def test_what_is_not_a_run_is_left_alone(places: tuple[Path, Path], tmp_path: Path) -> None:
    others = (
        "visiongate-0",
        "visiongate_",
        "visiongate_1",
        "visiongate_1_abc",
        "visiongate_1_0123abcd4",
        "python",
    )
    target = tmp_path / "target"
    (target / "inner").mkdir(parents=True)
    for place in places:
        for name in others:
            (place / name).mkdir()
        (place / "visiongate_2_0123abcd").touch()
        (place / "visiongate_3_0123abcd").symlink_to(target)
    before = files(*places)
    runs.sweep()
    assert files(*places) == before
    assert (target / "inner").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder to another user")
def test_a_folder_of_another_user_is_left_alone(places: tuple[Path, Path]) -> None:
    mark = places[1] / "visiongate_1_0123abcd"
    mark.mkdir()
    os.chown(mark, 12345, 12345)
    runs.sweep()
    assert mark.exists()


def test_a_start_that_fails_leaves_nothing(places: tuple[Path, Path]) -> None:
    def start() -> None:
        with runs.claim() as run:
            fill(run)
            raise OSError(28, "No space left on device")

    with pytest.raises(EmbeddedTritonError, match=r"cannot be started: .*No space left"):
        start()
    assert files(*places) == []


def test_a_temporary_folder_that_a_shell_would_split_is_not_used(
    places: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "with space").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "with space"))
    monkeypatch.setenv("VISIONGATE_CACHE_DIR", str(places[1]))
    with runs.claim() as run:
        assert run.folder.parent == places[1]
