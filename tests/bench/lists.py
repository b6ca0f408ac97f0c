"""Lists against single calls, and joined against separate requests to Triton, on the demo models.

    python tests/bench/lists.py [lists] [requests] [chain] [--rounds N]

lists: a list of 16 images against 16 calls one after another. requests: the images of a list as one request
to Triton, against as many requests side by side, which Triton joins. chain: words to masks against the same
requests sent straight to Triton, one after another. Caches are off; A and B take turns; medians.
"""

import argparse
import asyncio
import io
import statistics
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from skimage import data

from gateway.embedded import EmbeddedTriton
from gateway.server import Gateway
from gateway.settings import Settings
from visiongate import AsyncClient

REPOSITORY = Path(__file__).parents[2] / "export/demo/repository"
PHRASES = ["cup", "person", "cat", "rocket"]
COUNT = 16
SIZES = {
    "grounding_dino": (2, 4),
    "sam_encoder": (2, 4),
    "face_detection": (4, 8),
    "gaze": (4, 16),
    "doctr_detection": (2, 4),
    "doctr_recognition": (32, 64),
}
"""Rows that are joined, of each model."""

Sent = tuple[str, Mapping[str, Any], Sequence[str]]


def photos() -> list[bytes]:
    """Return photos of many sizes as JPEG files."""
    pictures = [data.coffee(), data.astronaut(), data.chelsea(), data.rocket()]
    files = []
    for index in range(COUNT):
        picture = Image.fromarray(pictures[index % 4])
        width = 480 + 40 * (index // 4)
        file = io.BytesIO()
        picture.resize((width, round(picture.height * width / picture.width))).save(file, "JPEG", quality=90)
        files.append(file.getvalue())
    return files


async def by_turns(rounds: int, *ways: Callable[[], Awaitable[Any]]) -> list[list[float]]:
    """Return the milliseconds of each way in each round."""
    for way in ways:
        await way()
    times: list[list[float]] = [[] for _ in ways]
    for _ in range(rounds):
        for way, taken in zip(ways, times, strict=True):
            start = time.perf_counter()
            await way()
            taken.append((time.perf_counter() - start) * 1e3)
    return times


def ratio(first: Sequence[float], second: Sequence[float]) -> float:
    """Return the median of the ratios of each round."""
    return statistics.median(a / b for a, b in zip(first, second, strict=True))


async def compare_lists(client: AsyncClient, rounds: int, skipped: Sequence[str]) -> None:
    files = photos()
    pairs: dict[str, tuple[Callable[[list[bytes]], Awaitable[Any]], Callable[[bytes], Awaitable[Any]]]] = {
        "detect": (
            lambda images: client.detect_batch(images, PHRASES),
            lambda image: client.detect(image, PHRASES),
        ),
        "segment_phrases": (
            lambda images: client.segment_phrases_batch(images, PHRASES),
            lambda image: client.segment_phrases(image, PHRASES),
        ),
        "estimate_gaze": (client.estimate_gaze_batch, client.estimate_gaze),
        "segment_everything": (
            lambda images: client.segment_everything_batch(images, points_per_side=8),
            lambda image: client.segment_everything(image, points_per_side=8),
        ),
    }
    for name, (batch, single) in pairs.items():
        if name in skipped:
            continue

        async def one_after_another(single: Any = single) -> None:
            for file in files:
                await single(file)

        async def together_in_one(batch: Any = batch) -> None:
            await batch(files)

        alone, together = await by_turns(rounds, one_after_another, together_in_one)
        print(
            f"{name}: {COUNT} calls {statistics.median(alone):.0f} ms, "
            f"a list {statistics.median(together):.0f} ms: {ratio(alone, together):.2f} times as fast",
            flush=True,
        )


def recorded(gateway: Gateway) -> list[Sent]:
    """Return a list that grows by each request to Triton."""
    sent: list[Sent] = []
    infer = gateway._triton.infer

    async def record(model: str, tensors: Any, outputs: Any, *arguments: Any, **keywords: Any) -> Any:
        sent.append((model, dict(tensors), outputs))
        return await infer(model, tensors, outputs, *arguments, **keywords)

    gateway._triton.infer = record  # type: ignore[method-assign,assignment]
    return sent


async def compare_requests(gateway: Gateway, client: AsyncClient, rounds: int) -> None:
    infer = gateway._triton.infer
    sent = recorded(gateway)
    page = Path(__file__).parents[2] / "export/demo/photos/page.png"
    text = page.read_bytes() if page.exists() else data.page()
    await client.segment_phrases(data.coffee(), ["cup"], min_score=0.05)
    await client.estimate_gaze(data.astronaut(), min_score=0.1)
    await client.recognize_text([text])
    rows = {model: (tensors, outputs) for model, tensors, outputs in sent}
    gateway._triton.infer = infer  # type: ignore[method-assign]
    for model, sizes in SIZES.items():
        if model not in rows:
            print(f"{model}: was not asked")
            continue
        tensors, outputs = rows[model]
        for size in sizes:
            one = {name: tensor[:1] for name, tensor in tensors.items()}

            async def joined(
                model: str = model, one: Any = one, size: int = size, outputs: Any = outputs
            ) -> None:
                stacked = {name: np.concatenate([tensor] * size) for name, tensor in one.items()}
                await infer(model, stacked, outputs)

            async def separate(
                model: str = model, one: Any = one, size: int = size, outputs: Any = outputs
            ) -> None:
                await asyncio.gather(*(infer(model, one, outputs) for _ in range(size)))

            apart, together = await by_turns(max(rounds, 7), separate, joined)
            print(
                f"{model}, {size} rows: separate {statistics.median(apart):.1f} ms, "
                f"joined {statistics.median(together):.1f} ms: "
                f"{ratio(apart, together):.2f} times as fast",
                flush=True,
            )


async def compare_chain(gateway: Gateway, client: AsyncClient, rounds: int) -> None:
    """Words to masks against its requests alone."""
    (file, *_) = photos()
    infer = gateway._triton.infer
    sent = recorded(gateway)
    found = await client.segment_phrases(file, ["cup"], min_score=0.05, max_detections=10)
    requests = list(sent)
    gateway._triton.infer = infer  # type: ignore[method-assign]

    async def models() -> None:
        for request in requests:
            await infer(*request)

    async def chain() -> Any:
        return await client.segment_phrases(file, ["cup"], min_score=0.05, max_detections=10)

    alone, whole = await by_turns(max(rounds, 15), models, chain)
    timings = (await chain()).info.timings
    print(
        f"words to masks, {len(found)} objects: {statistics.median(whole):.1f} ms, "
        f"its {len(requests)} requests {statistics.median(alone):.1f} ms: {ratio(whole, alone):.2f}; "
        f"{timings}"
    )


async def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", default=["lists", "requests", "chain"])
    parser.add_argument("--skip", nargs="*", default=[], help="methods that are not measured")
    parser.add_argument("--repository", type=Path, default=REPOSITORY)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    with EmbeddedTriton(arguments.repository) as triton:
        settings = Settings(
            triton=triton.grpc_address,
            repository=arguments.repository,
            port=0,
            image_cache_bytes=0,
            sam_embedding_cache_bytes=0,
            log_level="error",
        )
        async with (
            Gateway(settings) as gateway,
            AsyncClient(f"127.0.0.1:{gateway.port}", timeout=600) as client,
        ):
            if "lists" in arguments.parts:
                await compare_lists(client, arguments.rounds, arguments.skip)
            if "requests" in arguments.parts:
                await compare_requests(gateway, client, arguments.rounds)
            if "chain" in arguments.parts:
                await compare_chain(gateway, client, arguments.rounds)


if __name__ == "__main__":
    asyncio.run(main())
