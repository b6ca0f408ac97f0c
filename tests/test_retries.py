"""Requests that are sent again: not too many, and one after the other."""

import asyncio

import pytest

from gateway.retries import RetryBudget, Turns


def test_repetitions_are_bounded_over_all_calls() -> None:
    budget = RetryBudget()
    # The requests of one server that dies, as many as a gateway has at most, are all sent again.
    assert all(budget.spend() for _ in range(64))
    while budget.spend():
        pass
    assert not budget.spend()
    for _ in range(2000):
        budget.earn()
    assert budget.spend()


async def test_turns_come_one_after_the_other_and_in_order() -> None:
    turns, seen = Turns(max_s=60), []

    async def work(number: int) -> None:
        async with turns.turn():
            seen.append(number)
            await asyncio.sleep(0)
            seen.append(number)

    await asyncio.gather(*map(work, range(3)))
    assert seen == [0, 0, 1, 1, 2, 2]


async def test_work_that_fails_or_is_cancelled_ends_its_turn() -> None:
    turns = Turns(max_s=60)
    with pytest.raises(ValueError, match="failed"):
        async with turns.turn():
            raise ValueError("failed")

    async def work() -> None:
        async with turns.turn():
            await asyncio.sleep(60)

    has_turn, waits = asyncio.create_task(work()), asyncio.create_task(work())
    await asyncio.sleep(0)
    waits.cancel()
    has_turn.cancel()
    await asyncio.wait([has_turn, waits])
    async with asyncio.timeout(60), turns.turn():
        pass


async def test_work_that_takes_long_holds_up_nobody() -> None:
    turns = Turns(max_s=0.01)
    async with asyncio.timeout(60), turns.turn(), turns.turn():
        pass
    # Its end does not end the turn of another.
    async with turns.turn():
        assert turns._lock.locked()
