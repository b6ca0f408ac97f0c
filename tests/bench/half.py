"""What half precision changes in the demo models' answers: `python tests/bench/half.py [--scenes 100]`.

It serves the demo models twice, in float32 and in half precision, and asks both the same about drawn scenes
that no model was trained on. The half-precision graphs run with all of their rounding (see
`export.rounding`), which a CPU would otherwise leave out. It prints how far the answers are apart.
"""

import argparse
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from export import onnx_writing, rounding
from export.demo.agreement import angles_between, paired_boxes
from export.demo.families.sam import middle
from export.demo.measure import ask_all
from export.demo.scenes import Scene
from export.demo.serving import REPOSITORY, with_client
from export.demo.unseen import asked_phrases, unseen
from export.families import DEFAULT_SET, FAMILIES
from export.half import Precision
from export.weights import Options
from visiongate import AsyncClient

Masks = list[NDArray[np.bool_]]


@dataclass(frozen=True)
class Seen:
    """What the models see on a scene."""

    words: list[tuple[str, Any]]
    objects: list[tuple[str, Any]]
    """Phrases and words with their boxes."""
    from_boxes: Masks
    from_points: Masks
    gazes: NDArray[np.float64]
    """Yaw and pitch [N,2] of the faces where they are drawn, in radians."""
    faces: list[Any]
    embedding: NDArray[np.float32]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scenes", type=int, default=100)
    pictures = unseen(parser.parse_args().scenes)
    with tempfile.TemporaryDirectory() as folder:
        rounded = Path(folder) / "models"
        _write(rounded)
        seen = [
            with_client(repository, partial(_ask, pictures), print) for repository in (REPOSITORY, rounded)
        ]
    for line in _lines(*seen):
        print(line)


def _write(repository: Path) -> None:
    """Write the demo models in half precision, with all of their rounding."""
    shutil.copytree(REPOSITORY, repository)
    for family in DEFAULT_SET:
        for graph in FAMILIES[family].prepare(Options(weights="demo")).graphs:
            path = repository / graph.model / "1" / "model.onnx"
            onnx_writing.write(graph, path, precision=Precision.fp16)
            if graph.probes:
                onnx_writing.drop_probes(graph, path)
            onnx.save(rounding.kept(onnx_writing.read(path)), str(path))
            print(f"{graph.model} is written in half precision", flush=True)


async def _ask(pictures: Sequence[Scene], client: AsyncClient) -> list[Seen]:
    async def ask(index: int) -> Seen:
        scene = pictures[index]
        image, things = scene.image, scene.things
        [page] = await client.recognize_text([image])
        objects = await client.detect(image, asked_phrases(scene, index))
        from_boxes = await client.segment(image, boxes=[thing.box for thing in things]) if things else []
        points = [[middle(thing.mask)] for thing in things]
        from_points = await client.segment(image, points=points, multimask=True) if things else []
        drawn = [face.box for face in scene.faces]
        gazes = await client.estimate_gaze(image, boxes=drawn) if drawn else []
        [embedding] = await client.embed_images([image])
        return Seen(
            words=[(word.text, word.box) for word in page.words()],
            objects=[(item.phrase, item.box) for item in objects],
            from_boxes=[masks[0].pixels for masks in from_boxes],
            from_points=[masks[0].pixels for masks in from_points],
            gazes=np.array([(face.yaw, face.pitch) for face in gazes]).reshape(-1, 2),
            faces=[face.box for face in await client.estimate_gaze(image)],
            embedding=np.asarray(embedding),
        )

    return await ask_all(ask, len(pictures), lambda: None)


def _lines(exact: list[Seen], half: list[Seen]) -> list[str]:
    scenes = list(zip(exact, half, strict=True))
    cosines = [
        float(a.embedding @ b.embedding / np.linalg.norm(a.embedding) / np.linalg.norm(b.embedding))
        for a, b in scenes
    ]
    degrees = np.concatenate([angles_between(a.gazes, b.gazes) for a, b in scenes if len(a.gazes)])
    faces = [([("", box) for box in a.faces], [("", box) for box in b.faces]) for a, b in scenes]
    boxes = [pair for a, b in scenes for pair in zip(a.from_boxes, b.from_boxes, strict=True)]
    points = [pair for a, b in scenes for pair in zip(a.from_points, b.from_points, strict=True)]
    return [
        f"CLIP: cosine at least {min(cosines):.6f}",
        _named("docTR, words", [(a.words, b.words) for a, b in scenes]),
        _named("Grounding DINO, objects", [(a.objects, b.objects) for a, b in scenes]),
        _named("YuNet, faces", faces),
        _masks("SAM, masks from boxes", boxes),
        _masks("SAM, masks from points", points),
        f"gaze: {len(degrees)} faces, mean {degrees.mean():.3f} degrees, at most {degrees.max():.3f}",
    ]


def _named(what: str, scenes: list[tuple[list[tuple[str, Any]], list[tuple[str, Any]]]]) -> str:
    """Tell how many names with a box are the same in both answers, and how far their boxes are apart."""
    overlaps: list[float] = []
    wanted = found = 0
    for ours, theirs in scenes:
        wanted, found = wanted + len(ours), found + len(theirs)
        for name in {name for name, _ in ours}:
            pairs = paired_boxes(*([box for other, box in side if other == name] for side in (ours, theirs)))
            overlaps += [iou for _, _, iou in pairs]
    return (
        f"{what}: {wanted} in float32, {found} in half, {len(overlaps)} the same in both "
        f"({len(overlaps) / wanted:.4f}), mean box IoU {np.mean(overlaps):.4f}, least {min(overlaps):.4f}"
    )


def _masks(what: str, pairs: list[tuple[NDArray[np.bool_], NDArray[np.bool_]]]) -> str:
    """Tell the IoU of all masks as one, and the worst mask by itself with its size."""
    sizes = [(np.count_nonzero(a & b), np.count_nonzero(a | b)) for a, b in pairs]
    same, either = (sum(column) for column in zip(*sizes, strict=True))
    worst, size = min((one / all_ if all_ else 1.0, all_) for one, all_ in sizes)
    return f"{what}: {len(pairs)} masks, IoU of all {same / either:.4f}, worst {worst:.4f} of {size} pixels"


if __name__ == "__main__":
    main()
