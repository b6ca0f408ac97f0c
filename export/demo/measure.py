"""One measurement of how true a server's answers are on drawn scenes."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from export.demo.scenes import Scene
from visiongate import AsyncClient

# Calls in flight: enough to keep a small server busy.
MAX_CONCURRENT_CALLS = 4

T = TypeVar("T")
Advance = Callable[[], None]
"""Is called after every answer, for a progress bar."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One number of the table, and the goal that it should reach."""

    what: str
    value: float
    goal: float
    unit: str = ""
    at_most: bool = False
    """Whether less is better."""

    @property
    def reached(self) -> bool:
        """Return whether the value is at least, or at most, the goal."""
        return self.value <= self.goal if self.at_most else self.value >= self.goal


@dataclass(frozen=True, slots=True)
class Measure:
    """How some figures are measured."""

    figures: Callable[[AsyncClient, Sequence[Scene], Advance], Awaitable[list[Figure]]]
    """Asks the client about the scenes. A measure that needs other scenes draws as many of its own."""
    steps: Callable[[int], int] = lambda count: count
    """Returns how many answers it waits for on this many scenes."""


async def ask_all(ask: Callable[[int], Awaitable[T]], count: int, advance: Advance) -> list[T]:
    """Return the answers for 0 to `count` - 1, with a few calls in flight at a time."""
    room = asyncio.Semaphore(MAX_CONCURRENT_CALLS)

    async def ask_one(index: int) -> T:
        async with room:
            answer = await ask(index)
        advance()
        return answer

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(ask_one(index)) for index in range(count)]
    return [task.result() for task in tasks]
