"""How signals stop a process that serves."""

import asyncio
import os
import signal
from collections.abc import Coroutine
from types import FrameType, TracebackType
from typing import Any, Self

from visiongate_command import handle_stop_signals


class StopSignals:
    """A context manager, for asyncio's main thread, in which signals that ask to stop set events.

    The first signal asks to finish calls and stop, the second to stop immediately, and a third ends the
    process. asyncio's own handlers do not fit: when the loop closes they restore the default handlers, and a
    signal that comes while the rest is being stopped would end the process in the middle of that.
    """

    def __init__(self) -> None:
        self.first, self.second = asyncio.Event(), asyncio.Event()
        self.exit_code = 0
        """128 + N for the first signal N; 0 without a signal."""
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
        # A signal handler runs between any two steps of the loop, or while the loop waits.
        self._loop.call_soon_threadsafe(event.set)


async def until_first(*work: Coroutine[Any, Any, Any]) -> None:
    """Run all until the first ends, cancel the others and wait for them. Raise the first error."""
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
