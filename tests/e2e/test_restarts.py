"""`visiongate up` and `visiongate triton` while their Triton is killed: real processes, real signals."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from export.demo.serving import REPOSITORY
from visiongate import Client

COMMAND = str(Path(sys.executable).parent / "visiongate")
PATIENCE_S = 60
FACE = [(10, 10, 90, 90)]


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """The gaze models of the demo: they start in two seconds."""
    for name in ("face_detection", "gaze"):
        shutil.copytree(REPOSITORY / name, tmp_path / "models" / name)
    return tmp_path / "models"


class Command:
    """A command under way, its output, and its Triton."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self._output = folder / "output"
        with self._output.open("w") as output:
            self.process = subprocess.Popen([COMMAND, *arguments], stdout=output, stderr=output)

    @property
    def output(self) -> str:
        return self._output.read_text()

    def wait_for(self, pattern: str) -> re.Match[str]:
        eventually(lambda: re.search(pattern, self.output) or self.process.poll() is not None, pattern)
        found = re.search(pattern, self.output)
        assert found, self.output
        return found

    def tritons(self) -> list[int]:
        """The process ids of tritonserver: children of the supervisors, which are children of the command."""
        return [
            grandchild
            for child in children(self.process.pid)
            for grandchild in children(child)
            if b"tritonserver" in Path(f"/proc/{grandchild}/cmdline").read_bytes()
        ]


def children(pid: int) -> list[int]:
    return [
        int(child)
        for path in Path(f"/proc/{pid}/task").glob("*/children")
        for child in path.read_text().split()
    ]


def eventually(is_so: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < deadline, f"not in time: {what}"
        time.sleep(0.05)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Command]]:
    started: list[Command] = []

    def start(*arguments: str) -> Command:
        started.append(Command(tmp_path, *arguments))
        return started[-1]

    yield start
    for command in started:
        command.process.kill()
        command.process.wait()


@pytest.mark.parametrize("processes", [pytest.param(1, marks=pytest.mark.long), 2])
def test_calls_work_again_once_triton_was_killed(
    start: Callable[..., Command], repository: Path, processes: int
) -> None:
    up = start("up", "--repository", str(repository), "--port", "0", "--processes", str(processes))
    address = up.wait_for(r"visiongate answers at (\S+)")[1]
    with Client(address, timeout=PATIENCE_S) as client:
        for seed in range(2):
            picture = np.random.default_rng(seed).integers(0, 256, (120, 160, 3), np.uint8)
            before = client.estimate_gaze(picture, boxes=FACE)
            [triton] = up.tritons()
            os.kill(triton, signal.SIGKILL)
            # The client waits meanwhile.
            eventually(lambda: up.tritons() not in ([], [triton]), "another Triton")  # noqa: B023
            after = client.estimate_gaze(picture, boxes=FACE)
            assert np.allclose(before[0].yaw, after[0].yaw)
    assert "Triton was ended by SIGKILL; its last words: " in up.output
    up.process.send_signal(signal.SIGTERM)
    assert up.process.wait(PATIENCE_S) == 0
    eventually(lambda: not up.tritons(), "no Triton is left")


def test_a_stop_in_the_pause_and_during_the_start_is_obeyed(
    start: Callable[..., Command], repository: Path
) -> None:
    for moment in ("pause", "start"):
        up = start("up", "--repository", str(repository), "--port", "0")
        up.wait_for(r"visiongate answers at")
        [triton] = up.tritons()
        os.kill(triton, signal.SIGKILL)
        up.wait_for("it starts anew in 0.5 seconds")
        if moment == "start":
            eventually(lambda: up.tritons() not in ([], [triton]), "another Triton")  # noqa: B023
        left = up.tritons()
        up.process.send_signal(signal.SIGINT)
        assert up.process.wait(PATIENCE_S) == 0
        eventually(lambda: not any(Path(f"/proc/{pid}").exists() for pid in left), "no Triton")  # noqa: B023


@pytest.mark.parametrize(
    ("name", "ports"),
    [
        pytest.param(
            "triton", ["--grpc-port=0", "--http-port=0", "--metrics-port=0"], marks=pytest.mark.long
        ),
        ("up", ["--port=0"]),
    ],
)
def test_a_triton_that_cannot_start_again_ends_it_with_its_own_words(
    start: Callable[..., Command], repository: Path, name: str, ports: list[str]
) -> None:
    command = start(name, "--repository", str(repository), *ports)
    command.wait_for("answers (gRPC )?at")
    [triton] = command.tritons()
    shutil.rmtree(repository)
    os.kill(triton, signal.SIGKILL)
    assert command.process.wait(PATIENCE_S) == 1
    assert re.search(r"error: Triton died 5 times in a row\. There is no model repository", command.output)
