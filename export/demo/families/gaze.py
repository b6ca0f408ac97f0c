"""Gaze in the demo: faces, and where they look."""

import math
from collections.abc import Sequence

import numpy as np

from export.demo.agreement import MIN_IOU, angles_between, paired_boxes
from export.demo.family import Answer, DemoFamily, Row
from export.demo.measure import Advance, Figure, Measure, ask_all
from export.demo.scenes import Scene
from visiongate import AsyncClient, Face, draw

# Degrees by which the demo's answer may be off and still counts as right.
MAX_ERROR = 15


async def gaze(client: AsyncClient, pictures: Sequence[Scene], advance: Advance) -> list[Figure]:
    """Measure the share of faces found, and the mean angle between their true and their estimated gazes."""

    async def ask(index: int) -> tuple[int, int, int, float]:
        scene = pictures[index]
        faces: list[Face] = await client.estimate_gaze(scene.image)
        errors = [
            _error(scene, row, faces[column]) for row, column, iou in _paired(scene, faces) if iou >= MIN_IOU
        ]
        return len(errors), len(scene.faces), len(faces), sum(errors)

    hits, wanted, found, total = np.sum(await ask_all(ask, len(pictures), advance), axis=0)
    return [
        Figure("faces found", hits / wanted, 0.95),
        Figure("faces: of what it found, faces", hits / max(1, found), 0.95),
        Figure("gaze: mean error", total / max(1, hits), 8, "°", at_most=True),
    ]


async def find_gazes(client: AsyncClient, scene: Scene) -> Answer:
    """Ask for the faces of the scene and for where they look."""
    faces = await client.estimate_gaze(scene.image)
    partners = {row: faces[column] for row, column, _ in _paired(scene, faces)}
    rows = []
    for index, drawn in enumerate(scene.faces):
        truth = f"a face that looks {_in_words(*drawn.yaw_pitch)}"
        if index in partners:
            face = partners[index]
            error = _error(scene, index, face)
            answer = _in_words(face.yaw, face.pitch)
            rows.append(Row(truth, answer, f"{error:.0f}° apart", is_right=error < MAX_ERROR))
        else:
            rows.append(Row(truth, "not found", "", is_right=False))
    rows += [Row("nothing", "a face", "", is_right=False)] * (len(faces) - len(partners))
    return Answer(rows, [_item(face) for face in faces])


def _paired(scene: Scene, faces: Sequence[Face]) -> list[tuple[int, int, float]]:
    return paired_boxes((face.box for face in scene.faces), (face.box for face in faces))


def _error(scene: Scene, index: int, face: Face) -> float:
    """Return the degrees between the gaze of the scene's face and the estimated one."""
    return float(angles_between(scene.faces[index].yaw_pitch, np.array([face.yaw, face.pitch])))


def _in_words(yaw: float, pitch: float) -> str:
    """Return a gaze in words: a positive yaw is to the picture's left, a positive pitch is up."""
    aside = f"{abs(math.degrees(yaw)):.0f}° {'left' if yaw > 0 else 'right'}"
    return f"{aside}, {abs(math.degrees(pitch)):.0f}° {'up' if pitch > 0 else 'down'}"


def _item(face: Face) -> draw.Item:
    """Return a face's box and an arrow from between its eyes."""
    start = (face.box[:2] + face.box[2:]) / 2
    if face.landmarks is not None:
        start = (face.landmarks["right_eye"] + face.landmarks["left_eye"]) / 2
    length = face.box[2] - face.box[0]
    return draw.Item(
        group=3,
        caption=f"looks {_in_words(face.yaw, face.pitch)}",
        box=face.box,
        arrow=np.array([start, start + length * face.direction[:2]]),
    )


FAMILY = DemoFamily(
    name="gaze", place=5, training="export.demo.train_gaze", measures=(Measure(gaze),), ask=find_gazes
)
