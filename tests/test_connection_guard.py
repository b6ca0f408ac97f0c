"""Which connections are closed when there are too many."""

import itertools
import logging
from collections.abc import Callable

import pytest

from gateway import connection_guard
from gateway.connection_guard import ConnectionGuard
from gateway.connections import Connection, in_use

GREEDY, MODEST = "192.0.2.1", "192.0.2.2"


class Kernel:
    """Its connections, oldest first, of a process that may have 100 descriptors."""

    def __init__(self) -> None:
        self.connections: list[Connection] = []
        self._numbers = itertools.count(1)
        self.others = 10
        self.closed: list[int] = []

    def connect(self, address: str, count: int = 1) -> None:
        for _ in range(count):
            number = next(self._numbers)
            self.connections.append(Connection(number, number, f"ipv4:{address}:{number}", address))

    @property
    def descriptors(self) -> int:
        return self.others + len(self.connections)

    def look(self) -> list[Connection]:
        return list(self.connections)

    def numbers(self, address: str) -> list[int]:
        return [each.number for each in self.connections if each.address == address]

    def drop_closed(self) -> None:
        """What gRPC does soon after a connection is closed."""
        self.connections = [each for each in self.connections if each.number not in self.closed]


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    made = Kernel()
    monkeypatch.setattr(connection_guard, "Connections", lambda _ports: made)
    monkeypatch.setattr(connection_guard, "max_descriptors", lambda: 100)
    monkeypatch.setattr(Connection, "close", lambda self: made.closed.append(self.number))
    return made


@pytest.fixture
def guard(kernel: Kernel) -> Callable[[int], ConnectionGuard]:
    return lambda max_per_peer: ConnectionGuard([1], max_per_peer)


Guard = Callable[[int], ConnectionGuard]


def test_nothing_is_closed_while_there_is_room(kernel: Kernel, guard: Guard) -> None:
    kernel.connect(GREEDY, 65)  # 25 descriptors are left
    guard(0).look()
    assert not kernel.closed


def test_who_has_most_loses_its_youngest_connections(kernel: Kernel, guard: Guard) -> None:
    kernel.connect(MODEST, 10)
    kernel.connect(GREEDY, 60)
    guarding = guard(0)
    guarding.look()
    # 50 are to be free, of which 20 are.
    assert sorted(kernel.closed) == kernel.numbers(GREEDY)[-30:]
    # gRPC has not noticed yet: they are not closed again, nor any other for them.
    guarding.look()
    assert len(kernel.closed) == 30
    kernel.drop_closed()
    guarding.look()
    assert len(kernel.closed) == 30
    assert kernel.descriptors == 50


def test_peers_with_as_many_share_the_loss(kernel: Kernel, guard: Guard) -> None:
    kernel.connect(MODEST, 36)
    kernel.connect(GREEDY, 44)
    guard(0).look()
    kernel.drop_closed()
    assert len(kernel.numbers(MODEST)) == len(kernel.numbers(GREEDY)) == 20


def test_connections_with_calls_are_left_alone(kernel: Kernel, guard: Guard) -> None:
    kernel.connect(GREEDY, 80)
    youngest = kernel.connections[-1]
    with in_use(youngest.peer):
        guard(0).look()
        assert len(kernel.closed) == 40
        assert youngest.number not in kernel.closed


def test_who_has_just_connected_may_ask_first(kernel: Kernel, guard: Guard) -> None:
    kernel.connect(GREEDY, 60)
    guarding = guard(0)
    guarding.look()
    kernel.connect(GREEDY, 15)
    guarding.look()
    # 35 are closed: none of the 15 that nobody has seen before.
    assert sorted(kernel.closed) == kernel.numbers(GREEDY)[25:60]


def test_a_peer_has_no_more_than_its_limit(kernel: Kernel, guard: Guard) -> None:
    kernel.connect(GREEDY, 8)
    kernel.connect(MODEST, 5)
    guard(5).look()
    assert sorted(kernel.closed) == kernel.numbers(GREEDY)[5:]


def test_the_log_says_who_and_not_every_second(
    kernel: Kernel, guard: Guard, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now = 1000.0
    monkeypatch.setattr("gateway.connection_guard.time.monotonic", lambda: now)
    caplog.set_level(logging.WARNING)
    guarding = guard(5)
    for _ in range(3):
        kernel.connect(GREEDY, 7)
        guarding.look()
        kernel.drop_closed()
    assert [record.getMessage().rpartition("; ")[2] for record in caplog.records] == [
        f"closed: 2 of {GREEDY}"
    ]
    now += connection_guard.LOG_INTERVAL_S
    guarding.look()
    assert caplog.records[-1].getMessage().endswith(f"closed: 14 of {GREEDY}")


def test_connections_of_probes_are_closed_last(kernel: Kernel) -> None:
    guard = ConnectionGuard([1, 9090], 0, probed=[9090])
    kernel.connect(GREEDY, 60)
    kernel.connections.append(Connection(61, 61, f"ipv4:{GREEDY}:61", GREEDY, 9090))
    guard.look()  # the probe's is seen a second time
    kernel.connections += [Connection(n, n, f"ipv4:{GREEDY}:{n}", GREEDY, 1) for n in range(62, 90)]
    guard.look()
    assert kernel.closed
    assert 61 not in kernel.closed
