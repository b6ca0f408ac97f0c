"""The gate: which calls are admitted, and that places and bytes are released."""

import asyncio
import contextlib
from collections.abc import Callable

import pytest
from google.rpc import error_details_pb2
from prometheus_client import REGISTRY

from gateway import admission
from gateway.admission import Gate, HeavyItemError, weigh
from gateway.callers import NOBODY, Caller, Callers
from gateway.errors import OverloadedError, StatusError
from gateway.holding import keep
from gateway.reservations import reserve


def gate_of(max_calls: int = 10, max_bytes: int = 100, max_message_bytes: int = 10) -> Gate:
    return Gate(max_calls, max_bytes, max_message_bytes)


def test_a_place_is_free_again_whatever_came_of_the_call() -> None:
    gate = gate_of(max_calls=1)
    for _ in range(3):
        with pytest.raises(ZeroDivisionError), gate.admit():
            raise ZeroDivisionError
    with gate.admit(), pytest.raises(OverloadedError, match="at most 1 calls at a time"), gate.admit():
        pass
    with gate.admit():
        pass


def test_the_limits_are_said_beside_what_is_in_flight() -> None:
    gate_of(max_calls=7, max_bytes=77)
    assert REGISTRY.get_sample_value("visiongate_max_calls_in_flight") == 7
    assert REGISTRY.get_sample_value("visiongate_max_bytes_in_flight") == 77


def test_bytes_of_all_calls_together_are_limited() -> None:
    gate = gate_of(max_bytes=100)
    with gate.admit() as first, gate.admit() as second:
        first.add(60)
        with pytest.raises(OverloadedError, match="100 bytes"):
            second.add(41)
        second.add(40)
    with gate.admit() as alone:
        alone.add(100)


def test_one_large_request_always_fits() -> None:
    gate = gate_of(max_bytes=100)
    with gate.admit() as first, gate.admit() as second:
        first.add(101)
        second.add(0)
        with pytest.raises(OverloadedError):
            second.add(1)


def test_refusals_say_when_to_come_again_and_not_all_at_the_same_time() -> None:
    gate = gate_of(max_calls=0)
    delays = set()
    for _ in range(10):
        with pytest.raises(OverloadedError) as caught, gate.admit():
            pass
        [retry] = [
            detail for detail in caught.value.details if isinstance(detail, error_details_pb2.RetryInfo)
        ]
        delays.add(retry.retry_delay.ToNanoseconds())
    assert len(delays) == 10
    assert all(0 < delay < 5e9 for delay in delays)


async def work(gate: Gate, size: int, done: list[int], *, growth: int) -> None:
    """A call that first takes some bytes, and then needs more."""
    with gate.admit() as call:
        call.add(size)
        await asyncio.sleep(0)
        await reserve(growth)
        await asyncio.sleep(0.001)
        done.append(growth)


async def test_a_call_under_way_waits_for_bytes_and_is_not_refused() -> None:
    gate, done = gate_of(max_bytes=100), list[int]()
    with gate.admit() as active:
        active.add(60)
        waiting = asyncio.create_task(work(gate, 30, done, growth=20))
        await asyncio.sleep(0.01)
        assert not done
        # Whoever comes now is refused, although there is room for it: others wait. Small amounts pass them.
        with gate.admit() as late:
            with pytest.raises(OverloadedError):
                late.add(5)
            late.add(2)
    await waiting
    assert done == [20]


async def test_calls_that_all_wait_for_each_other_end_the_oldest_first() -> None:
    gate, done = gate_of(max_bytes=100), list[int]()
    async with asyncio.timeout(60):
        await asyncio.gather(*(work(gate, 30, done, growth=growth) for growth in (40, 50, 60)))
    assert done == [40, 50, 60]
    with gate.admit() as call:
        call.add(100)


async def test_answers_that_nobody_takes_are_waited_for() -> None:
    gate, done = gate_of(max_bytes=100), list[int]()
    taken: list[Callable[[], None]] = []
    with gate.admit(at_end=taken.append) as answered:
        answered.hold_only(80)
    waiting = asyncio.create_task(work(gate, 10, done, growth=20))
    await asyncio.sleep(0.01)
    assert not done, "the bound is exceeded"
    taken[0]()
    await waiting
    assert done == [20]


