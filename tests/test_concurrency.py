"""Work side by side: its order and its failures."""

import asyncio

import pytest

from gateway.concurrency import Slots, gather


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


async def test_slots_are_taken_several_at_a_time_and_in_order() -> None:
    slots, log = Slots(4), list[str]()

    async def work(name: str, count: int) -> None:
        async with slots.take(count):
            log.append(f"+{name}")
            await asyncio.sleep(0.01)
            log.append(f"-{name}")

    await asyncio.gather(work("a", 3), work("b", 9), work("c", 1), work("d", 1))
    assert log == ["+a", "-a", "+b", "-b", "+c", "+d", "-c", "-d"]


async def test_who_is_cancelled_while_waiting_leaves_all_slots() -> None:
    slots = Slots(2)

    async def wait() -> None:
        async with slots.take(2):
            raise AssertionError

    async with slots.take(1):
        waiting = asyncio.create_task(wait())
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    async with asyncio.timeout(1), slots.take(2):
        pass
