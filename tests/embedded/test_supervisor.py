"""The supervisor with small commands; `test_runtime.py` has it with Triton."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from gateway.embedded import supervisor

MARKS = [f"{place}/visiongate_test_{os.getpid()}" for place in ("/dev/shm", tempfile.gettempdir())]


def supervise(
    command: Sequence[str], *, parent: int | None = None, grace_s: float = 5
) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [
            *(sys.executable, "-I", "-S", str(supervisor.__file__)),
            *(str(parent or os.getpid()), str(grace_s), *MARKS),
            *command,
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def first_output_line(process: subprocess.Popen[str]) -> str:
    assert process.stderr is not None
    return process.stderr.readline()


def test_reports_the_process_id_output_and_status() -> None:
    out, err = supervise(["sh", "-c", "echo $$; exit 7"]).communicate(timeout=10)
    assert out == err


def test_passes_on_the_status() -> None:
    with supervise(["sh", "-c", "exit 7"]) as process:
        assert process.wait(10) == 7
    with supervise(["sh", "-c", "kill -KILL $$"]) as process:
        assert process.wait(10) == 128 + signal.SIGKILL


def test_stopping_gives_the_command_time_and_takes_all_that_it_left() -> None:
    memory, folder = map(Path, MARKS)
    memory.mkdir()
    Path(f"{memory}_x").touch()
    (folder / "inner").mkdir(parents=True)
    (folder / "inner" / "file").touch()
    script = """
        (trap '' TERM; sleep 60) &
        trap 'sleep 0.3; echo done $!; exit 0' TERM
        echo up
        while :; do sleep 0.05; done
    """
    with supervise(["bash", "-c", script]) as process:
        assert first_output_line(process) == "up\n"
        process.terminate()
        last_words = first_output_line(process).split()
        assert process.wait(10) == 0
    assert last_words[0] == "done"
    assert not Path(f"/proc/{last_words[1]}").exists()
    assert not [path for mark in MARKS for path in Path(mark).parent.glob(f"{Path(mark).name}*")]


def test_a_command_that_ignores_the_stop_is_killed() -> None:
    for grace_s, stops in ((0.2, 1), (60, 2)):
        with supervise(
            ["bash", "-c", "trap '' TERM; echo up; sleep 60 & wait; wait"], grace_s=grace_s
        ) as process:
            assert first_output_line(process) == "up\n"
            for _ in range(stops):
                process.terminate()
                time.sleep(0.2)
            assert process.wait(10) == 128 + signal.SIGKILL


def test_ends_when_the_parent_is_another() -> None:
    with supervise(["sleep", "60"], parent=2**22 + 1) as process:
        assert process.wait(10) == 128 + signal.SIGKILL
