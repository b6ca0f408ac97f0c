"""What ten times the capacity does to a gateway: calls completed, refusals, memory.

    PYTHONPATH=tests python -m soak.overload

First as many callers as the gateway takes calls, which is the best it can do; then calls arrive ten times as
fast as it answered those, whatever becomes of them; then the best once more: what counts is the mean of both,
as a machine is not equally fast at all times. Triton has a core of its own, as it has a GPU in production;
gateway and callers share the others. Exits with 1 where a goal is missed.
"""

import argparse
import asyncio
import contextlib
import io
import itertools
import os
import statistics
import sys
import time
from collections import Counter
from collections.abc import Iterator

import grpc
import numpy as np
from PIL import Image

from export.demo import scenes
from export.demo.serving import REPOSITORY
from gateway.embedded import EmbeddedTriton
from soak.service import Service, serving
from visiongate import AsyncClient, VisiongateError

CAPACITY = 8
TIMES = 10
LEAST_SHARE, MAX_REFUSAL_S, MAX_GROWTH = 0.9, 0.05, 1.25
"""Of the best rate; in the median; of the memory after the best rate."""
# Calls of the driver at once: a server that hangs must not fill the driver's memory.
MAX_AT_ONCE = 2000
PHRASES = ["red circle", "blue square", "green star"]


def pictures() -> Iterator[bytes]:
    """JPEG files of a scene, each with another last byte or two: no cache knows one."""
    file = io.BytesIO()
    Image.fromarray(scenes.draw(scenes.FIRST_UNSEEN_SEED, 480, 360).image).save(file, "JPEG", quality=85)
    return (file.getvalue() + number.to_bytes(8, "big") for number in itertools.count())


class Driver:
    """Asks, and keeps count of what came of it."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client
        self._pictures = pictures()
        self.codes: Counter[grpc.StatusCode] = Counter()
        self.refusals_s: list[float] = []
        self.all_say_when = True

    async def ask(self) -> None:
        start = time.perf_counter()
        try:
            await self._client.segment_phrases(next(self._pictures), PHRASES)
            code = grpc.StatusCode.OK
        except VisiongateError as error:
            code = error.code
            if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
                self.all_say_when &= bool(error.retry_s)
                self.refusals_s.append(time.perf_counter() - start)
        self.codes[code] += 1

    async def closed(self, callers: int, seconds: float) -> float:
        """Calls completed a second by callers of whom each asks again once it is answered."""
        end = time.perf_counter() + seconds

        async def caller() -> None:
            while time.perf_counter() < end:
                await self.ask()

        start, before = time.perf_counter(), self.codes[grpc.StatusCode.OK]
        await asyncio.gather(*(caller() for _ in range(callers)))
        return (self.codes[grpc.StatusCode.OK] - before) / (time.perf_counter() - start)

    async def arriving(self, rate: float, seconds: float) -> float:
        """Calls completed a second where calls come at a rate, answered or not."""
        start, before = time.perf_counter(), self.codes[grpc.StatusCode.OK]
        under_way: set[asyncio.Task[None]] = set()
        for number in itertools.count():
            if time.perf_counter() > start + seconds:
                break
            await asyncio.sleep(max(0.0, start + number / rate - time.perf_counter()))
            if len(under_way) >= MAX_AT_ONCE:
                raise RuntimeError(f"{MAX_AT_ONCE} calls are without an answer")
            task = asyncio.create_task(self.ask())
            under_way.add(task)
            task.add_done_callback(under_way.discard)
        done = (self.codes[grpc.StatusCode.OK] - before) / (time.perf_counter() - start)
        await asyncio.gather(*under_way)
        return done


async def measure(service: Service, seconds: float) -> bool:
    async with AsyncClient(service.address, timeout=30, wait=False) as client:
        driver = Driver(client)
        await driver.closed(CAPACITY, seconds / 6)  # warm
        before = await driver.closed(CAPACITY, seconds / 2)
        before_mb = service.resident_mb
        driver.codes.clear()
        reached = await driver.arriving(TIMES * before, seconds)
        codes = dict(driver.codes)
        after_mb = service.resident_mb
        after = await driver.closed(CAPACITY, seconds / 2)
    best = (before + after) / 2
    refusal_s = statistics.median(driver.refusals_s)
    print(f"best: {before:.1f} calls/s with {CAPACITY} callers before, {after:.1f} after")
    print(
        f"at {TIMES} times as many: {reached:.1f} calls/s completed, {reached / best:.2f} of the best; "
        + ", ".join(f"{code.name} {count}" for code, count in codes.items())
    )
    print(
        f"refusals: median {refusal_s * 1e3:.1f} ms, 99% {np.quantile(driver.refusals_s, 0.99) * 1e3:.1f} ms"
    )
    print(f"memory: {before_mb:.0f} MB before, {after_mb:.0f} MB after")
    only_right = set(codes) <= {grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED}
    return (
        only_right
        and driver.all_say_when
        and reached >= LEAST_SHARE * best
        and refusal_s <= MAX_REFUSAL_S
        and after_mb <= MAX_GROWTH * before_mb
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=60, help="of ten times the load")
    arguments = parser.parse_args()
    triton_core, *others = sorted(os.sched_getaffinity(0))
    if not others:
        sys.exit("two cores are needed: one for Triton, the others for gateway and callers")
    with contextlib.ExitStack() as stack:
        # A process starts with the affinity of the thread that starts it.
        os.sched_setaffinity(0, {triton_core})
        triton = stack.enter_context(EmbeddedTriton(REPOSITORY))
        os.sched_setaffinity(0, others)
        service = stack.enter_context(serving(triton.grpc_address, "--max-concurrent-calls", str(CAPACITY)))
        is_good = asyncio.run(measure(service, arguments.seconds))
    print("reached" if is_good else "MISSED")
    sys.exit(not is_good)


if __name__ == "__main__":
    main()
