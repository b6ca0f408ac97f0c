"""Callers, the pictures they send, and what becomes of their calls."""

import asyncio
import io
import itertools
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager

import grpc
from PIL import Image

from export.demo import scenes
from visiongate import VisiongateError

# Until as many calls are under way as there will be.
RAMP_S = 2.0


def pictures() -> Iterator[bytes]:
    """JPEG files of a scene, each with another last byte or two: no cache knows one."""
    file = io.BytesIO()
    Image.fromarray(scenes.draw(scenes.FIRST_UNSEEN_SEED, 480, 360).image).save(file, "JPEG", quality=85)
    return (file.getvalue() + number.to_bytes(8, "big") for number in itertools.count())


class Tally:
    """What became of calls."""

    def __init__(self) -> None:
        self.codes: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()
        self.refusals_s: list[float] = []
        self.all_say_when = True
        """Whether each refusal said when to come back."""

    async def count(self, call: Awaitable[object]) -> None:
        """Wait for a call's end, and count how it ended."""
        start = time.perf_counter()
        try:
            await call
            self.codes[grpc.StatusCode.OK.name] += 1
        except VisiongateError as error:
            self.codes[error.code.name] += 1
            if error.reason:
                self.reasons[error.reason] += 1
            if error.code is grpc.StatusCode.RESOURCE_EXHAUSTED:
                self.all_say_when &= bool(error.retry_s)
                self.refusals_s.append(time.perf_counter() - start)

    async def rate(self, seconds: float) -> float:
        """Return how many calls a second are answered from soon on, for so many seconds."""
        await asyncio.sleep(RAMP_S)
        start, before = time.perf_counter(), self.codes["OK"]
        await asyncio.sleep(seconds)
        return (self.codes["OK"] - before) / (time.perf_counter() - start)

    def __str__(self) -> str:
        return ", ".join(f"{code} {count}" for code, count in self.codes.most_common())


@asynccontextmanager
async def asking(callers: int, ask: Callable[[], Awaitable[object]]) -> AsyncIterator[None]:
    """Inside, so many callers ask, each again once it is answered. The last answers are awaited."""
    is_over = False

    async def caller() -> None:
        while not is_over:
            await ask()

    async with asyncio.TaskGroup() as group:
        for _ in range(callers):
            group.create_task(caller())
        try:
            yield
        finally:
            is_over = True
