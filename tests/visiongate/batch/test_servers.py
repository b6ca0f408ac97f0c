"""Several servers: which errors are of an input, of a server, of the job, and who does what another left."""

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from fake_client import TASK, FakeClient, error, item, lengths, numbered
from visiongate.batch import servers
from visiongate.batch.flow import Flow
from visiongate.batch.item import Item
from visiongate.batch.reading import Failure
from visiongate.batch.task import Row
from visiongate.errors import MessageTooLargeError, VisiongateError

PATIENCE_S = 30.0


def outcomes(items: list[Item], *clients: FakeClient, batch_size: int = 4) -> dict[str, Any]:
    """The lengths that servers measured, or the statuses of failures."""
    several: Any = clients
    with Flow(enumerate(items), TASK, several, batch_size=batch_size, window=1, timeout_s=1) as flow:
        found = list(flow.results(lambda: None))
    assert [result.item for result in found] == items
    return {
        result.item.id: result.outcome.values["length"]
        if isinstance(result.outcome, Row)
        else result.outcome and result.outcome.status
        for result in found
    }


def measured(items: list[Item], **others: Any) -> dict[str, Any]:
    return {each.id: len(each.read()) for each in items} | others


def failing_for(data: bytes, failure: Any) -> Callable[[list[bytes]], Any]:
    """Fail for any request that has this file."""
    return lambda files: failure if data in files else lengths(files)


@pytest.mark.parametrize(
    ("failure", "status"),
    [
        (error("INTERNAL"), "INTERNAL"),
        (error("DEADLINE_EXCEEDED"), "DEADLINE_EXCEEDED"),
        (error("INVALID_ARGUMENT", "images: 70 MP in all", "images"), "INVALID_ARGUMENT"),
        (error("INVALID_ARGUMENT", "images[2]: is odd", "images[2]"), "INVALID_ARGUMENT"),
        (MessageTooLargeError(error("RESOURCE_EXHAUSTED").code, "too large"), "RESOURCE_EXHAUSTED"),
    ],
)
def test_of_a_request_that_fails_only_the_culprit_fails(failure: VisiongateError, status: str) -> None:
    items = numbered(11)
    client = FakeClient(failing_for(items[5].read(), failure))
    assert outcomes(items, client) == measured(items, **{"005": status})
    # The request, its inputs one by one, and the others as they were.
    assert [len(files) for files in client.asked] == [4, 4, 1, 1, 1, 1, 3]


def test_an_input_that_no_request_can_hold_fails_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    items = numbered(6)

    def operation(files: Any) -> Any:
        if items[2].read() in files:
            raise ValueError("images[0] has more than 63 MiB")
        return list(files)

    several: Any = [FakeClient()]
    task = replace(TASK, operation=operation)
    with Flow(enumerate(items), task, several, batch_size=4, window=1, timeout_s=1) as flow:
        found = [result.outcome for result in flow.results(lambda: None)]
    assert [isinstance(each, Row) for each in found] == [True, True, False, True, True, True]
    assert isinstance(found[2], Failure)
    assert found[2].status == "INVALID_ARGUMENT"


