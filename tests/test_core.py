"""Work side by side: its order, its failures, and what they leave behind."""

import asyncio
import weakref

import pytest

from gateway.pipelines.core import gather


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
