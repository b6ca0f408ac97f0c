"""The memory that is waited for: nothing is reserved twice, and nobody is passed over."""

import asyncio
import contextlib

import pytest

from gateway import callers
from gateway.callers import Caller, Callers
from gateway.holding import keep
from gateway.memory import Memory


def two_callers(share: float) -> tuple[Caller, Caller]:
    known = Callers(share, keys=["greedy", "modest"])
    return known.find("greedy", ""), known.find("modest", "")


async def test_no_byte_is_reserved_twice_and_everybody_gets_theirs() -> None:
    memory = Memory(100)
    reserved, most, done = 0, 0, 0

    async def work(size: int) -> None:
        nonlocal reserved, most, done
        async with memory.reserve(size):
            # More than there is means all of it.
            reserved += min(size, 100)
            most = max(most, reserved)
            await asyncio.sleep(0)
            reserved -= min(size, 100)
            done += 1

    sizes = [7, 40, 60, 100, 250] * 20
    await asyncio.gather(*map(work, sizes))
    assert done == len(sizes)
    # Several at a time, if there is room.
    assert 60 < most <= 100


async def test_who_comes_first_is_served_first() -> None:
    """A large part waits for small ones that came before it, and is not overtaken by those after it."""
    memory = Memory(100)
    order: list[int] = []

    async def work(size: int) -> None:
        async with memory.reserve(size):
            order.append(size)
            await asyncio.sleep(0.001)

    async with memory.reserve(50):
        tasks = [asyncio.create_task(work(size)) for size in (20, 90, 10, 15)]
        await asyncio.sleep(0)
        assert order == [20]
    await asyncio.gather(*tasks)
    assert order == [20, 90, 10, 15]


async def test_who_leaves_does_not_block_those_behind() -> None:
    memory = Memory(100)
    entered: list[str] = []

    async def work(name: str, size: int) -> None:
        async with memory.reserve(size):
            entered.append(name)

    async with memory.reserve(50):
        first = asyncio.create_task(work("large", 90))
        second = asyncio.create_task(work("small", 10))
        await asyncio.sleep(0)
        first.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await first
        await second
    assert entered == ["small"]
    async with memory.reserve(100):
        pass


async def test_who_leaves_in_the_moment_of_its_turn_gives_it_on() -> None:
    memory = Memory(100)
    async with memory.reserve(100):
        waiting = asyncio.create_task(memory.reserve(100).__aenter__())
        await asyncio.sleep(0)
    waiting.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await waiting
    async with asyncio.timeout(60), memory.reserve(100):
        pass


async def test_a_turn_that_comes_before_a_cancelled_one_has_left_the_line() -> None:
    memory = Memory(100)
    async with memory.reserve(100):
        leaving, staying = (asyncio.create_task(memory.reserve(60).__aenter__()) for _ in range(2))
        await asyncio.sleep(0)
        leaving.cancel()
    # The first has not heard of it yet.
    await asyncio.wait_for(staying, 60)
    assert leaving.cancelled()


async def test_memory_is_released_whatever_came_of_the_work() -> None:
    memory = Memory(100)
    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            async with memory.reserve(100):
                raise ZeroDivisionError


async def test_a_thread_that_works_on_keeps_its_memory() -> None:
    memory = Memory(100)
    async with memory.reserve(100):
        thread_ends = keep()
    waiting = asyncio.create_task(memory.reserve(1).__aenter__())
    await asyncio.sleep(0.01)
    assert not waiting.done()
    thread_ends()
    await waiting


async def test_callers_that_wait_have_their_turns_one_after_the_other() -> None:
    memory = Memory(100)
    greedy, modest = two_callers(1.0)
    order: list[str] = []

    async def work(caller: Caller, name: str, size: int) -> None:
        with callers.working_for(caller):
            async with memory.reserve(size):
                order.append(name)
                await asyncio.sleep(0.001)

    async with memory.reserve(100):
        waiting = [asyncio.create_task(work(greedy, f"greedy {number}", 60)) for number in range(4)]
        await asyncio.sleep(0)
        waiting += [asyncio.create_task(work(modest, f"modest {number}", 60)) for number in range(2)]
        await asyncio.sleep(0)
    await asyncio.gather(*waiting)
    assert order == ["greedy 0", "modest 0", "greedy 1", "modest 1", "greedy 2", "greedy 3"]


async def test_one_caller_of_several_leaves_some_memory_to_the_others() -> None:
    memory = Memory(100)
    greedy, modest = two_callers(0.75)
    reserved = most = 0

    async def work() -> None:
        nonlocal reserved, most
        with callers.working_for(greedy):
            async with memory.reserve(30):
                reserved += 30
                most = max(most, reserved)
                await asyncio.sleep(0.01)
                reserved -= 30

    waiting = [asyncio.create_task(work()) for _ in range(5)]
    await asyncio.sleep(0.001)
    # Nobody is passed over but those who have their share.
    with callers.working_for(modest):
        async with asyncio.timeout(60), memory.reserve(40):
            assert reserved, "the others were waited for"
    await asyncio.gather(*waiting)
    assert most == 60
    # What is more than a share is not more than there is.
    with callers.working_for(greedy):
        async with asyncio.timeout(60), memory.reserve(100):
            pass