async def test_who_leaves_while_it_waits_for_bytes_leaves_nothing_behind() -> None:
    gate, done = gate_of(max_bytes=100), list[int]()
    with gate.admit() as active:
        active.add(90)
        waiting = [asyncio.create_task(work(gate, 5, done, growth=growth)) for growth in (50, 5)]
        await asyncio.sleep(0.01)
        waiting[0].cancel()
        await asyncio.wait(waiting)
    assert done == [5]
    with gate.admit() as call, gate.admit() as other:
        call.add(50)
        other.add(50)


async def test_a_turn_that_comes_before_a_cancelled_call_has_left_the_line() -> None:
    gate, done = gate_of(max_bytes=100), list[int]()
    with gate.admit() as active:
        active.add(90)
        waiting = [asyncio.create_task(work(gate, 5, done, growth=growth)) for growth in (50, 60)]
        await asyncio.sleep(0.01)
        waiting[0].cancel()
        # The first has not heard of it yet when these bytes are released.
    await asyncio.wait_for(waiting[1], 60)
    assert done == [60]


def test_without_a_call_nothing_is_weighed() -> None:
    weigh(1 << 60, 1)


def test_bytes_of_an_answer_count_until_it_is_taken_and_its_place_is_free_before() -> None:
    gate = gate_of(max_calls=1, max_bytes=100)
    taken: list[Callable[[], None]] = []
    with gate.admit(at_end=taken.append) as call:
        call.add(500)
        call.hold_only(90)
    with gate.admit() as next_call:
        with pytest.raises(OverloadedError):
            next_call.add(11)
        next_call.add(10)
        taken[0]()
        next_call.add(90)


def test_a_place_and_bytes_are_kept_as_long_as_a_thread_works_for_the_call() -> None:
    gate = gate_of(max_calls=1)
    with gate.admit() as call:
        call.add(100)
        thread_ends = keep()
    with pytest.raises(OverloadedError), gate.admit():
        pass
    thread_ends()
    with gate.admit() as next_call:
        next_call.add(100)


def test_heavy_calls_count_as_several() -> None:
    gate = gate_of(max_calls=8)
    with gate.admit():
        weigh(10, 10)  # as much as any call
        with contextlib.ExitStack() as others:
            for _ in range(7):
                others.enter_context(gate.admit())
            with pytest.raises(OverloadedError, match="the weight of 2 calls"):
                weigh(11, 10)
        # However much it is, other calls have three quarters of the places.
        weigh(1_000_000, 10)
        for _ in range(6):
            others.enter_context(gate.admit())
        with pytest.raises(OverloadedError), gate.admit():
            pass
        others.close()
    with contextlib.ExitStack() as all_places:
        for _ in range(8):
            all_places.enter_context(gate.admit())


@pytest.fixture
def slow_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "SLOW_AFTER_S", 0.01)


async def receive(gate: Gate, arrives: asyncio.Event, worked: list[str], name: str) -> None:
    with gate.admit() as call:
        async with call.arriving():
            await arrives.wait()
        worked.append(name)


async def test_who_sends_slowly_gives_its_place_to_others_and_gets_it_back_first(slow_soon: None) -> None:
    gate, arrives, worked = gate_of(max_calls=1), asyncio.Event(), list[str]()
    slow = asyncio.create_task(receive(gate, arrives, worked, "slow"))
    await asyncio.sleep(0.05)
    with gate.admit():
        arrives.set()
        await asyncio.sleep(0.05)
        assert not worked, "two calls have the one place"
    with pytest.raises(OverloadedError), gate.admit():
        pass  # the place is the slow one's
    await slow
    assert worked == ["slow"]
    with gate.admit():
        pass


async def test_a_slow_caller_that_leaves_while_it_waits_leaves_nothing_behind(slow_soon: None) -> None:
    gate, arrives, worked = gate_of(max_calls=1), asyncio.Event(), list[str]()
    slow = asyncio.create_task(receive(gate, arrives, worked, "slow"))
    await asyncio.sleep(0.05)
    with gate.admit():
        arrives.set()
        await asyncio.sleep(0.05)
        slow.cancel()
        await asyncio.wait([slow])
    with gate.admit():
        pass


async def test_too_many_slow_callers_are_refused(slow_soon: None) -> None:
    # Half of the bytes are for messages that arrive: five of the largest size, of which two may be slow.
    gate, arrives, worked = gate_of(max_calls=1), asyncio.Event(), list[str]()
    slow = []
    for number in range(2):
        slow.append(asyncio.create_task(receive(gate, arrives, worked, str(number))))
        await asyncio.sleep(0.05)
    with pytest.raises(OverloadedError, match="at most 2 slow requests"):
        await receive(gate, arrives, worked, "third")
    arrives.set()
    await asyncio.gather(*slow)
    assert sorted(worked) == ["0", "1"]
    with gate.admit():
        pass


