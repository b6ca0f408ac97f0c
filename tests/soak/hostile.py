"""Requests as large, and as dear, as they may be, against a gateway with little memory.

    PYTHONPATH=tests python -m soak.hostile

Hostile callers send such requests, a part of them with deadlines far too short, while well-behaved ones go on
with small requests. Exits with 1 where the gateway takes more memory than its settings say, or where a
well-behaved call fails although its client waits for a place.
"""

import argparse
import asyncio
import io
import itertools
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from functools import cache

import grpc.aio
import numpy as np
from google.protobuf.message import Message
from PIL import Image

from export.demo import scenes
from soak.goals import Goals, finish
from soak.service import CACHES, Service, serving_apart
from soak.traffic import Tally, asking, pictures
from visiongate import AsyncClient
from visiongate.v1 import (
    detection_service_pb2,
    embedding_service_pb2,
    geometry_pb2,
    image_pb2,
    segmentation_service_pb2,
)

MAX_BYTES = 300_000_000
# As many as fit: gateway/README.md, "What bounds what".
MAX_PIXELS = MAX_BYTES // 34
BOUND_BYTES = 2 * MAX_BYTES + sum(CACHES.values())
"""Calls; messages that arrive and work under way, half as much each; what is kept."""
MAX_MEMORY = 1.3
"""Of that bound, for what nobody counts."""
HOSTILE, WELL_BEHAVED = 12, 4
HURRIED_SHARE, HURRIED_S, PATIENT_S, ALONE_S = 0.3, 0.05, 60.0, 300.0
PAUSE_S = 0.1
RIGHT_CODES = {"OK", "RESOURCE_EXHAUSTED", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED"}
SEGMENTATION, EMBEDDING = "/visiongate.v1.SegmentationService/", "/visiongate.v1.EmbeddingService/"
PHRASES = ["red circle", "blue star"]


@cache
def picture(kind: str) -> bytes:
    """A file: "flat" has as many pixels as are allowed, "noise" takes 9 MB, "floats" 33 MB."""
    file, numbers = io.BytesIO(), np.random.default_rng(0)
    match kind:
        case "flat":
            Image.new("RGB", (2960, 2960)).save(file, "PNG")
        case "noise":
            Image.fromarray(numbers.integers(0, 256, (1730, 1730, 3), np.uint8)).save(file, "PNG")
        case "floats":
            Image.fromarray(numbers.random((2890, 2890), np.float32)).save(file, "TIFF")
        case "small":
            Image.fromarray(scenes.draw(scenes.FIRST_UNSEEN_SEED, 480, 360).image).save(file, "PNG")
    return file.getvalue()


def image(kind: str, number: int) -> image_pb2.Image:
    """With bytes at its end that make it another one: no cache knows it, and nobody else decodes it."""
    return image_pb2.Image(encoded=picture(kind) + number.to_bytes(8, "big"))


def raw(number: int) -> image_pb2.Image:
    side = int(MAX_PIXELS**0.5)
    pixels = number.to_bytes(8, "big") + bytes(3 * side**2 - 8)
    rgb = image_pb2.PIXEL_FORMAT_RGB
    return image_pb2.Image(raw=image_pb2.RawImage(data=pixels, width=side, height=side, format=rgb))


BOX = geometry_pb2.Box(x_min=10, y_min=10, x_max=90, y_max=90)
PROMPT = segmentation_service_pb2.Prompt(box=BOX)
REFINING = segmentation_service_pb2.Prompt(
    box=BOX,
    mask_logits=segmentation_service_pb2.MaskLogits(data=bytes(4 * 80**2), width=80, height=80),
)


def regions(
    image: image_pb2.Image, *prompts: segmentation_service_pb2.Prompt, **others: bool | int
) -> tuple[str, Message]:
    request = segmentation_service_pb2.SegmentRegionsRequest(image=image, prompts=prompts, **others)  # type: ignore[arg-type]
    return SEGMENTATION + "SegmentRegions", request


def embedded(*images: image_pb2.Image) -> tuple[str, Message]:
    return EMBEDDING + "EmbedImages", embedding_service_pb2.EmbedImagesRequest(images=images)


# By what they are: a method and its request. The number makes each request's images others.
REQUESTS: dict[str, Callable[[int], tuple[str, Message]]] = {
    "files of 36 MB": lambda number: embedded(*(image("noise", 4 * number + part) for part in range(4))),
    "file of floats": lambda number: embedded(image("floats", number)),
    "raw pixels": lambda number: (
        SEGMENTATION + "EncodeImage",
        segmentation_service_pb2.EncodeImageRequest(image=raw(number)),
    ),
    "empty prompts": lambda number: regions(
        image("small", number), *[segmentation_service_pb2.Prompt()] * 160_000
    ),
    "1000 prompts with logits": lambda number: regions(
        image("small", number), *[PROMPT] * 1000, include_logits=True
    ),
    "800 prompts that refine": lambda number: regions(
        image("small", number), *[REFINING] * 800, include_logits=True
    ),
    "three masks each": lambda number: regions(
        image("small", number), *[PROMPT] * 400, multimask=True, include_logits=True
    ),
    "bitmaps of the largest image": lambda number: regions(
        image("flat", number), *[PROMPT] * 4, mask_format=segmentation_service_pb2.MASK_FORMAT_BITMAP
    ),
    "grid of 25,000 points": lambda number: (
        SEGMENTATION + "SegmentEverything",
        segmentation_service_pb2.SegmentEverythingRequest(
            image=image("small", number), points_per_side=70, crop_layers=1, min_predicted_iou=0
        ),
    ),
    "64 images x 1024 labels": lambda number: (
        EMBEDDING + "ClassifyImages",
        embedding_service_pb2.ClassifyImagesRequest(
            images=[image("small", 64 * number + part) for part in range(64)],
            labels=[f"{number} {label}" for label in range(1024)],
        ),
    ),
    "8 of the largest images": lambda number: embedded(
        *(image("flat", 8 * number + part) for part in range(8))
    ),
    "the largest image": lambda number: (
        "/visiongate.v1.DetectionService/DetectObjects",
        detection_service_pb2.DetectObjectsRequest(
            image=image("flat", number),
            query=detection_service_pb2.ObjectQuery(phrases=detection_service_pb2.PhraseList(values=PHRASES)),
        ),
    ),
}


class Hostile:
    """Sends requests at random. `codes`: how they have ended, by what they are."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._channel = channel
        self._choices = random.Random(0)
        self._numbers = itertools.count()
        self.codes: dict[str, Counter[str]] = {name: Counter() for name in REQUESTS}

    async def ask(self) -> None:
        name = self._choices.choice([*REQUESTS])
        is_hurried = self._choices.random() < HURRIED_SHARE
        code = await self._send(name, HURRIED_S if is_hurried else PATIENT_S)
        self.codes[name][code] += 1
        if code == "RESOURCE_EXHAUSTED":
            await asyncio.sleep(PAUSE_S)

    async def each_alone(self) -> dict[str, str]:
        """Send one of each kind after the other. Return how they ended."""
        return {name: await self._send(name, ALONE_S) for name in REQUESTS}

    async def _send(self, name: str, seconds: float) -> str:
        path, request = REQUESTS[name](next(self._numbers))
        # Answers stay bytes: the driver has other things to do.
        method: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = self._channel.unary_unary(path)
        call = method(request.SerializeToString(), timeout=seconds)
        del request
        return (await call.code()).name


async def measure(service: Service, minutes: float) -> Goals:
    tally, images = Tally(), pictures()
    options = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
    async with (
        AsyncClient(service.address, timeout=60) as client,
        grpc.aio.insecure_channel(service.address, options) as channel,
    ):
        hostile = Hostile(channel)
        asks: Iterator[Callable[[], Awaitable[object]]] = itertools.cycle(
            (
                lambda: client.detect(next(images), PHRASES),
                lambda: client.embed_texts(PHRASES),
                lambda: client.segment(next(images), boxes=[[10, 10, 90, 90]]),
                lambda: client.classify([next(images)], PHRASES),
            )
        )

        async def ask() -> None:
            await tally.count(next(asks)())

        async with asking(WELL_BEHAVED, ask):
            alone = await tally.rate(10)
            idle_mb = service.resident_mb
        legal = await hostile.each_alone()
        print(f"alone: {legal}", flush=True)
        service.forget_peak()
        async with asking(WELL_BEHAVED, ask):
            async with asking(HOSTILE, hostile.ask):
                rate = await tally.rate(60 * minutes)
            await asyncio.sleep(5)
            after_mb = service.resident_mb
    bound_mb, peak_mb = BOUND_BYTES / 2**20, service.peak_mb
    share = (peak_mb - idle_mb) / bound_mb
    codes = Counter[str]()
    for name, ends in hostile.codes.items():
        print(f"hostile: {name}: {dict(ends)}")
        codes.update(ends)
    print(f"well-behaved: {alone:.1f} calls/s alone, {rate:.1f} beside them; {tally}")
    print(f"refusals: {service.refusals()}")
    print(
        f"memory: {idle_mb:.0f} MB before, at most {peak_mb:.0f} MB, {after_mb:.0f} MB after: "
        f"{share:.2f} of the bound, {bound_mb:.0f} MB"
    )
    return {
        f"at most {MAX_MEMORY} times the bound": share <= MAX_MEMORY,
        "no well-behaved call fails": set(tally.codes) == {"OK"},
        "every hostile call is answered, refused or late": set(codes) <= RIGHT_CODES,
        "each hostile request is legal": legal.pop("empty prompts") == "INVALID_ARGUMENT"
        and set(legal.values()) == {"OK"},
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=5)
    arguments = parser.parse_args()
    limits = ("--max-bytes-in-flight", str(MAX_BYTES), "--max-image-pixels", str(MAX_PIXELS))
    with serving_apart(*limits, "--log-level", "error") as service:
        goals = asyncio.run(measure(service, arguments.minutes))
    finish(goals)


if __name__ == "__main__":
    main()
