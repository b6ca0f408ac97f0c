import asyncio
import json
import logging
import os
import re
import signal
from typing import Any

import pytest

from gateway import processes
from gateway.processes import ProcessesError, _End, _ending, _line, _Processes
from gateway.settings import Settings
from gateway.stopping import StopSignals, until_first


class Ending(_Processes):
    """Processes that end immediately, ten times."""

    def __init__(self, has_answered: bool) -> None:
        super().__init__(Settings(processes=2), lambda settings, served: None, StopSignals())
        self._has_answered = has_answered
        self._runs = 0
        self._is_over = asyncio.Event()

    async def _run(self, number: int) -> _End:
        self._runs += 1
        if self._runs > 10:
            self._is_over.set()
            await asyncio.Event().wait()
        return _End("exit", f"reason {self._runs}")

    async def keep_to_the_end(self) -> None:
        async with asyncio.timeout(10):
            await until_first(self.keep(1), self._is_over.wait())


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "FIRST_PAUSE_S", 0.0001)
    monkeypatch.setattr(processes, "MAX_PAUSE_S", 0.0004)


async def test_pauses_grow_to_the_longest(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    await Ending(has_answered=True).keep_to_the_end()
    pauses = re.findall(r"worker process 1: reason \d+; a new one starts in (\S+) seconds", caplog.text)
    assert pauses == ["0.0001", "0.0002", *["0.0004"] * 8]


async def test_replacements_are_counted_by_reason() -> None:
    ending = Ending(has_answered=True)
    await ending.keep_to_the_end()
    counted = {
        reason: ending.metrics.registry.get_sample_value(
            "visiongate_worker_restarts_total", {"reason": reason}
        )
        for reason in ("exit", "signal", "silent")
    }
    assert counted == {"exit": 10, "signal": 0, "silent": 0}


def test_why_a_process_ended() -> None:
    assert _ending(7, -9, None) == _End("signal", "process id 7 was ended by SIGKILL")
    assert _ending(7, 3, None) == _End("exit", "process id 7 ended with exit code 3")
    assert _ending(7, 1, "no Triton") == _End("exit", "no Triton")


async def test_the_death_of_a_steady_process_is_not_held_against_the_next(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "STEADY_S", -1)
    caplog.set_level(logging.WARNING)
    await Ending(has_answered=True).keep_to_the_end()
    assert caplog.text.count("a new one starts in 0.0001 seconds") == 10


async def test_half_a_line_is_the_end_of_a_report() -> None:
    """Of a process that was killed while it wrote."""
    stream = asyncio.StreamReader()
    stream.feed_data(b'{"alive": true}\n{"ali')
    stream.feed_eof()
    assert [await _line(stream, 1) for _ in range(3)] == [b'{"alive": true}\n', b"", b""]


async def test_gives_up_where_none_ever_answers() -> None:
    ending = Ending(has_answered=False)
    async with asyncio.timeout(10):
        with pytest.raises(ProcessesError, match="reason 2"):
            await until_first(ending.keep(1), ending.keep(2))


async def test_a_process_that_stands_still_is_replaced(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real one, stopped while it waits for a Triton that is not there: its death is the parent's doing."""
    monkeypatch.setattr(processes, "MAX_SILENCE_S", 1.5)
    monkeypatch.setattr(processes, "INTERVAL_S", 0.1)
    stop = StopSignals()
    settings = Settings(processes=2, triton="127.0.0.1:9", triton_wait_s=600, grace_s=0, port=0)
    parent = _Processes(settings, lambda settings, served: None, stop)
    pids: list[int] = []
    spoke = asyncio.Event()
    follow = parent._follow

    async def stopped(number: int, process: asyncio.subprocess.Process, report: dict[str, Any]) -> bool:
        pids.append(process.pid)
        assert process.stdout is not None
        report.update(json.loads(await process.stdout.readline()))
        assert report["alive"]
        if len(pids) == 1:
            os.kill(process.pid, signal.SIGSTOP)
        else:
            spoke.set()
        return await follow(number, process, report)

    monkeypatch.setattr(parent, "_follow", stopped)
    caplog.set_level(logging.WARNING)
    async with asyncio.timeout(60):
        await until_first(parent.keep(1), spoke.wait())
    assert f"process id {pids[0]} stood still for" in caplog.text
    silent = parent.metrics.registry.get_sample_value(
        "visiongate_worker_restarts_total", {"reason": "silent"}
    )
    assert silent == 1
    assert len(pids) == 2
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
