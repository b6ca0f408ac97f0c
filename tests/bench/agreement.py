"""Full-size words to masks through the running product, against the reference pipeline in PyTorch.

    python tests/bench/agreement.py PHOTO --repository DIR [--weights random|FOLDER…] -- PHRASE…

DIR was exported with the same weights. Prints how far the answers differ, and what each stage takes.
"""

import argparse
import asyncio
import resource
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from export.weights import Options
from gateway.embedded import EmbeddedTriton
from gateway.server import Gateway
from gateway.settings import Settings
from visiongate import AsyncClient, Detections
from visiongate.operations import Operation, segmentation

sys.path.insert(0, str(Path(__file__).parents[1]))
from reference import Reference

REPEATS = 3


async def ask(
    triton: EmbeddedTriton, arguments: argparse.Namespace
) -> tuple[Detections, dict[str, list[float]], Any]:
    """The chain's answer, and milliseconds by stage of the same call over and over, caches off."""
    settings = Settings(
        triton=triton.grpc_address,
        repository=arguments.repository,
        port=0,
        image_cache_bytes=0,
        sam_embedding_cache_bytes=0,
    )
    async with Gateway(settings) as gateway, AsyncClient(f"127.0.0.1:{gateway.port}", timeout=600) as client:
        operation: Any = segmentation.segment_phrases(
            arguments.photo,
            arguments.phrases,
            min_score=arguments.threshold,
            max_detections=arguments.detections,
        )
        objects = await client.call(operation)
        raw: Any = Operation(operation.method, operation.request, operation.response_type, lambda r, _: r)
        stages: dict[str, list[float]] = {}
        for _ in range(REPEATS):
            start = time.perf_counter()
            timings = (await client.call(raw)).timings
            stages.setdefault("whole call", []).append((time.perf_counter() - start) * 1e3)
            for field in timings.DESCRIPTOR.fields:
                stages.setdefault(field.name.removesuffix("_ms"), []).append(getattr(timings, field.name))
        spec = next(v.spec for v in gateway.catalog.variants if v.family.name == "grounding_dino")
    return objects, stages, spec


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("photo", type=Path)
    parser.add_argument("phrases", nargs="+")
    parser.add_argument("--repository", type=Path, required=True)
    parser.add_argument("--weights", default="random", help="as given to `visiongate export`")
    parser.add_argument("--size", default="full", choices=("full", "tiny"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threshold", type=float, default=0.35)
    parser.add_argument("--detections", type=int, default=10)
    arguments = parser.parse_args()

    with EmbeddedTriton(arguments.repository, progress=print) as triton:
        objects, stages, spec = asyncio.run(ask(triton, arguments))
    print(f"\n{len(objects)} objects; milliseconds, median of {REPEATS}:")
    for stage, values in stages.items():
        print(f"  {stage:12} {np.median(values):10.1f}")

    options = Options(weights=arguments.weights, seed=arguments.seed, size=arguments.size)
    reference = Reference(options, arguments.repository / "grounding_dino" / "tokenizer.json", spec)
    with Image.open(arguments.photo) as file:
        image = ImageOps.exif_transpose(file).convert("RGB")
    start = time.perf_counter()
    expected = reference.detect(image, arguments.phrases, arguments.threshold)
    masks, ious, _ = reference.segment(image, boxes=objects.xyxy)
    print(f"  {'PyTorch':12} {(time.perf_counter() - start) * 1e3:10.1f}  (the same chain, once)")

    # Near-tied queries may swap places: each answer is compared with the nearest expected box.
    found = objects.xyxy
    distance = np.abs(found[:, None] - expected.boxes[None]).max(-1)
    nearest = distance.argmin(1)
    scores = objects.confidence
    pixels = objects.masks
    assert pixels is not None
    unions = (pixels | masks[:, 0]).sum((1, 2))
    overlap = (pixels & masks[:, 0]).sum((1, 2)) / np.maximum(unions, 1)
    overlap[unions == 0] = 1
    print("\nagainst the reference in PyTorch:")
    print(f"  boxes:  at most {distance.min(1).max():.4f} pixels apart")
    print(f"  scores: at most {np.abs(scores - expected.scores[nearest]).max():.2e} apart")
    same = [item.phrase_index for item in objects] == expected.phrases[nearest].tolist()
    print(f"  phrases: {'the same' if same else 'DIFFERENT'}")
    differ = (pixels != masks[:, 0]).sum()
    print(f"  masks:  IoU at least {overlap.min():.6f}, {differ} pixels differ of {pixels.size}")
    predicted = np.array([item.mask.predicted_iou for item in objects if item.mask])
    print(f"  predicted IoU: at most {np.abs(predicted - ious[:, 0]).max():.2e} apart")
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6
    print(f"\npeak memory of the largest of Triton's processes: {peak:.1f} GB")


if __name__ == "__main__":
    main()