async def test_no_more_messages_arrive_at_a_time_than_there_is_memory_for() -> None:
    gate = gate_of(max_calls=10)
    under_way = most = 0

    async def call() -> None:
        nonlocal under_way, most
        with gate.admit() as admitted:
            async with admitted.arriving():
                under_way += 1
                most = max(most, under_way)
                await asyncio.sleep(0.001)
                under_way -= 1

    await asyncio.gather(*(call() for _ in range(10)))
    assert most == 5


def shared_gate(
    share: float, max_calls: int = 10, max_bytes: int = 100, max_message_bytes: int = 10
) -> tuple[Gate, Caller, Caller]:
    """A gate, and two callers of whom each may have a share."""
    known = Callers(share, keys=["greedy", "modest"])
    gate = Gate(max_calls, max_bytes, max_message_bytes, known)
    return gate, known.find("greedy", ""), known.find("modest", "")


def test_one_caller_does_not_take_all_places() -> None:
    gate, greedy, modest = shared_gate(0.75, max_calls=8)
    with contextlib.ExitStack() as calls:
        for _ in range(6):
            calls.enter_context(gate.admit(greedy))
        with (
            pytest.raises(OverloadedError, match="your API key has 6 of the server's 8 calls") as caught,
            gate.admit(greedy),
        ):
            pass
        assert "the limit of one caller is 6" in str(caught.value)
        with pytest.raises(OverloadedError, match="counts as 2"):
            weigh(2, 1)
        for _ in range(2):
            calls.enter_context(gate.admit(modest))
        with pytest.raises(OverloadedError, match="the server answers at most 8"), gate.admit(modest):
            pass


def test_one_caller_does_not_take_all_bytes() -> None:
    gate, greedy, modest = shared_gate(0.75)
    with gate.admit(greedy) as first, gate.admit(greedy) as second, gate.admit(modest) as other:
        first.add(60)
        with pytest.raises(OverloadedError, match="your API key has 60 of the server's 100 bytes"):
            second.add(16)
        second.add(15)
        other.add(25)


async def grow(
    gate: Gate, caller: Caller, size: int, growth: int, done: list[str], end: asyncio.Event
) -> None:
    with gate.admit(caller) as call:
        call.add(size)
        await asyncio.sleep(0)
        await reserve(growth)
        done.append(caller.name)
        await end.wait()


async def test_a_caller_that_waits_for_its_own_bytes_keeps_nobody_waiting() -> None:
    gate, greedy, modest = shared_gate(0.6)
    done, end = list[str](), asyncio.Event()
    calls = [asyncio.create_task(grow(gate, greedy, 10, 30, done, end)) for _ in range(2)]
    await asyncio.sleep(0.01)
    assert done == [greedy.name], "the second would be over the share"
    with gate.admit(modest) as call:
        call.add(30)
        async with asyncio.timeout(60):
            await reserve(10)
    with gate.admit(greedy) as third:
        third.add(2)  # small
        with pytest.raises(OverloadedError):
            third.add(6)
    end.set()
    await asyncio.wait_for(asyncio.gather(*calls), 60)
    assert done == [greedy.name] * 2


async def test_calls_of_a_caller_that_all_wait_for_each_other_go_on_beside_the_work_of_others() -> None:
    gate, greedy, modest = shared_gate(0.5)
    done, end = list[str](), asyncio.Event()
    end.set()
    with gate.admit(modest) as other:
        other.add(30)
        calls = [grow(gate, greedy, 20, growth, done, end) for growth in (20, 30)]
        await asyncio.wait_for(asyncio.gather(*calls), 60)
    assert done == [greedy.name] * 2


async def test_slow_requests_of_one_caller_leave_room_for_those_of_others(slow_soon: None) -> None:
    # Half of the bytes are for messages that arrive: 16 of the largest size, of which eight may be slow.
    gate, greedy, modest = shared_gate(0.75, max_calls=32, max_bytes=320)
    arrives = asyncio.Event()
    refused: list[str] = []

    async def receive_for(caller: Caller) -> None:
        try:
            with gate.admit(caller) as call:
                async with call.arriving():
                    await arrives.wait()
        except OverloadedError as error:
            refused.append(str(error))

    slow = [asyncio.create_task(receive_for(greedy)) for _ in range(24)]
    await asyncio.sleep(0.1)
    assert len(refused) == 18
    assert {error.partition(",")[0] for error in refused} == {
        "your API key has 6 of the server's 8 slow requests at a time"
    }
    slow += [asyncio.create_task(receive_for(modest)) for _ in range(2)]
    await asyncio.sleep(0.1)
    assert len(refused) == 18
    arrives.set()
    await asyncio.gather(*slow)


