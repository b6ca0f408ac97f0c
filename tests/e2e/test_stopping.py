"""Signals at every moment of a command's life, as process 1 of a container has them."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

COMMAND = str(Path(sys.executable).parent / "visiongate")
# Everything takes long where others keep all cores busy.
PATIENCE_S = 100
INT, TERM, HUP = signal.SIGINT, signal.SIGTERM, signal.SIGHUP


def children(pid: int) -> list[int]:
    return [
        int(child)
        for path in Path(f"/proc/{pid}/task").glob("*/children")
        for child in path.read_text().split()
    ]


def shared_memory() -> set[Path]:
    """That of processes 1, in whatever namespace."""
    return set(Path("/dev/shm").glob("visiongate_1_*"))


def eventually(is_so: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < deadline, f"not in time: {what}"
        time.sleep(0.02)


class Started:
    """A command under way, as process 1 of a namespace of its own."""

    def __init__(self, folder: Path, *arguments: str, environment: dict[str, str] | None = None) -> None:
        self._output = folder / "output"
        with self._output.open("w") as output:
            self._outside = subprocess.Popen(
                ["unshare", "--pid", "--fork", "--kill-child", *arguments],
                stdout=output,
                stderr=output,
                env=os.environ | (environment or {}),
            )
        eventually(lambda: children(self._outside.pid), "a process")
        [self.pid] = children(self._outside.pid)

    @property
    def output(self) -> str:
        return self._output.read_text()

    def wait_for(self, words: str) -> None:
        eventually(lambda: words in self.output or self._outside.poll() is not None, words)
        assert words in self.output

    def send(self, number: int) -> None:
        if self._outside.poll() is None:
            os.kill(self.pid, number)

    def wait(self) -> int:
        return self._outside.wait(PATIENCE_S)

    def kill(self) -> None:
        self._outside.kill()
        self._outside.wait()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Started]]:
    if subprocess.run(["unshare", "--pid", "--fork", "true"], capture_output=True, check=False).returncode:
        pytest.skip("this user may not make process namespaces")
    started: list[Started] = []

    def command(*arguments: str, environment: dict[str, str] | None = None) -> Started:
        started.append(Started(tmp_path, *arguments, environment=environment))
        return started[-1]

    yield command
    for one in started:
        one.kill()


def test_imports(start: Callable[..., Started], tmp_path: Path) -> None:
    """The package's own, too, which come before any of its modules."""
    (tmp_path / "visiongate").mkdir()
    (tmp_path / "visiongate" / "__init__.py").write_text(
        "import time\nprint('importing', flush=True)\ntime.sleep(300)\n"
    )
    for number in (INT, TERM, HUP):
        program = (
            f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import visiongate_command as c; c.main()"
        )
        command = start(sys.executable, "-c", program)
        command.wait_for("importing")
        command.send(number)
        assert command.wait() == 128 + number
        assert command.output == "importing\n"


@pytest.mark.parametrize("twice", [False, True])
def test_preparing_the_environment(start: Callable[..., Started], tmp_path: Path, twice: bool) -> None:
    # In place of the installer one that leaves a process behind, as pip does.
    tools, cache = tmp_path / "tools", tmp_path / "cache"
    tools.mkdir()
    installer = tools / "uv"
    installer.write_text('#!/bin/sh\n[ "$1" = --version ] && exit\nsleep 300 &\ntouch "$PWD/begun"\nwait\n')
    installer.chmod(0o755)
    command = start(
        *(COMMAND, "up", "--demo", "--port", "0"),
        environment={"PATH": f"{tools}:{os.environ['PATH']}", "VISIONGATE_CACHE_DIR": str(cache)},
    )
    eventually(lambda: list(cache.glob("*.partial/begun")), "the installer runs")
    command.send(TERM)
    if twice:
        command.send(TERM)
    assert command.wait() == 128 + TERM
    assert [path.suffix for path in cache.iterdir()] == [".lock"]
    assert "Traceback" not in command.output


@pytest.fixture
def slow_repository(tmp_path: Path) -> Path:
    """A model repository whose one model loads for minutes."""
    version = tmp_path / "repository" / "slow" / "1"
    version.mkdir(parents=True)
    (version.parent / "config.pbtxt").write_text('backend: "python"\n')
    (version / "model.py").write_text(
        "import pathlib, time\n\nclass TritonPythonModel:\n    def initialize(self, args):\n"
        "        pathlib.Path(__file__).with_name('begun').touch()\n        time.sleep(600)\n"
    )
    return tmp_path / "repository"


@pytest.mark.parametrize(("name", "number"), [("up", TERM), ("up", INT), ("triton", TERM)])
def test_loading_models(
    start: Callable[..., Started], slow_repository: Path, name: str, number: signal.Signals
) -> None:
    ports = (
        ["--port", "0"] if name == "up" else ["--grpc-port", "0", "--http-port", "0", "--metrics-port", "0"]
    )
    command = start(COMMAND, name, "--repository", str(slow_repository), *ports)
    eventually(lambda: list(slow_repository.glob("slow/1/begun")), "Triton loads")
    memory = shared_memory()
    assert memory
    command.send(number)
    command.send(number)
    assert command.wait() == 128 + number
    assert "Traceback" not in command.output
    assert not memory & shared_memory()


@pytest.mark.parametrize("number", [INT, HUP])
def test_waiting_for_triton(start: Callable[..., Started], number: signal.Signals) -> None:
    command = start(COMMAND, "serve", "--triton", "127.0.0.1:9", "--port", "0")
    command.wait_for("waiting: no Triton answers at 127.0.0.1:9")
    command.send(number)
    assert command.wait() == 128 + number
    start_line, _ = command.output.splitlines()
    assert "starts port=0 triton=127.0.0.1:9" in start_line


def test_serving_and_then_stopping_triton(start: Callable[..., Started]) -> None:
    command = start(COMMAND, "up", "--demo", "--port", "0")
    command.wait_for("answers at 127.0.0.1:")
    memory = shared_memory()
    command.send(TERM)
    command.wait_for("stopping: calls in flight")
    command.send(TERM)
    assert command.wait() in {0, 128 + TERM}
    assert "Traceback" not in command.output
    assert not memory & shared_memory()


def test_the_demo(start: Callable[..., Started], tmp_path: Path) -> None:
    command = start(COMMAND, "demo", "--save", str(tmp_path / "demo.png"))
    command.wait_for("the gateway answers at")
    command.send(TERM)
    assert command.wait() == 128 + TERM
    assert "Traceback" not in command.output
    assert not (tmp_path / "demo.png").exists()


def test_nohup_is_respected(start: Callable[..., Started]) -> None:
    command = start(
        shutil.which("nohup") or "nohup", COMMAND, "serve", "--triton", "127.0.0.1:9", "--port", "0"
    )
    command.wait_for("waiting: no Triton answers")
    command.send(HUP)
    command.send(TERM)
    assert command.wait() == 128 + TERM
