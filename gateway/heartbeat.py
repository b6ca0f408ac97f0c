"""A sign of life of an event loop, for those outside of it: probes, and the parent of the process."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

INTERVAL_S = 1.0
# A loop that has not beaten for so long stands still: the largest requests stop it for a few seconds at most.
MAX_SILENCE_S = 20.0


class Heartbeat:
    """Beats while its event loop runs. `tell` is called at each beat."""

    def __init__(self, tell: Callable[[], None] = lambda: None) -> None:
        self._tell = tell
        self._last = time.monotonic()

    @asynccontextmanager
    async def beating(self) -> AsyncIterator[None]:
        """Beat inside, on the current event loop."""
        task = asyncio.create_task(self._beat())
        try:
            yield
        finally:
            task.cancel()

    async def _beat(self) -> None:
        while True:
            self._last = time.monotonic()
            self._tell()
            await asyncio.sleep(INTERVAL_S)

    @property
    def silence_s(self) -> float:
        """Seconds since the last beat, or since the start. Any thread may ask."""
        return time.monotonic() - self._last

    @property
    def stands_still(self) -> bool:
        """Whether the last beat is too long ago."""
        return self.silence_s > MAX_SILENCE_S
