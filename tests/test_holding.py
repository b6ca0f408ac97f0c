"""Holding: what is held is released once, after its owner and the last thread that works for it."""

import asyncio

from gateway.holding import holding, keep


def test_what_nobody_else_keeps_is_released_at_the_end() -> None:
    released: list[str] = []
    with holding(lambda: released.append("memory")):
        assert not released
    assert released == ["memory"]


def test_what_a_thread_keeps_is_released_when_it_ends() -> None:
    released: list[str] = []
    with holding(lambda: released.append("place")):
        with holding(lambda: released.append("memory")):
            first, second = keep(), keep()
        first()
    assert released == []
    second()
    assert sorted(released) == ["memory", "place"]


async def test_work_that_outlives_its_first_caller_keeps_nothing_of_that_call() -> None:
    """A computation that calls share runs in the context of the first of them."""
    released: list[str] = []

    async def shared() -> None:
        await asyncio.sleep(0)
        keep()()

    with holding(lambda: released.append("place")):
        task = asyncio.create_task(shared())
    await task
    assert released == ["place"]
