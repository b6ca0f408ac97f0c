"""Work side by side: its order, its failures, and what they leave behind."""

import asyncio
import threading
import weakref
from collections.abc import Iterator
from typing import Any, cast

import pytest

from gateway.pipelines.core import MAX_AT_ONCE, Core, gather
from gateway.settings import Settings


async def test_results_come_in_order() -> None:
    async def late(seconds: float) -> float:
        await asyncio.sleep(seconds)
        return seconds

    assert await gather(late(seconds) for seconds in (0.02, 0, 0.01)) == [0.02, 0, 0.01]
    assert await gather([]) == []


async def test_the_first_failure_cancels_the_rest_and_waits_for_it() -> None:
    ended = []

    async def fail() -> None:
        await asyncio.sleep(0)
        raise ValueError("first")

    async def slow() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0)
            ended.append("slow")

    with pytest.raises(ValueError, match="first"):
        await gather([slow(), fail(), slow()])
    assert ended == ["slow", "slow"]


async def test_who_is_cancelled_cancels_the_work_and_waits_for_it() -> None:
    ended = []

    async def slow() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0)
            ended.append("slow")

    task = asyncio.create_task(gather([slow(), slow()]))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended == ["slow", "slow"]


@pytest.mark.parametrize("is_cancelled", [False, True])
async def test_what_failed_work_held_is_let_go_at_once(
    is_cancelled: bool, without_cycle_search: None
) -> None:
    held: list[weakref.ref[set[int]]] = []

    async def work(number: int) -> None:
        image = {number}
        held.append(weakref.ref(image))
        await asyncio.sleep(60 if is_cancelled or number else 0)
        raise ValueError(image)

    async def ask() -> None:
        with pytest.raises(ValueError if not is_cancelled else TimeoutError):
            async with asyncio.timeout(0.01 if is_cancelled else 60):
                await gather(work(number) for number in range(3))

    await ask()
    await asyncio.sleep(0.01)  # until what was cancelled has ended
    assert [reference() for reference in held] == [None] * 3


@pytest.fixture
def core() -> Iterator[Core]:
    core = Core(cast(Any, None), cast(Any, None), Settings(threads=2))
    yield core
    core.close()


@pytest.mark.parametrize("count", [0, 1, 5, 40])
async def test_each_item_is_worked_on_and_results_come_in_order(core: Core, count: int) -> None:
    assert await core.run_each(lambda item: -item, range(count)) == [-item for item in range(count)]


async def test_all_threads_have_a_share(core: Core) -> None:
    # Each waits for the other: one thread alone would wait for ever.
    both = threading.Barrier(2, timeout=60)
    await core.run_each(lambda _: both.wait(), range(2))


async def test_shares_that_have_not_begun_are_dropped_with_their_caller(core: Core) -> None:
    begun: list[int] = []
    may_go_on, has_begun = threading.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def work(item: int) -> None:
        begun.append(item)
        loop.call_soon_threadsafe(has_begun.set)
        may_go_on.wait(60)

    task = asyncio.create_task(core.run_each(work, range(100)))
    await has_begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    may_go_on.set()
    await core.run(lambda: None)  # behind whatever is still in line
    assert len(begun) <= 2 * MAX_AT_ONCE