@pytest.mark.parametrize("code", ["UNAVAILABLE", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED", "CANCELLED"])
def test_if_nothing_is_answered_in_an_inputs_time_the_job_ends(code: str) -> None:
    with pytest.raises(VisiongateError, match=code):
        outcomes(numbered(9), FakeClient(lambda files: error(code)))


@pytest.mark.parametrize("code", ["UNAVAILABLE", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED", "CANCELLED"])
def test_an_input_that_waits_in_vain_while_others_are_answered_fails_alone(code: str) -> None:
    others_are_done = threading.Event()

    def answer(files: list[bytes]) -> Any:
        if len(files[0]) == 1:
            assert others_are_done.wait(PATIENCE_S)
            return error(code)
        if len(files[0]) == 8:
            others_are_done.set()
        return lengths(files)

    items = numbered(8)
    # Whichever has the first input, the other one answers the rest.
    assert outcomes(items, FakeClient(answer), FakeClient(answer), batch_size=1) == measured(
        items, **{"000": code}
    )


def test_the_last_input_alone_fails_alone_if_it_is_late() -> None:
    assert outcomes([item("a")], FakeClient(lambda files: error("DEADLINE_EXCEEDED"))) == {
        "a": "DEADLINE_EXCEEDED"
    }


def test_a_wrong_setting_ends_the_job() -> None:
    with pytest.raises(VisiongateError, match="labels"):
        outcomes(
            numbered(9), FakeClient(lambda files: error("INVALID_ARGUMENT", "labels: are too many", "labels"))
        )


@pytest.mark.parametrize("is_raised", [True, False])
@pytest.mark.parametrize("code", ["UNAUTHENTICATED", "UNIMPLEMENTED"])
def test_what_a_server_that_fails_for_good_leaves_is_done_by_another(code: str, is_raised: bool) -> None:
    def fail(files: list[bytes]) -> Any:
        if is_raised:
            raise error(code)
        return error(code)

    items = numbered(30)
    assert outcomes(items, FakeClient(fail), FakeClient()) == measured(items)
    with pytest.raises(VisiongateError, match=f"^{code}: (one|two):[12]: "):
        outcomes(items, FakeClient(fail), FakeClient(fail, address="two:2"))


def test_a_silent_server_that_is_gone_is_relieved_and_asked_again_once_it_is_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(servers, "_SILENCE_S", 0.05)
    monkeypatch.setattr(servers, "_PAUSE_S", 0.01)
    silent = FakeClient()
    is_closed = threading.Event()
    back = threading.Event()

    def answer(files: list[bytes]) -> Any:
        if back.is_set():
            return lengths(files)
        silent.is_there = False
        silent.streams[-1].closed.wait(PATIENCE_S)
        is_closed.set()
        return lengths(files)

    silent.answer = answer

    def other(files: list[bytes]) -> Any:
        # The last request waits until the first server is back, and has answered what else there is.
        if len(files[0]) > 90 and not back.is_set():
            assert is_closed.wait(PATIENCE_S)
            silent.is_there = True
            back.set()
            deadline = time.monotonic() + PATIENCE_S
            while len(silent.streams) < 2 and time.monotonic() < deadline:
                time.sleep(0.005)
        return lengths(files)

    items = numbered(120)
    assert outcomes(items, silent, FakeClient(other)) == measured(items)
    assert len(silent.streams) >= 2


def test_a_silent_server_that_is_there_keeps_its_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers, "_SILENCE_S", 0.02)
    monkeypatch.setattr(servers, "_PAUSE_S", 0.01)
    slow = FakeClient()

    def answer(files: list[bytes]) -> Any:
        before = slow.questions
        deadline = time.monotonic() + PATIENCE_S
        while slow.questions < before + 2 and time.monotonic() < deadline:
            time.sleep(0.005)
        return lengths(files)

    slow.answer = answer
    items = numbered(12)
    assert outcomes(items, slow, FakeClient()) == measured(items)
    assert len(slow.streams) == 1


def test_without_any_server_the_job_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers, "_SILENCE_S", 0.05)
    monkeypatch.setattr(servers, "_PAUSE_S", 0.02)
    clients = [FakeClient(address=name) for name in ("one", "other")]
    for client in clients:

        def answer(files: list[bytes], client: FakeClient = client) -> Any:
            client.is_there = False
            client.streams[-1].closed.wait(PATIENCE_S)
            return lengths(files)

        client.answer = answer
    with pytest.raises(VisiongateError, match="gone"):
        outcomes(numbered(40), *clients)


def test_an_answer_that_came_too_late_counts_once() -> None:
    assert outcomes([item("a"), item("b")], FakeClient(), FakeClient(), batch_size=1) == {"a": 4, "b": 4}
