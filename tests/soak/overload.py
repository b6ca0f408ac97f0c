"""What ten times the capacity does to a gateway: calls completed, refusals, memory.

    PYTHONPATH=tests python -m soak.overload

First as many callers as the gateway takes calls, which is the best it can do; then calls arrive ten times as
fast as it answered those, whatever becomes of them; then the best once more: what counts is the mean of both,
as a machine is not equally fast at all times. All that several times. Triton has a core of its own; gateway
and callers share the others. Exits with 1 where a goal is missed.
"""

import argparse
import asyncio
import itertools
import statistics
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import numpy as np

from soak.goals import Goals, finish
from soak.service import Service, serving_apart
from soak.traffic import Tally, asking, pictures
from visiongate import AsyncClient

CAPACITY = 8
TIMES = 10
RUNS = 5
LEAST_SHARE, MAX_REFUSAL_S, MAX_GROWTH = 0.95, 0.05, 1.25
"""Of the best rate, in the mean of the runs; in the median; of the memory after the best rate."""
# Calls of the driver at once: a server that hangs must not fill the driver's memory.
MAX_AT_ONCE = 2000
PHRASES = ["red circle", "blue square", "green star"]


class Driver:
    """Asks, and keeps count of what came of it."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client
        self._pictures = pictures()
        self.tally = Tally()

    async def ask(self) -> None:
        await self.tally.count(self._client.segment_phrases(next(self._pictures), PHRASES))

    async def best(self, seconds: float) -> float:
        """Return how many calls a second are answered to callers who ask again once they are answered."""
        async with asking(CAPACITY, self.ask):
            return await self.tally.rate(seconds)

    async def overloaded(self, arrivals: float, seconds: float) -> float:
        """Return how many calls a second are answered while so many arrive a second, answered or not."""
        async with self._arriving(arrivals):
            return await self.tally.rate(seconds)

    @asynccontextmanager
    async def _arriving(self, rate: float) -> AsyncIterator[None]:
        under_way: set[asyncio.Task[None]] = set()

        async def arrive() -> None:
            start = time.perf_counter()
            for number in itertools.count():
                await asyncio.sleep(max(0.0, start + number / rate - time.perf_counter()))
                if len(under_way) >= MAX_AT_ONCE:
                    raise RuntimeError(f"{MAX_AT_ONCE} calls are without an answer")
                task = asyncio.create_task(self.ask())
                under_way.add(task)
                task.add_done_callback(under_way.discard)

        async with asyncio.TaskGroup() as group:
            arrivals = group.create_task(arrive())
            yield
            arrivals.cancel()
        await asyncio.gather(*under_way)


async def measure(service: Service, seconds: float) -> Goals:
    async with AsyncClient(service.address, timeout=30, wait=False) as client:
        driver = Driver(client)
        await driver.best(seconds / 6)  # warm
        bests, shares = [await driver.best(seconds / 2)], []
        before_mb = service.resident_mb
        for number in range(1, RUNS + 1):
            reached = await driver.overloaded(TIMES * bests[-1], seconds)
            bests.append(await driver.best(seconds / 2))
            best = (bests[-2] + bests[-1]) / 2
            shares.append(reached / best)
            print(
                f"run {number}: {bests[-2]:.1f} calls/s at best before, {bests[-1]:.1f} after; {reached:.1f} "
                f"at {TIMES} times as many, {shares[-1]:.3f} of the best",
                flush=True,
            )
        after_mb = service.resident_mb
    tally, share = driver.tally, statistics.mean(shares)
    refusal_s = statistics.median(tally.refusals_s)
    late_s = np.quantile(tally.refusals_s, 0.99)
    print(f"mean: {share:.3f} of the best; {tally}")
    print(f"refusals: median {refusal_s * 1e3:.1f} ms, 99% {late_s * 1e3:.1f} ms")
    print(f"memory: {before_mb:.0f} MB before, {after_mb:.0f} MB after")
    return {
        f"{LEAST_SHARE} of the best rate": share >= LEAST_SHARE,
        "every call is answered or refused": set(tally.codes) <= {"OK", "RESOURCE_EXHAUSTED"},
        "each refusal says when to come back": tally.all_say_when,
        f"refusals within {MAX_REFUSAL_S} s": refusal_s <= MAX_REFUSAL_S,
        f"at most {MAX_GROWTH} times the memory": after_mb <= MAX_GROWTH * before_mb,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=30, help="of ten times the load, in each run")
    arguments = parser.parse_args()
    with serving_apart("--max-concurrent-calls", str(CAPACITY)) as service:
        goals = asyncio.run(measure(service, arguments.seconds))
    finish(goals)


if __name__ == "__main__":
    main()
