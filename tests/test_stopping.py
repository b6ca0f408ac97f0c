import asyncio
import signal

import pytest

from gateway.stopping import StopSignals, until_first


async def test_signals_ask_to_stop_and_then_to_stop_immediately() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with StopSignals() as stop:
        assert stop.exit_code == 0
        async with asyncio.timeout(60):
            signal.raise_signal(signal.SIGTERM)
            await stop.first.wait()
            assert not stop.second.is_set()
            signal.raise_signal(signal.SIGINT)
            await stop.second.wait()
        assert stop.exit_code == 128 + signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) is before


async def test_the_first_to_end_ends_the_others() -> None:
    ended = []

    async def forever() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended.append("forever")

    async with asyncio.timeout(60):
        await until_first(forever(), asyncio.sleep(0))
    assert ended == ["forever"]


async def test_the_error_of_the_first_is_raised() -> None:
    async def fail() -> None:
        raise ZeroDivisionError

    async with asyncio.timeout(60):
        with pytest.raises(ZeroDivisionError):
            await until_first(asyncio.Event().wait(), fail())
