"""Mixed traffic for a long time, a part of it cancelled: does the gateway leak memory, files or tasks?

    PYTHONPATH=tests python -m soak.endurance

Exits with 1 where the memory of the last quarter is over 5% more than that of the second, or where open
files, tasks or calls in flight have grown.
"""

import argparse
import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable

import numpy as np
from numpy.typing import NDArray

from export.demo import scenes
from export.demo.serving import REPOSITORY
from gateway.embedded import EmbeddedTriton
from soak.goals import Goals, finish
from soak.service import Service, serving
from visiongate import AsyncClient, VisiongateError

CALLERS = 6
CANCELLED_SHARE, WRONG_SHARE = 0.15, 0.05
SAMPLE_EVERY_S = 2.0
MAX_GROWTH = 1.05
PICTURES = 400

Image = NDArray[np.uint8]
Ask = Callable[[AsyncClient, Image], Awaitable[object]]

ASKS: tuple[Ask, ...] = (
    lambda client, image: client.detect(image, ["red circle", "blue star"]),
    lambda client, image: client.segment_phrases(image, ["red circle", "green cross"]),
    lambda client, image: client.segment(image, points=[[[60, 60]], [[200, 100]]], multimask=True),
    lambda client, image: client.classify([image], scenes.PHRASES),
    lambda client, image: client.embed_texts([f"a {word}" for word in scenes.PHRASES[:5]]),
    lambda client, image: client.estimate_gaze(image),
    lambda client, image: client.recognize_text([image]),
    lambda client, image: client.segment_everything(image, points_per_side=4),
)


async def caller(
    client: AsyncClient, pictures: list[Image], number: int, end: float, counts: Counter[str]
) -> None:
    choices = random.Random(number)
    while time.monotonic() < end:
        image = choices.choice(pictures)
        call = asyncio.ensure_future(choices.choice(ASKS)(client, image))
        if choices.random() < WRONG_SHARE:
            call.cancel()
            call = asyncio.ensure_future(client.detect(b"not an image", ["red circle"]))
        if choices.random() < CANCELLED_SHARE:
            await asyncio.wait([call], timeout=choices.uniform(0, 0.1))
            call.cancel()
        try:
            await call
            counts["OK"] += 1
        except asyncio.CancelledError:
            counts["cancelled"] += 1
        except VisiongateError as error:
            counts[error.code.name] += 1


async def measure(service: Service, minutes: float) -> Goals:
    pictures = [
        scenes.draw(scenes.FIRST_UNSEEN_SEED + index, 240 + index % 160, 240).image
        for index in range(PICTURES)
    ]
    counts: Counter[str] = Counter()
    memory: list[float] = []
    async with AsyncClient(service.address, timeout=60) as client:
        # Each once, so that what is there at the start is there.
        for ask in ASKS:
            await ask(client, pictures[0])
        await asyncio.sleep(3)
        files, tasks = service.open_files, service.metrics()["visiongate_tasks"]
        end = time.monotonic() + 60 * minutes
        work = [
            asyncio.create_task(caller(client, pictures, number, end, counts)) for number in range(CALLERS)
        ]
        while time.monotonic() < end:
            await asyncio.sleep(SAMPLE_EVERY_S)
            memory.append(service.resident_mb)
            if len(memory) % 30 == 0:
                print(
                    f"{len(memory) * SAMPLE_EVERY_S / 60:.0f} min, {memory[-1]:.0f} MB, {dict(counts)}",
                    flush=True,
                )
        await asyncio.gather(*work)
        # Cancelled work ends, and the next look at Triton's health counts tasks again.
        await asyncio.sleep(5)
        files_after, after = service.open_files, service.metrics()
    quarter = len(memory) // 4
    second, last = np.mean(memory[quarter : 2 * quarter]), np.mean(memory[-quarter:])
    print(f"calls: {dict(counts)}")
    print(
        f"memory: {second:.1f} MB in the second quarter, {last:.1f} MB in the last, {last / second:.3f} of it"
    )
    print(f"open files: {files} before, {files_after} after")
    print(f"tasks: {tasks:.0f} before, {after['visiongate_tasks']:.0f} after")
    print(f"calls in flight after: {after['visiongate_calls_in_flight']:.0f}")
    return {
        "every call is answered or cancelled": set(counts) <= {"OK", "cancelled", "INVALID_ARGUMENT"},
        f"at most {MAX_GROWTH} times the memory": last <= MAX_GROWTH * second,
        "no more open files": files_after <= files,
        "no more tasks": after["visiongate_tasks"] <= tasks,
        "no call in flight": after["visiongate_calls_in_flight"] == 0,
        "no byte in flight": after["visiongate_bytes_in_flight"] == 0,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=20)
    arguments = parser.parse_args()
    with EmbeddedTriton(REPOSITORY) as triton, serving(triton.grpc_address) as service:
        goals = asyncio.run(measure(service, arguments.minutes))
    finish(goals)


if __name__ == "__main__":
    main()
