"""How a process that serves is asked to stop."""

import asyncio
import os
import signal
from collections.abc import Coroutine
from types import FrameType, TracebackType
from typing import Any, Self

from visiongate_command import handle_stop_signals


class StopSignals:
    """Inside, in asyncio's main thread, signals that ask to stop set events in place of what they did before.

    The first asks to stop in good order, the second at once, and a third ends the process. Not by asyncio's
    own handlers: those leave the defaults behind when the loop closes, so that a signal during what is then
    still to be stopped would end the process in the middle of it.
    """

    def __init__(self) -> None:
        self.first, self.second = asyncio.Event(), asyncio.Event()
        self.exit_code = 0
        """128 + N of the first signal N; 0 without one."""
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._before = handle_stop_signals(self._receive)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _receive(self, number: int, _: FrameType | None) -> None:
        if self.second.is_set():
            os._exit(128 + number)
        event = self.second if self.exit_code else self.first
        self.exit_code = self.exit_code or 128 + number
        # A handler runs between any two steps of the loop's, or while that waits.
        self._loop.call_soon_threadsafe(event.set)


async def until_first(*work: Coroutine[Any, Any, Any]) -> None:
    """Run all until the first ends, then cancel the others and wait for them."""
    tasks = [asyncio.create_task(item) for item in work]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in tasks:
        if not task.cancelled():
            task.result()
