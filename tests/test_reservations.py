"""Bytes that work reserves: for whom they count, and how long."""

import asyncio

import pytest

from gateway.admission import Gate
from gateway.errors import OverloadedError
from gateway.reservations import one_item, release, reserve


def gate() -> Gate:
    return Gate(10, 100, 1)


async def test_what_a_request_turns_into_counts_until_its_call_ends() -> None:
    room = gate()
    with room.admit() as other:
        with room.admit() as call:
            call.add(10)
            await reserve(500)  # alone: whatever one call may bring
            with pytest.raises(OverloadedError):
                other.add(1)
            release(460)
            other.add(40)
            with pytest.raises(OverloadedError):
                other.add(11)
            await reserve(10)
        other.add(60)


async def test_shared_work_that_outlives_its_first_call_counts_nothing_for_it() -> None:
    room, call_is_over = gate(), asyncio.Event()

    async def shared() -> None:
        await call_is_over.wait()
        await reserve(1000)
        release(1000)

    with room.admit() as call:
        task = asyncio.create_task(shared())
        call.add(10)
        await asyncio.sleep(0)
    call_is_over.set()
    await task
    with room.admit() as first, room.admit() as second:
        first.add(50)
        second.add(50)
        with pytest.raises(OverloadedError):
            first.add(1)


async def test_without_a_call_nothing_is_counted() -> None:
    await reserve(1 << 60)
    release(1 << 60)


async def test_what_an_item_reserves_is_released_with_it() -> None:
    with gate().admit() as call:
        await reserve(30)
        with one_item():
            await reserve(60)
            with one_item():
                await reserve(200)
                release(100)
            assert call.size == 90
        assert call.size == 30
        release(20)
        assert call.size == 10
