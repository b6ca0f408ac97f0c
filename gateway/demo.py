"""The chain on one photo, with everything that it needs started and stopped around it."""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

from gateway.embedded import EmbeddedTriton
from gateway.server import Gateway
from gateway.settings import Settings
from visiongate import AsyncClient, SegmentedObject

# The exporter's toy size, whose weights are random: scores mean nothing, so the best few boxes are shown.
TOY = "tiny"
TOY_QUERY = {"box_threshold": 0.0, "nms_iou_threshold": 0.5, "max_detections": 5}


def run(
    photo: Path, phrases: Sequence[str], repository: Path, progress: Callable[[str], None]
) -> list[SegmentedObject]:
    """Starts Triton and a gateway, segments what the phrases name, and stops both again."""
    with EmbeddedTriton(repository, progress=progress) as triton:
        progress(f"Triton {triton.grpc_address} has loaded the models")
        settings = Settings(triton=triton.grpc_address, repository=repository, port=0)
        return asyncio.run(_ask(settings, photo, phrases, progress))


async def _ask(
    settings: Settings, photo: Path, phrases: Sequence[str], progress: Callable[[str], None]
) -> list[SegmentedObject]:
    async with Gateway(settings) as gateway, AsyncClient(f"127.0.0.1:{gateway.port}") as client:
        models = await client.list_models()
        served = ", ".join(f"{model.family} {model.variant}" for model in models)
        progress(f"the gateway answers at 127.0.0.1:{gateway.port} with {served}")
        if all(model.variant != TOY for model in models):
            return await client.segment_phrases(photo, phrases)
        progress("NOTE: toy models with random weights: the way is real, the boxes and masks mean nothing")
        return await client.segment_phrases(photo, phrases, **TOY_QUERY)  # type: ignore[arg-type]
