"""Several time limits on one timer."""

import asyncio
import gc
import weakref

import pytest

from gateway.alarms import Alarms, limit
from gateway.errors import DeadlineExceededError


async def test_alarms_ring_at_their_times_whatever_their_order() -> None:
    alarms, rung = Alarms(0.01), []
    alarms.add(0.06, lambda: rung.append("late"))
    alarms.add(0.03, lambda: rung.append("early"))
    removed = alarms.add(0.04, lambda: rung.append("removed"))
    alarms.remove(removed)
    await asyncio.sleep(0.1)
    assert rung == ["early", "late"]
    alarms.remove(removed)
    alarms.add(0.01, lambda: rung.append("again"))
    await asyncio.sleep(0.05)
    assert rung[2:] == ["again"]
    alarms.close()


async def test_closed_alarms_do_not_ring() -> None:
    alarms, rung = Alarms(0.01), []
    alarms.add(0.02, lambda: rung.append("rung"))
    alarms.close()
    await asyncio.sleep(0.05)
    assert not rung


async def test_the_limit_that_has_passed_is_told() -> None:
    alarms = Alarms(0.01)
    with (
        pytest.raises(DeadlineExceededError, match=r"over 0\.03 seconds"),
        limit(9, "", "", "server", alarms),
        limit(0.03, "over {:g} seconds", "REASON", "caller", alarms),
    ):
        await asyncio.sleep(5)
    task = asyncio.current_task()
    assert task
    assert not task.cancelling()
    alarms.close()


async def test_errors_of_the_work_are_left_alone() -> None:
    with pytest.raises(TimeoutError), limit(5, "", "", "server"):
        raise TimeoutError


async def test_a_cancellation_is_no_deadline() -> None:
    async def work() -> None:
        with limit(5, "", "", "server"):
            await asyncio.sleep(5)

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_limit_keeps_nothing_of_its_task() -> None:
    async def work() -> None:
        with limit(5, "", "", "server"):
            pass

    gc.disable()
    try:
        task = asyncio.create_task(work())
        await task
        left = weakref.ref(task)
        del task
        await asyncio.sleep(0)
        assert left() is None
    finally:
        gc.enable()
