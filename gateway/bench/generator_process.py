"""The load generator's process, from outside."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from gateway.bench.rounds import Round

COMMAND = (sys.executable, "-m", "gateway.bench.generator")


class GeneratorError(RuntimeError):
    """The load generator could not do a round."""


class GeneratorProcess:
    """Starts the load generator, and asks it for rounds."""

    def __init__(self, command: Sequence[str] = COMMAND) -> None:
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin
        assert self._process.stdout
        try:
            self._process.stdin.close()
            self._process.wait(5)
        except (subprocess.TimeoutExpired, BrokenPipeError):
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    def round(self, load: Path, in_flight: int, seconds: float) -> Round:
        """Do a round of a load. Raises GeneratorError if it cannot be done at all."""
        return Round.from_dict(self._ask({"load": str(load), "in_flight": in_flight, "seconds": seconds}))

    def once(self, load: Path) -> list[bytes]:
        """Send the first call of a load, and return its answers. Raises GeneratorError if it fails."""
        answers: list[str] = self._ask({"load": str(load), "once": True})["answers"]
        return [bytes.fromhex(answer) for answer in answers]

    def _ask(self, order: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin
        assert self._process.stdout
        try:
            self._process.stdin.write(json.dumps(order) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise GeneratorError("the load generator has died")
        answer: dict[str, Any] = json.loads(line)
        if "failed" in answer:
            raise GeneratorError(answer["failed"])
        return answer
