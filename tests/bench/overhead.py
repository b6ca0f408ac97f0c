"""What the gateway costs: calls a second through it, over what Triton alone reaches on the same tensors.

    python tests/bench/overhead.py --repository DIR

Ratios of one run on one machine. With toy models the models cost next to nothing, so this is the worst
case: what is left is decoding, resizing, gRPC and protobuf.
"""

import argparse
import asyncio
import resource
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import numpy as np
from skimage import data as skimage_data

from gateway.embedded import EmbeddedTriton
from gateway.server import Gateway
from gateway.settings import Settings
from gateway.triton_servers import GrpcTriton
from visiongate import AsyncClient

PHRASES = ["cup", "spoon", "table"]


async def rate(call: Callable[[], Awaitable[object]], callers: int, seconds: float) -> tuple[float, float]:
    """Calls a second, and CPU milliseconds of this process a call, with that many callers at once."""
    for _ in range(3):
        await call()
    end = time.perf_counter() + seconds
    count = 0

    async def caller() -> None:
        nonlocal count
        while time.perf_counter() < end:
            await call()
            count += 1

    cpu, start = _cpu(), time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(callers)))
    return count / (time.perf_counter() - start), (_cpu() - cpu) / count * 1e3


def _cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


async def measure(triton_address: str, repository: Path, seconds: float) -> None:
    settings = Settings(triton=triton_address, repository=repository, port=0, sam_embedding_cache_bytes=0)
    photo = skimage_data.coffee()
    async with Gateway(settings) as gateway, AsyncClient(f"127.0.0.1:{gateway.port}") as client:
        triton = GrpcTriton(triton_address)
        variants = {variant.family.name: variant for variant in gateway.catalog.variants}
        dino, sam = variants["grounding_dino"].spec, variants["sam"].spec
        text = dino.text.encode_phrases(PHRASES)
        canvas, valid = dino.preprocess(photo)
        frame, frame_valid = sam.preprocess(photo)
        detection = {
            "image": canvas[None],
            "valid_size": np.array([valid], np.int32),
            "input_ids": text.input_ids[None],
            "attention_mask": text.attention_mask[None],
            "position_ids": text.position_ids[None],
            "text_self_attention_mask": text.text_self_attention_mask[None],
        }
        encoding = {"image": frame[None], "valid_size": np.array([frame_valid], np.int32)}
        pairs: list[tuple[str, Callable[[], Awaitable[object]], Callable[[], Awaitable[object]]]] = [
            (
                "DetectObjects",
                lambda: client.detect(photo, PHRASES),
                lambda: triton.infer("grounding_dino", detection, ("logits", "boxes")),
            ),
            (
                "EncodeImage",
                lambda: client.encode_image(photo),
                lambda: triton.infer("sam_encoder", encoding, ("image_embedding",)),
            ),
        ]
        print(
            f"{'method':14} {'callers':>7} {'calls/s':>8} {'Triton/s':>9} {'ratio':>6} {'CPU ms a call':>14}"
        )
        for name, through, alone in pairs:
            for callers in (1, 8):
                reached, cpu = await rate(through, callers, seconds)
                possible, _ = await rate(alone, callers, seconds)
                ratio = reached / possible
                print(f"{name:14} {callers:7} {reached:8.1f} {possible:9.1f} {ratio:6.2f} {cpu:14.2f}")
        print("CPU: client and gateway together, which share this process; the models run in Triton's.")
        await triton.close()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repository", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=4)
    arguments = parser.parse_args()
    with EmbeddedTriton(arguments.repository) as triton:
        asyncio.run(measure(triton.grpc_address, arguments.repository, arguments.seconds))


if __name__ == "__main__":
    main()
