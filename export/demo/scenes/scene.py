"""A scene: a picture and the truth about it."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

# Hue in degrees, saturation and brightness from 0 to 1.
COLOURS = {
    "red": (0, 0.85, 0.85),
    "orange": (30, 0.95, 0.98),
    "yellow": (55, 0.9, 0.98),
    "green": (125, 0.75, 0.65),
    "blue": (218, 0.85, 0.85),
    "purple": (282, 0.7, 0.62),
}
SHAPES = ("circle", "square", "triangle", "star", "cross")
PHRASES = tuple(f"{colour} {shape}" for colour in COLOURS for shape in SHAPES)

Pixels = NDArray[np.uint8]


@dataclass(frozen=True, slots=True, eq=False)
class Thing:
    """A coloured shape.

    mask: bool [H,W], what is visible of it. box: float32 [4] xyxy, around that part, in pixels.
    """

    colour: str
    shape: str
    mask: NDArray[np.bool_]
    box: NDArray[np.float32]

    @property
    def phrase(self) -> str:
        """Return its name, one of PHRASES."""
        return f"{self.colour} {self.shape}"


@dataclass(frozen=True, slots=True, eq=False)
class Word:
    """A printed word and the box float32 [4] xyxy of its ink, in pixels."""

    text: str
    box: NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class DrawnFace:
    """A face and where it looks.

    box: float32 [4] xyxy, from the hairline to the chin, in pixels. landmarks: float32 [5,2], in the order of
    YuNet's. yaw_pitch: float32 [2], radians, as L2CS-Net counts them: yaw is positive to the picture's left,
    pitch is positive upwards.
    """

    box: NDArray[np.float32]
    landmarks: NDArray[np.float32]
    yaw_pitch: NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """A picture, RGB uint8 [H,W,3], and everything that is on it."""

    image: Pixels
    things: list[Thing] = field(default_factory=list)
    words: list[Word] = field(default_factory=list)
    faces: list[DrawnFace] = field(default_factory=list)
