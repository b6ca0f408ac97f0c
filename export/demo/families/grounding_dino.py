"""Grounding DINO in the demo: boxes of what phrases name."""

from collections.abc import Sequence

import numpy as np

from export.demo.agreement import mask_iou, right_boxes
from export.demo.family import Answer, DemoFamily, Row
from export.demo.measure import Advance, Figure, Measure, ask_all
from export.demo.scenes import PHRASES, Pixels, Scene
from export.demo.unseen import asked_phrases
from visiongate import AsyncClient, Detection, draw

ABSENT = ("red star", "green circle")
"""Phrases that the demo asks for although nothing in its scene has them."""
# A crop shows this much around an object, as a share of the object's longer side.
MARGIN = 0.15


async def detection(client: AsyncClient, pictures: Sequence[Scene], advance: Advance) -> list[Figure]:
    """Measure recall and precision of boxes for ten phrases a scene. Most of these things are not there."""

    async def ask(index: int) -> tuple[int, int, int]:
        scene = pictures[index]
        objects = await client.detect(scene.image, asked_phrases(scene, index))
        right = right_boxes(scene, [(item.phrase, item.box) for item in objects])
        return right, len(scene.things), len(objects)

    right, wanted, found = np.sum(await ask_all(ask, len(pictures), advance), axis=0)
    return [
        Figure("Grounding DINO: recall at IoU 0.5", right / wanted, 0.90),
        Figure("Grounding DINO: precision at IoU 0.5", right / max(1, found), 0.90),
    ]


async def find_objects(client: AsyncClient, scene: Scene) -> Answer:
    """Ask for the scene's things and for absent ones: boxes, masks, and what CLIP calls each crop."""
    phrases = [*dict.fromkeys(thing.phrase for thing in scene.things), *ABSENT]
    objects = await client.segment_phrases(scene.image, phrases)
    crops = [_crop(scene.image, item.box) for item in objects]
    labels = await client.classify(crops, PHRASES, prompt_template="a {}", top_k=1) if crops else []
    rows = _rows(scene, objects, [best.label for [best] in labels])
    items = [
        draw.Item(
            group=index,
            caption=f"{item.phrase} {item.score:.2f}",
            box=item.box,
            mask=item.mask.pixels if item.mask else None,
        )
        for index, item in enumerate(objects)
    ]
    return Answer(rows, items)


def _rows(scene: Scene, objects: Sequence[Detection], labels: Sequence[str]) -> list[Row]:
    left = dict(enumerate(objects))
    rows = []
    for thing in scene.things:
        overlaps = {
            index: mask_iou(item.mask.pixels, thing.mask)
            for index, item in left.items()
            if item.phrase == thing.phrase and item.mask
        }
        if not overlaps:
            rows.append(Row(thing.phrase, "not found", "", is_right=False))
            continue
        best = max(overlaps, key=lambda index: overlaps[index])
        item = left.pop(best)
        rows.append(
            Row(
                thing.phrase,
                f"{item.phrase} {item.score:.2f}; CLIP says {labels[best]}",
                f"mask IoU {overlaps[best]:.2f}",
                is_right=overlaps[best] > 0.5 and labels[best] == thing.phrase,
            )
        )
    for item in left.values():
        rows.append(Row("nothing", f"{item.phrase} {item.score:.2f}", "", is_right=False))
    names = {item.phrase for item in objects}
    rows += [Row(f"no {phrase}", "none", "", is_right=True) for phrase in ABSENT if phrase not in names]
    return rows


def _crop(image: Pixels, box: np.ndarray[tuple[int], np.dtype[np.float32]]) -> Pixels:
    """Return the square around a box."""
    height, width = image.shape[:2]
    centre, half = (box[:2] + box[2:]) / 2, (0.5 + MARGIN) * (box[2:] - box[:2]).max()
    x_min, y_min = np.floor(centre - half).astype(int).clip(0).tolist()
    x_max, y_max = np.ceil(centre + half).astype(int).clip(1, (width, height)).tolist()
    return np.ascontiguousarray(image[y_min:y_max, x_min:x_max])


FAMILY = DemoFamily(
    name="grounding_dino",
    place=1,
    training="export.demo.train_grounding_dino",
    measures=(Measure(detection),),
    ask=find_objects,
)
