"""The byte bound, what is dropped first, and computing once for many."""

import asyncio
from functools import partial
from random import Random

import pytest
from prometheus_client import REGISTRY

from gateway.cache import ComputingCache, Keep


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


async def put(kept: ComputingCache[bytes], keep: Keep, **sizes: int) -> None:
    for key, size in sizes.items():
        await kept.get_or_compute(key, partial(value, bytes(size)), keep=keep)


def held(kept: ComputingCache[bytes], keys: str) -> str:
    """Which of these keys are kept. Looking as Keep.NEVER changes no value's rank."""
    return "".join(key for key in keys if kept.get(key, keep=Keep.NEVER) is not None)


async def test_bulk_work_drops_nothing_that_others_come_back_to() -> None:
    small = cache(10)
    await put(small, Keep.NORMAL, a=4)
    await put(small, Keep.IF_ROOM, b=3, c=3)
    assert held(small, "abc") == "abc"
    # There is room for one of its own kind.
    await put(small, Keep.IF_ROOM, d=4)
    assert held(small, "abcd") == "ad"
    # There never is for so much, which therefore drops nothing.
    await put(small, Keep.IF_ROOM, e=7)
    assert held(small, "abcde") == "ad"


async def test_values_of_bulk_work_go_first() -> None:
    small = cache(10)
    await put(small, Keep.NORMAL, a=3)
    await put(small, Keep.IF_ROOM, b=3, c=3)
    await put(small, Keep.NORMAL, d=2)
    assert held(small, "abcd") == "acd"
    await put(small, Keep.NORMAL, e=5)
    assert held(small, "abcde") == "ade"
    await put(small, Keep.NORMAL, f=3)
    assert held(small, "abcdef") == "def"


@pytest.mark.parametrize("looked_up", [True, False])
async def test_what_bulk_work_brought_and_others_use_stays_like_any_other(looked_up: bool) -> None:
    small = cache(10)
    await put(small, Keep.IF_ROOM, a=4, b=4)
    if looked_up:
        assert small.get("a")
    else:
        await put(small, Keep.NORMAL, a=4)
    await put(small, Keep.IF_ROOM, c=6)
    assert held(small, "abc") == "ac"
    # What bulk work uses does not fall for that.
    await put(small, Keep.IF_ROOM, a=4, d=6)
    assert held(small, "abcd") == "ad"


@pytest.mark.parametrize("first", Keep)
@pytest.mark.parametrize("second", Keep)
async def test_the_highest_of_the_calls_that_share_a_value_counts(first: Keep, second: Keep) -> None:
    small, slow = cache(10), Slow()
    calls = [asyncio.create_task(small.get_or_compute("a", slow, keep=keep)) for keep in (first, second)]
    await asyncio.sleep(0)
    slow.release.set()
    assert await asyncio.gather(*calls) == [b"x"] * 2
    assert slow.started == 1
    assert held(small, "a") == ("" if first is second is Keep.NEVER else "a")
    await put(small, Keep.IF_ROOM, b=10)
    assert held(small, "a") == ("a" if Keep.NORMAL in (first, second) else "")


async def test_it_never_holds_more_than_its_bytes() -> None:
    random = Random(5)
    small = cache(100)
    for step in range(3000):
        key, size, keep = random.randrange(60), random.randrange(1, 60), random.choice(list(Keep))
        await put(small, keep, **{str(key): size})
        kept = [small.get(str(key), keep=Keep.NEVER) for key in range(60)]
        total = sum(len(data) for data in kept if data is not None)
        assert total <= 100
        if step % 100 == 0:  # finding a metric takes a while
            assert REGISTRY.get_sample_value("visiongate_cache_bytes", {"cache": "test"}) == total
            assert REGISTRY.get_sample_value("visiongate_cache_max_bytes", {"cache": "test"}) == 100


async def test_what_is_not_to_be_kept_is_computed_each_time() -> None:
    small, slow = cache(), Slow()
    slow.release.set()
    for _ in range(2):
        assert await small.get_or_compute("a", slow, keep=Keep.NEVER) == b"x"
    assert slow.started == 2


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
