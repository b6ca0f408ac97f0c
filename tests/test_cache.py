"""The byte bound, and computing once for many."""

import asyncio

import pytest

from gateway.cache import ComputingCache


def cache(max_bytes: int = 100) -> ComputingCache[bytes]:
    return ComputingCache("test", max_bytes, len)


async def value(data: bytes) -> bytes:
    return data


async def test_least_recently_used_go_first() -> None:
    small = cache(10)
    for key in "ab":
        await small.get_or_compute(key, lambda: value(b"1234"))
    assert small.get("a")
    await small.get_or_compute("c", lambda: value(b"1234"))
    assert (small.get("a"), small.get("b"), small.get("c")) == (b"1234", None, b"1234")


async def test_what_is_larger_than_the_cache_is_answered_but_not_kept() -> None:
    small = cache(3)
    assert await small.get_or_compute("a", lambda: value(b"12345")) == b"12345"
    assert small.get("a") is None


class Slow:
    """A computation that waits to be released, and counts how often it started and was cancelled."""

    def __init__(self) -> None:
        self.release = asyncio.Event()
        self.started = 0
        self.cancelled = 0

    async def __call__(self) -> bytes:
        self.started += 1
        try:
            await self.release.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return b"x"


async def test_misses_at_once_compute_once() -> None:
    shared, slow = cache(), Slow()
    calls = [asyncio.create_task(shared.get_or_compute("a", slow)) for _ in range(5)]
    await asyncio.sleep(0)
    slow.release.set()
    assert await asyncio.gather(*calls) == [b"x"] * 5
    assert slow.started == 1


async def test_a_cancelled_caller_leaves_the_others_their_answer() -> None:
    shared, slow = cache(), Slow()
    first, second = (asyncio.create_task(shared.get_or_compute("a", slow)) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    slow.release.set()
    assert await second == b"x"
    assert slow.cancelled == 0


async def test_the_last_cancelled_caller_stops_the_work_and_the_next_starts_anew() -> None:
    shared, slow = cache(), Slow()
    calls = [asyncio.create_task(shared.get_or_compute("a", slow)) for _ in range(2)]
    for _ in range(2):
        await asyncio.sleep(0)
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)
    await asyncio.sleep(0)
    assert slow.cancelled == 1
    slow.release.set()
    assert await shared.get_or_compute("a", slow) == b"x"
    assert slow.started == 2


async def test_a_failure_reaches_all_who_wait_and_is_not_kept() -> None:
    shared = cache()

    async def fail() -> bytes:
        await asyncio.sleep(0)
        raise ValueError("no")

    results = await asyncio.gather(
        *(shared.get_or_compute("a", fail) for _ in range(3)), return_exceptions=True
    )
    assert [str(result) for result in results] == ["no"] * 3
    assert await shared.get_or_compute("a", lambda: value(b"y")) == b"y"