async def test_messages_of_one_caller_leave_room_for_those_of_others() -> None:
    gate, greedy, modest = shared_gate(0.75, max_calls=32)
    arrives, arriving = asyncio.Event(), list[int]()

    async def receive_for(caller: Caller) -> None:
        with gate.admit(caller) as call:
            async with call.arriving():
                arriving.append(1)
                await arrives.wait()

    waiting = [asyncio.create_task(receive_for(greedy)) for _ in range(10)]
    await asyncio.sleep(0.01)
    assert len(arriving) == 3, "five may arrive at a time, and three of one caller"
    waiting.append(asyncio.create_task(receive_for(modest)))
    await asyncio.sleep(0.01)
    assert len(arriving) == 4
    arrives.set()
    await asyncio.gather(*waiting)


async def test_places_go_to_the_slow_calls_of_those_who_may_have_them(slow_soon: None) -> None:
    gate, greedy, modest = shared_gate(0.5, max_calls=2, max_bytes=400)
    arrives, worked, end = asyncio.Event(), list[str](), asyncio.Event()

    async def receive_for(caller: Caller) -> None:
        with gate.admit(caller) as call:
            async with call.arriving():
                await arrives.wait()
            worked.append(caller.name)
            await end.wait()

    slow = []
    for caller in (greedy, greedy, modest):
        slow.append(asyncio.create_task(receive_for(caller)))
        await asyncio.sleep(0.05)
    arrives.set()
    await asyncio.sleep(0.05)
    assert worked == [greedy.name, modest.name]
    end.set()
    await asyncio.gather(*slow)
    assert worked == [greedy.name, modest.name, greedy.name]


async def test_items_of_streams_wait_and_leave_a_quarter_of_the_places() -> None:
    gate = gate_of(max_calls=4)
    order: list[str] = []
    leave = asyncio.Event()

    async def item(name: str) -> None:
        async with gate.admit_item(NOBODY, lambda done: done()):
            order.append(name)
            await leave.wait()

    items = [asyncio.create_task(item(name)) for name in "abcd"]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert order == ["a", "b", "c"]
    with gate.admit(), pytest.raises(OverloadedError), gate.admit():
        pass
    items[3].cancel()
    await asyncio.wait(items[3:])
    leave.set()
    await asyncio.gather(*items[:3])
    assert gate._calls.taken == gate._item_places == 0
    assert not gate._waiting


async def test_a_heavy_item_waits_for_all_its_places_and_is_not_overtaken() -> None:
    gate = gate_of(max_calls=8)
    order: list[str] = []
    leaves = {name: asyncio.Event() for name in ("1", "2", "3", "4", "5", "heavy", "late")}

    async def item(name: str, places: int = 1) -> None:
        async with gate.admit_item(NOBODY, lambda done: done()) as admission:
            try:
                weigh(places, 1)
            except HeavyItemError:
                await admission.take_wanted_places()
                weigh(places, 1)
            order.append(name)
            await leaves[name].wait()

    tasks = [asyncio.create_task(item(name)) for name in "12345"]
    await asyncio.sleep(0.01)
    tasks.append(asyncio.create_task(item("heavy", 2)))
    await asyncio.sleep(0.01)
    tasks.append(asyncio.create_task(item("late")))
    await asyncio.sleep(0.01)
    assert order == [*"12345"]
    leaves["1"].set()
    await asyncio.sleep(0.01)
    assert order == [*"12345", "heavy"]
    assert gate._item_places == 6
    for leave in leaves.values():
        leave.set()
    await asyncio.gather(*tasks)
    assert order[-1] == "late"
    assert gate._calls.taken == gate._item_places == 0


async def test_streams_are_counted_by_what_may_arrive_on_them() -> None:
    gate = gate_of(max_bytes=160, max_message_bytes=10)
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(3):
            await stack.enter_async_context(gate.stream(NOBODY))
        assert gate._arrivals._bytes.taken == 30
        with pytest.raises(OverloadedError, match="at most 3 streams"):
            await stack.enter_async_context(gate.stream(NOBODY))
    assert gate._arrivals._bytes.taken == gate._streams.taken == 0
    with pytest.raises(StatusError, match="no room for streams"):
        await gate_of(max_bytes=40).stream(NOBODY).__aenter__()
