"""How a face is drawn."""

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from export.demo.scenes.brush import around, blend, ellipse_cover, fill
from export.demo.scenes.scene import DrawnFace, Pixels

# How far faces look aside and up or down, in radians.
MAX_YAW, MAX_PITCH = math.radians(40), math.radians(25)


class FacePainter:
    """One face: a ball whose features turn with the head, and irises that turn in the eyes."""

    def __init__(
        self, random: np.random.Generator, middle: NDArray[np.float64], half: float, yaw: float, pitch: float
    ) -> None:
        self._random, self._middle, self._half = random, middle, half
        self._gaze = np.array([yaw, pitch])
        # The head turns some of the way, and the eyes the rest.
        self._head = self._gaze * random.uniform(0.2, 0.8) + random.normal(0, 0.04, 2)
        self._eyes = self._gaze - self._head
        self._radii = half * np.array([random.uniform(0.68, 0.8), 0.94])

    def paint(self, picture: Pixels) -> DrawnFace:
        """Draw the face and return the truth about it."""
        random, unit = self._random, self._half
        skin = np.array([222, 178, 148]) * random.uniform(0.45, 1.08) + random.uniform(-12, 12, 3)
        hair = np.array([1.0, 0.75, 0.5]) * random.uniform(15, 150)
        line = skin * 0.55
        self._ellipse(picture, self._middle - np.array([0, 0.08 * unit]), self._radii * [1.14, 1.0], hair)
        self._ellipse(picture, self._middle + np.array([0, 0.06 * unit]), self._radii * [1.0, 0.94], skin)
        eye_size = unit * np.array([random.uniform(0.19, 0.22), random.uniform(0.12, 0.15)])
        iris = np.array([random.uniform(20, 90), random.uniform(30, 90), random.uniform(20, 120)])
        eyes = [self._place(side * 0.36, -0.12) for side in (-1, 1)]
        for eye in eyes:
            self._ellipse(picture, eye, eye_size * 1.12, line)
            self._ellipse(picture, eye, eye_size, np.array([245, 245, 240]))
            yaw, pitch = self._eyes
            look = np.array([-math.sin(yaw) * math.cos(pitch), -math.sin(pitch)])
            pupil = eye + look * eye_size * [1.1, 1.3]
            self._ellipse(picture, pupil, np.full(2, eye_size[1] * 0.72), iris, within=(eye, eye_size))
            self._ellipse(picture, pupil, np.full(2, eye_size[1] * 0.34), iris * 0.1, within=(eye, eye_size))
            brow = eye - [0, unit * random.uniform(0.2, 0.26)]
            self._ellipse(picture, brow, unit * np.array([0.22, 0.035]), hair * 0.8)
        nose = self._place(0, 0.2, 1.14)
        bridge = self._place(0, -0.08, 1.02)
        cv2.line(
            picture, _point(bridge), _point(nose), line.tolist(), max(1, round(unit * 0.04)), cv2.LINE_AA
        )
        self._ellipse(picture, nose, unit * np.array([0.1, 0.065]), skin * 0.8)
        mouth = [self._place(side * 0.26, 0.52) for side in (-1, 1)]
        middle = (mouth[0] + mouth[1]) / 2 + np.array([0, unit * random.uniform(-0.02, 0.08)])
        lips = np.array([mouth[0], middle, mouth[1], middle + np.array([0, unit * 0.09])])
        red = np.array([165, 60, 65]) * random.uniform(0.7, 1.1)
        fill(picture, lips, red.tolist())
        box = around(self._middle, self._radii[0] * 1.05, unit)
        landmarks = np.array([*eyes, nose, *mouth], np.float32)
        return DrawnFace(box, landmarks, self._gaze.astype(np.float32))

    def _place(self, x: float, y: float, out: float = 1.0) -> NDArray[np.float64]:
        """Return where a feature is seen once the head has turned.

        The feature is on the front of the ball, at (x, y) in units of its radii.
        """
        yaw, pitch = self._head
        z = math.sqrt(max(0.0, 1 - x * x - y * y)) * out
        x, z = x * math.cos(yaw) - z * math.sin(yaw), z * math.cos(yaw) + x * math.sin(yaw)
        y = y * math.cos(pitch) - z * math.sin(pitch)
        return self._middle + np.array([x, y]) * self._radii * 0.85

    def _ellipse(
        self,
        picture: Pixels,
        middle: NDArray[np.float64],
        radii: NDArray[np.float64],
        colour: NDArray[np.float64],
        within: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None,
    ) -> None:
        """Draw an ellipse, but only the part inside another one (middle, radii) if `within` is given."""
        x_min, y_min = np.floor(middle - radii - 2).astype(int).clip(0).tolist()
        x_max, y_max = np.ceil(middle + radii + 2).astype(int).clip(0).tolist()
        part = picture[y_min:y_max, x_min:x_max]
        corner = np.array([x_min, y_min])
        cover = ellipse_cover(part.shape[:2], middle - corner, radii)
        if within is not None:
            cover = np.minimum(cover, ellipse_cover(part.shape[:2], within[0] - corner, within[1]))
        blend(part, cover, colour.clip(0, 255))


def _point(place: NDArray[np.float64]) -> tuple[int, int]:
    x, y = np.round(place).astype(int).tolist()
    return x, y
