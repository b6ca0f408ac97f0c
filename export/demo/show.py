"""Everything on one drawn picture: what is there, what the models say is there, and both in a table."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from export.demo import scenes
from export.demo.evaluate import angle, mask_iou, pairs
from gateway.models import boxes
from visiongate import AsyncClient, Detection, Face, Page, draw

SIZE = (800, 600)
ABSENT = ("red star", "green circle")
"""Asked for, and not there."""
# A crop shows an object with so much around it, as a share of its longer side.
MARGIN = 0.15


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the table: what is in the picture, what was answered, how well that fits."""

    truth: str
    answer: str
    agreement: str
    is_right: bool


def scene(seed: int) -> scenes.Scene:
    """The demo's picture: places and things are set, background and shades come from the seed."""
    painter = scenes.Painter(np.random.default_rng(scenes.FIRST_UNSEEN_SEED + seed), *SIZE)
    painter.face(0.5, at=(0.8, 0.32), yaw_pitch=(math.radians(28), math.radians(-12)))
    painter.word("Triton", scenes.PILLOW_FONT, 0.1, at=(0.3, 0.12))
    painter.word("sees", scenes.PILLOW_FONT, 0.08, at=(0.16, 0.9))
    painter.word("2026", scenes.PILLOW_FONT, 0.08, at=(0.86, 0.9))
    for colour, shape, size, at in (
        ("red", "circle", 0.34, (0.17, 0.42)),
        ("blue", "square", 0.3, (0.29, 0.58)),
        ("yellow", "star", 0.34, (0.52, 0.36)),
        ("green", "triangle", 0.28, (0.43, 0.76)),
        ("purple", "cross", 0.26, (0.64, 0.74)),
    ):
        painter.shape(colour, shape, size, at)
    return painter.scene(degraded=False)


async def ask(client: AsyncClient, picture: scenes.Scene) -> tuple[list[Row], Image.Image]:
    """Ask for everything and return the table and the picture with the answers on it."""
    phrases = [*dict.fromkeys(thing.phrase for thing in picture.things), *ABSENT]
    objects = await client.segment_phrases(picture.image, phrases)
    [page] = await client.recognize_text([picture.image])
    faces = await client.estimate_gaze(picture.image)
    crops = [_crop(picture.image, item.box) for item in objects]
    kinds = await client.classify(crops, scenes.PHRASES, prompt_template="a {}", top_k=1) if crops else []
    rows = [
        *_object_rows(picture, objects, [best.label for [best] in kinds]),
        *_word_rows(picture, page),
        *_face_rows(picture, faces),
    ]
    return rows, _draw(picture, objects, page, faces)


def _object_rows(picture: scenes.Scene, objects: Sequence[Detection], kinds: Sequence[str]) -> list[Row]:
    left = dict(enumerate(objects))
    rows = []
    for thing in picture.things:
        overlaps = {
            index: mask_iou(item.mask.pixels, thing.mask)
            for index, item in left.items()
            if item.phrase == thing.phrase and item.mask
        }
        if not overlaps:
            rows.append(Row(thing.phrase, "not found", "", is_right=False))
            continue
        best = max(overlaps, key=lambda index: overlaps[index])
        found = left.pop(best)
        rows.append(
            Row(
                thing.phrase,
                f"{found.phrase} {found.score:.2f}; CLIP says {kinds[best]}",
                f"mask IoU {overlaps[best]:.2f}",
                is_right=overlaps[best] > 0.5 and kinds[best] == thing.phrase,
            )
        )
    for item in left.values():
        rows.append(Row("nothing", f"{item.phrase} {item.score:.2f}", "", is_right=False))
    names = {item.phrase for item in objects}
    rows += [Row(f"no {phrase}", "none", "", is_right=True) for phrase in ABSENT if phrase not in names]
    return rows


def _word_rows(picture: scenes.Scene, page: Page) -> list[Row]:
    found = list(page.words())
    overlaps = boxes.iou(
        np.array([word.box for word in picture.words]).reshape(-1, 4),
        np.array([word.box for word in found]).reshape(-1, 4),
    )
    partner = dict(pairs(overlaps))
    rows = []
    for index, word in enumerate(picture.words):
        truth = f"the word {word.text}"
        if index in partner:
            text = found[partner[index]].text
            overlap = f"box IoU {overlaps[index, partner[index]]:.2f}"
            rows.append(Row(truth, text, overlap, is_right=text == word.text))
        else:
            rows.append(Row(truth, "not found", "", is_right=False))
    extra = [word.text for index, word in enumerate(found) if index not in partner.values()]
    return rows + [Row("nothing", f"the word {text}", "", is_right=False) for text in extra]


def _face_rows(picture: scenes.Scene, faces: Sequence[Face]) -> list[Row]:
    overlaps = boxes.iou(
        np.array([face.box for face in picture.faces]).reshape(-1, 4),
        np.array([face.box for face in faces]).reshape(-1, 4),
    )
    partner = dict(pairs(overlaps))
    rows = []
    for index, face in enumerate(picture.faces):
        truth = f"a face that looks {_degrees(*face.yaw_pitch)}"
        if index in partner:
            found = faces[partner[index]]
            error = angle(face.yaw_pitch, np.array([found.yaw, found.pitch]))
            rows.append(
                Row(truth, _degrees(found.yaw, found.pitch), f"{error:.0f}° apart", is_right=error < 15)
            )
        else:
            rows.append(Row(truth, "not found", "", is_right=False))
    extra = len(faces) - len(partner)
    return rows + [Row("nothing", "a face", "", is_right=False)] * extra


def _degrees(yaw: float, pitch: float) -> str:
    """In words: a positive yaw is to the picture's left, a positive pitch is up."""
    aside = f"{abs(math.degrees(yaw)):.0f}° {'left' if yaw > 0 else 'right'}"
    return f"{aside}, {abs(math.degrees(pitch)):.0f}° {'up' if pitch > 0 else 'down'}"


def _crop(image: scenes.Pixels, box: np.ndarray[tuple[int], np.dtype[np.float32]]) -> scenes.Pixels:
    """The square around a box."""
    height, width = image.shape[:2]
    centre, half = (box[:2] + box[2:]) / 2, (0.5 + MARGIN) * (box[2:] - box[:2]).max()
    x_min, y_min = np.floor(centre - half).astype(int).clip(0).tolist()
    x_max, y_max = np.ceil(centre + half).astype(int).clip(1, (width, height)).tolist()
    return np.ascontiguousarray(image[y_min:y_max, x_min:x_max])


def _draw(
    picture: scenes.Scene, objects: Sequence[Detection], page: Page, faces: Sequence[Face]
) -> Image.Image:
    items = [
        draw.Item(
            group=index,
            caption=f"{item.phrase} {item.score:.2f}",
            box=item.box,
            mask=item.mask.pixels if item.mask else None,
        )
        for index, item in enumerate(objects)
    ]
    items += [draw.Item(group=1, caption=word.text, polygon=word.quadrilateral) for word in page.words()]
    for face in faces:
        eyes = (face.box[:2] + face.box[2:]) / 2
        if face.landmarks is not None:
            eyes = (face.landmarks["right_eye"] + face.landmarks["left_eye"]) / 2
        reach = face.box[2] - face.box[0]
        items.append(
            draw.Item(
                group=3,
                caption=f"looks {_degrees(face.yaw, face.pitch)}",
                box=face.box,
                arrow=np.array([eyes, eyes + reach * face.direction[:2]]),
            )
        )
    return draw.draw(Image.fromarray(picture.image), items)
