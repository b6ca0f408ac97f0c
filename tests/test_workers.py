import asyncio
import logging
import re
import socket
from collections.abc import Iterator

import pytest

from gateway import workers
from gateway.server import StopSignals, until_first
from gateway.settings import Settings
from gateway.workers import WorkersError, _reserved_port, _Workers


@pytest.fixture
def foreign() -> Iterator[socket.socket]:
    """Another program's socket on a port, not yet listening."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        yield other


def test_a_free_port_becomes_one_that_workers_can_share() -> None:
    with _reserved_port("127.0.0.1", 0) as port:
        assert port
        for _ in range(2):
            with socket.socket() as worker:
                worker.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                worker.bind(("127.0.0.1", port))
        # Who does not ask to share it, does not get it.
        with socket.socket() as other, pytest.raises(OSError, match="in use"):
            other.bind(("127.0.0.1", port))


def test_the_reserved_port_gets_no_connections() -> None:
    with _reserved_port("localhost", 0) as port, pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=5)


@pytest.mark.parametrize("shares", [False, True])
def test_another_programs_port_is_an_error(foreign: socket.socket, shares: bool) -> None:
    if shares:
        foreign.close()
        foreign = socket.create_server(("127.0.0.1", 0), reuse_port=True)
    with foreign:
        foreign.listen()
        port = foreign.getsockname()[1]
        with (
            pytest.raises(OSError, match=rf"cannot listen on 127\.0\.0\.1:{port}: Address already in use"),
            _reserved_port("127.0.0.1", port),
        ):
            pass


def test_an_unknown_host_is_an_error() -> None:
    with (
        pytest.raises(OSError, match=r"cannot listen on no\.host\.invalid:0: "),
        _reserved_port("no.host.invalid", 0),
    ):
        pass


class Ending(_Workers):
    """Workers that end at once, ten times."""

    def __init__(self, has_answered: bool) -> None:
        super().__init__(Settings(workers=2), 0, lambda port, served: None, StopSignals())
        self._has_answered = has_answered
        self._runs = 0
        self._is_over = asyncio.Event()

    async def _run(self, number: int) -> str:
        self._runs += 1
        if self._runs > 10:
            self._is_over.set()
            await asyncio.Event().wait()
        return f"reason {self._runs}"

    async def keep_to_the_end(self) -> None:
        async with asyncio.timeout(10):
            await until_first(self.keep(1), self._is_over.wait())


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "FIRST_PAUSE_S", 0.0001)
    monkeypatch.setattr(workers, "LONGEST_PAUSE_S", 0.0004)


async def test_pauses_grow_to_the_longest(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    await Ending(has_answered=True).keep_to_the_end()
    pauses = re.findall(r"worker 1: reason \d+; a new one starts in (\S+) seconds", caplog.text)
    assert pauses == ["0.0001", "0.0002", *["0.0004"] * 8]


async def test_a_steady_workers_death_is_not_held_against_the_next(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "STEADY_S", -1)
    caplog.set_level(logging.WARNING)
    await Ending(has_answered=True).keep_to_the_end()
    assert caplog.text.count("a new one starts in 0.0001 seconds") == 10


async def test_gives_up_where_none_ever_answers() -> None:
    ending = Ending(has_answered=False)
    async with asyncio.timeout(10):
        with pytest.raises(WorkersError, match="reason 2"):
            await until_first(ending.keep(1), ending.keep(2))
