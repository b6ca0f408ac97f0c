"""Many small images on one stream: does memory stay flat on both sides, and is it as fast as single calls?

    PYTHONPATH=tests python -m soak.stream

Exits with 1 where the memory of gateway or caller after all images is over 3% more than after a quarter of
them, or where the stream's rate is under 0.97 of the best rate of single calls, of 1 to 32 callers. The two
are measured by turns.
"""

import argparse
import asyncio
import io
import re
import time
from collections.abc import AsyncIterator
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from PIL import Image

from export.demo.serving import REPOSITORY
from gateway.embedded import EmbeddedTriton
from soak.goals import Goals, finish
from soak.service import Service, serving
from visiongate import AsyncClient, VisiongateError
from visiongate.operations import Operation, embedding

COUNT = 20_000
CALLERS = (1, 4, 8, 16, 32)
ROUNDS, OF_A_ROUND = 5, 300
MAX_GROWTH, LEAST_RATE = 1.03, 0.97


def picture(number: int) -> bytes:
    """A small JPEG file that no cache knows."""
    pixels = np.random.default_rng(number).integers(0, 256, (12, 16, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).resize((160, 120)).save(file, "JPEG")
    return file.getvalue()


def resident_mb() -> float:
    """Megabytes of memory of this process."""
    status = Path("/proc/self/status").read_text()
    return int(re.findall(r"VmRSS:\s+(\d+) kB", status)[0]) / 1024


async def operations(first: int, count: int) -> AsyncIterator[Operation[Any]]:
    for number in range(first, first + count):
        yield embedding.embed_images([picture(number)])


async def streamed(client: AsyncClient, first: int, count: int) -> float:
    """Images a second, on a stream."""
    start = time.monotonic()
    async for _, result in client.stream(operations(first, count)):
        if isinstance(result, VisiongateError):
            raise result
    return count / (time.monotonic() - start)


async def called(client: AsyncClient, first: int, count: int, callers: int) -> float:
    """Images a second, by so many callers of single calls."""
    numbers = iter(range(first, first + count))

    async def caller() -> None:
        for number in numbers:
            await client.embed_images([picture(number)])

    start = time.monotonic()
    await asyncio.gather(*(caller() for _ in range(callers)))
    return count / (time.monotonic() - start)


async def compare(client: AsyncClient, rounds: int) -> tuple[float, float]:
    """Return the stream's rate, and the best of single calls: medians of short rounds, by turns."""
    first = 10_000_000
    rates: dict[int, list[float]] = {callers: [] for callers in (0, *CALLERS)}
    for _ in range(rounds):
        for callers, found in rates.items():
            work = called(client, first, OF_A_ROUND, callers) if callers else None
            found.append(await (work or streamed(client, first, OF_A_ROUND)))
            first += OF_A_ROUND
    medians = {callers: median(found) for callers, found in rates.items()}
    print("images a second:", {callers or "stream": round(rate) for callers, rate in medians.items()})
    return medians.pop(0), max(medians.values())


async def measure(service: Service, count: int, rounds: int) -> Goals:
    goals: dict[str, bool] = {}
    async with AsyncClient(service.address) as client:
        if rounds:
            stream, best = await compare(client, rounds)
            print(f"the stream has {stream / best:.3f} of the best rate of single calls")
            goals[f"at least {LEAST_RATE} of the best rate of single calls"] = stream >= LEAST_RATE * best
        memory: dict[int, tuple[float, float]] = {}
        done, start = 0, time.monotonic()
        async for _, result in client.stream(operations(0, count)):
            if isinstance(result, VisiongateError):
                raise result
            done += 1
            if done in (count // 4, count):
                memory[done] = service.resident_mb, resident_mb()
                print(f"{done} images, {time.monotonic() - start:.0f} s: gateway {memory[done][0]:.1f} MB, "
                      f"caller {memory[done][1]:.1f} MB", flush=True)  # fmt: skip
        await asyncio.sleep(3)
        after = service.metrics()
    for place, name in enumerate(("gateway", "caller")):
        early, late = memory[count // 4][place], memory[count][place]
        goals[f"{name}: at most {MAX_GROWTH} times the memory"] = late <= MAX_GROWTH * early
    goals["no call in flight"] = after["visiongate_calls_in_flight"] == 0
    goals["no byte in flight"] = after["visiongate_bytes_in_flight"] == 0
    return goals


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=COUNT)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    arguments = parser.parse_args()
    with EmbeddedTriton(REPOSITORY) as triton, serving(triton.grpc_address) as service:
        goals = asyncio.run(measure(service, arguments.count, arguments.rounds))
    finish(goals)


if __name__ == "__main__":
    main()
