"""Threads: the order of results, the shares of work, and what a cancelled caller drops."""

import asyncio
import threading
from collections.abc import Iterator

import pytest

from gateway import callers
from gateway.callers import Callers
from gateway.memory import Memory
from gateway.pipelines.threads import MAX_SHARE, Threads


@pytest.fixture
def threads() -> Iterator[Threads]:
    threads = Threads(2)
    yield threads
    threads.close()


@pytest.mark.parametrize("count", [0, 1, 5, 40])
async def test_each_item_is_worked_on_and_results_come_in_order(threads: Threads, count: int) -> None:
    assert await threads.run_each(lambda item: -item, range(count)) == [-item for item in range(count)]


async def test_all_threads_have_a_share(threads: Threads) -> None:
    # Each waits for the other: one thread alone would wait for ever.
    both = threading.Barrier(2, timeout=60)
    await threads.run_each(lambda _: both.wait(), range(2))


async def test_shares_that_have_not_begun_are_dropped_with_their_caller(threads: Threads) -> None:
    begun: list[int] = []
    may_go_on, has_begun = threading.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def work(item: int) -> None:
        begun.append(item)
        loop.call_soon_threadsafe(has_begun.set)
        may_go_on.wait(60)

    task = asyncio.create_task(threads.run_each(work, range(100)))
    await has_begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    may_go_on.set()
    await threads.run(lambda: None)  # behind whatever is still in line
    assert len(begun) <= 2 * MAX_SHARE


async def test_what_a_caller_held_is_held_until_its_thread_ends(threads: Threads) -> None:
    memory = Memory(100)
    may_go_on, has_begun = threading.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def work() -> None:
        loop.call_soon_threadsafe(has_begun.set)
        may_go_on.wait(60)

    async def call() -> None:
        async with memory.reserve(100):
            await threads.run(work)

    task = asyncio.create_task(call())
    await has_begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    next_call = asyncio.create_task(call())
    await asyncio.sleep(0.01)
    has_begun.clear()
    assert not next_call.done()
    may_go_on.set()
    await next_call
    assert has_begun.is_set()


async def test_work_that_has_not_begun_holds_nothing_once_its_caller_left(threads: Threads) -> None:
    memory = Memory(100)
    may_go_on = threading.Event()
    busy = [asyncio.create_task(threads.run(may_go_on.wait, 60)) for _ in range(2)]

    async def call() -> None:
        async with memory.reserve(100):
            await threads.run(int)

    task = asyncio.create_task(call())
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with asyncio.timeout(60), memory.reserve(100):
        pass
    may_go_on.set()
    await asyncio.gather(*busy)


async def test_the_work_of_one_caller_does_not_wait_for_all_that_another_one_wants(threads: Threads) -> None:
    known = Callers()
    begun: list[str] = []
    may_go_on = threading.Event()

    def work(name: str) -> None:
        begun.append(name)
        may_go_on.wait(60)

    async def call(name: str) -> None:
        with callers.working_for(known.find(name, "")):
            await threads.run(work, name)

    tasks = [asyncio.create_task(call("greedy")) for _ in range(50)]
    await asyncio.sleep(0.01)
    tasks.append(asyncio.create_task(call("modest")))
    await asyncio.sleep(0.01)
    may_go_on.set()
    await asyncio.gather(*tasks)
    # Four have their turn when the modest one comes: two that run, and two behind them.
    assert begun.index("modest") <= 6
    assert len(begun) == 51
