"""From inputs to results: in order, bounded, and without a thread left at the end."""

import hashlib
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from fake_client import TASK, FakeClient, item, lengths, numbered
from visiongate.batch import flow as flows
from visiongate.batch.flow import Flow, Result
from visiongate.batch.item import Item
from visiongate.batch.reading import AHEAD, THREADS, Failure
from visiongate.batch.task import Row

PATIENCE_S = 30.0


def work(items: Iterable[Item], *clients: FakeClient, batch_size: int = 4, window: int = 1) -> Flow[int]:
    servers: Any = clients or (FakeClient(),)
    return Flow(enumerate(items), TASK, servers, batch_size=batch_size, window=window, timeout_s=60)


def results(flow: Flow[int], tick: Callable[[], None] = lambda: None) -> list[Result[int]]:
    with flow:
        return list(flow.results(tick))


def length(result: Result[int]) -> Any:
    assert isinstance(result.outcome, Row)
    return result.outcome.values["length"]


def eventually(is_so: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_results_come_in_order_whichever_server_is_first() -> None:
    others_are_done = threading.Event()

    def slow(files: list[bytes]) -> Any:
        others_are_done.wait(PATIENCE_S)
        return lengths(files)

    def fast(files: list[bytes]) -> Any:
        if max(map(len, files)) == 40:
            others_are_done.set()
        return lengths(files)

    found = results(work(numbered(40), FakeClient(slow), FakeClient(fast)))
    assert [result.key for result in found] == list(range(40))
    assert [length(result) for result in found] == list(range(1, 41))


def test_inputs_that_cannot_be_read_are_in_their_places_and_cost_no_request() -> None:
    client = FakeClient()
    failing: dict[str, tuple[bytes | Exception, str]] = {
        "gone": (FileNotFoundError("there is no file gone"), "NOT_FOUND"),
        "closed": (PermissionError("closed"), "PERMISSION_DENIED"),
        "far": (ConnectionResetError("far"), "UNAVAILABLE"),
        "odd": (ValueError("odd \udcff"), "INVALID_ARGUMENT"),
        "empty": (b"", "INVALID_ARGUMENT"),
        "no image": (b"bad image", "INVALID_ARGUMENT"),
    }
    items = [each for name, (data, _) in failing.items() for each in (item(f"{name}!"), item(name, data))]
    found = results(work(items, client, batch_size=3))
    assert [result.item.id for result in found] == [each.id for each in items]
    for result in found:
        name = result.item.id
        if name.endswith("!"):
            assert length(result) == 4
            assert result.sha256 == hashlib.sha256(b"data").hexdigest()
            assert result.elapsed_ms is not None
        else:
            assert isinstance(result.outcome, Failure)
            assert result.outcome.status == failing[name][1]
            # As UTF-8 can hold it, and without the place in a request that nobody knows of.
            result.outcome.message.encode()
            assert "images[" not in result.outcome.message
            assert (result.sha256 is None) == isinstance(failing[name][0], Exception)
    assert [len(files) for files in client.asked] == [3, 3, 1]


def test_few_inputs_are_taken_while_the_first_is_not_answered() -> None:
    taken = 0
    is_open = threading.Event()

    def endless() -> Iterator[Item]:
        nonlocal taken
        while True:
            taken += 1
            yield item(str(taken))

    def answer(files: list[bytes]) -> Any:
        is_open.wait(PATIENCE_S)
        return lengths(files)

    flow = work(endless(), FakeClient(answer), FakeClient())
    with flow:
        eventually(lambda: taken >= flow._room)
        time.sleep(0.1)
        assert taken <= flow._room + AHEAD + 4
        is_open.set()
        every = flow.results(lambda: None)
        for number in range(3 * flow._room):
            assert next(every).key == number


def test_few_bytes_are_held_however_many_inputs_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flows, "MAX_HELD_BYTES", 1000)
    monkeypatch.setattr(flows, "MAX_REQUEST_BYTES", 300)
    lock, held, most = threading.Lock(), 0, 0

    def read() -> bytes:
        nonlocal held, most
        with lock:
            held += 100
            most = max(most, held)
        return bytes(100)

    def answer(files: list[bytes]) -> Any:
        nonlocal held
        assert len(files) <= 3
        with lock:
            held -= 100 * len(files)
        return lengths(files)

    items = [replace(item(str(number)), read=read) for number in range(500)]
    assert len(results(work(items, FakeClient(answer), batch_size=50, window=50))) == 500
    # What is read at the same time, and what is not noted as answered yet.
    assert most <= 1000 + 100 * THREADS + 300
    assert held == 0


def test_a_source_that_fails_does_so_after_the_results_before() -> None:
    def items() -> Iterator[Item]:
        yield from numbered(10)
        raise ValueError("row 11 of the table is odd")

    with work(items()) as flow:
        every = flow.results(lambda: None)
        assert [next(every).key for _ in range(10)] == list(range(10))
        with pytest.raises(ValueError, match="row 11"):
            next(every)


def test_an_error_of_the_reader_itself_is_raised() -> None:
    with pytest.raises(ZeroDivisionError):
        results(work([*numbered(3), item("bug", ZeroDivisionError())]))


def test_once_it_is_to_stop_no_input_is_taken() -> None:
    taken = 0

    def endless() -> Iterator[Item]:
        nonlocal taken
        while True:
            taken += 1
            yield item(str(taken))

    flow = work(endless(), FakeClient())
    with flow:
        every = flow.results(lambda: None)
        for _ in range(10):
            next(every)
        flow.stop()
        rest = list(every)
    assert [result.key for result in rest] == list(range(10, 10 + len(rest)))
    before = taken
    time.sleep(0.05)
    assert taken == before


@pytest.mark.parametrize("is_read", [True, False])
def test_leaving_early_leaves_no_thread(is_read: bool) -> None:
    def answer(files: list[bytes]) -> Any:
        return lengths(files)

    with work(numbered(10_000), FakeClient(answer), FakeClient(answer)) as flow:
        if is_read:
            next(flow.results(lambda: None))
    eventually(lambda: not [each for each in threading.enumerate() if each.name.startswith("visiongate-")])


def test_ticks_come_also_while_nothing_is_answered() -> None:
    ticks = 0
    is_open = threading.Event()

    def tick() -> None:
        nonlocal ticks
        ticks += 1
        if ticks == 3:
            is_open.set()

    def answer(files: list[bytes]) -> Any:
        assert is_open.wait(PATIENCE_S)
        return lengths(files)

    assert len(results(work(numbered(4), FakeClient(answer)), tick)) == 4
