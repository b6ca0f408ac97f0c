"""The painter of scenes, who finds places for things and keeps the truth about them."""

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from export.demo.scenes.brush import around, blend, fill
from export.demo.scenes.faces import MAX_PITCH, MAX_YAW, FacePainter
from export.demo.scenes.scene import DrawnFace, Pixels, Scene, Thing, Word
from export.demo.scenes.shapes import outlines, shade
from export.demo.scenes.surface import background, degrade
from export.demo.scenes.words import font

# Everything is drawn this many times larger, then averaged.
OVERSAMPLING = 2
# The share of its area that every shape keeps visible.
MIN_VISIBLE = 0.6
# How many random places are tried for a thing before it is left out.
MAX_TRIES = 30
# The side, in oversampled pixels, of the square that grows a shape before it is compared with those of its
# colour. So half of this lies free around it.
RIM = 4 * OVERSAMPLING + 1
# The share of the words that lie on a plate of one colour.
PLATE_SHARE = 0.4


class Painter:
    """A picture in the making, `width` x `height` pixels. What is drawn later covers what is there.

    Sizes are shares of the picture's shorter side. Places are shares (x, y) of its sides. A thing that finds
    no free place is left out: the methods return whether they drew it.
    """

    def __init__(self, random: np.random.Generator, width: int, height: int) -> None:
        self._random = random
        self._extent = np.array([width, height]) * OVERSAMPLING
        self._side = int(self._extent.min())
        surface = background(random, width, height)
        self._picture = surface.repeat(OVERSAMPLING, 0).repeat(OVERSAMPLING, 1)
        self._shapes: list[_Painted] = []
        self._words: list[tuple[str, NDArray[np.float32]]] = []
        self._faces: list[DrawnFace] = []

    def shape(self, colour: str, shape: str, size: float, at: tuple[float, float] | None = None) -> bool:
        """Draw a shape that leaves the share MIN_VISIBLE of every other shape visible."""
        radius = size * self._side / 2
        for middle in self._middles(radius, radius, at):
            if not self._is_free(around(middle, radius, radius), self._words_and_faces()):
                continue
            cover = np.zeros(self._picture.shape[:2], np.uint8)
            for outline in outlines(self._random, shape, middle, radius):
                fill(cover, outline, [255])
            # Two shapes of one colour that touch would look like one.
            with_rim = np.asarray(cv2.dilate(cover, np.ones((RIM, RIM), np.uint8)), np.uint8)
            if any((with_rim & other.visible).any() for other in self._shapes if other.colour == colour):
                continue
            left = [np.minimum(other.visible, 255 - cover) for other in self._shapes]
            if any(
                cv2.countNonZero(visible) < MIN_VISIBLE * other.area
                for visible, other in zip(left, self._shapes, strict=True)
            ):
                continue
            for visible, other in zip(left, self._shapes, strict=True):
                other.visible = visible
            self._shapes.append(_Painted(colour, shape, cover, cv2.countNonZero(cover)))
            blend(self._picture, cover, shade(self._random, colour))
            return True
        return False

    def word(self, text: str, font_name: str, size: float, at: tuple[float, float] | None = None) -> bool:
        """Print a word, dark on light or light on dark, sometimes on a plate."""
        letters = font(font_name, max(5, round(size * self._side)))
        left, top, right, bottom = letters.getbbox(text)
        width, height = right - left, bottom - top
        margin = 0.3 * height
        if width + 2 * margin > self._extent[0]:
            return False
        for middle in self._middles(width / 2 + margin, height / 2 + margin, at):
            plate = around(middle, width / 2 + margin, height / 2 + margin)
            if not self._is_free(plate, self._words_and_faces()):
                continue
            x, y = (int(value) for value in np.round(middle - np.array([width, height]) / 2))
            x_min, y_min, x_max, y_max = np.round(plate).astype(int).clip(0).tolist()
            part = self._picture[y_min:y_max, x_min:x_max]
            if self._random.random() < PLATE_SHARE:
                grey = 255 * self._random.uniform(0, 1) ** 0.5
                part[...] = (grey - self._random.uniform(0, 40, 3)).clip(0, 255)
            ink = Image.new("L", (part.shape[1], part.shape[0]))
            ImageDraw.Draw(ink).text((x - x_min - left, y - y_min - top), text, fill=255, font=letters)
            dark, light = self._random.uniform(0, 50, 3), self._random.uniform(215, 255, 3)
            blend(part, np.asarray(ink), dark if part.mean() > 127 else light)
            # Not the font's own box, which counts the space after the last letter.
            self._words.append((text, np.array(ink.getbbox(), np.float32) + np.tile([x_min, y_min], 2)))
            return True
        return False

    def face(
        self,
        size: float,
        at: tuple[float, float] | None = None,
        yaw_pitch: tuple[float, float] | None = None,
    ) -> bool:
        """Draw a face, `size` high, whose head and eyes together look along `yaw_pitch` (radians)."""
        half = size * self._side / 2
        for middle in self._middles(half, half, at):
            if not self._is_free(around(middle, half, half), self._words_and_faces()):
                continue
            if yaw_pitch is None:
                yaw = self._random.uniform(-MAX_YAW, MAX_YAW)
                pitch = self._random.uniform(-MAX_PITCH, MAX_PITCH)
            else:
                yaw, pitch = yaw_pitch
            self._faces.append(FacePainter(self._random, middle, half, yaw, pitch).paint(self._picture))
            return True
        return False

    def scene(self, *, degraded: bool) -> Scene:
        """Return the finished picture with its truth, in the pixels of the picture."""
        width, height = (self._extent // OVERSAMPLING).tolist()
        image = np.asarray(cv2.resize(self._picture, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
        if degraded:
            image = degrade(self._random, image)
        things = []
        for painted in self._shapes:
            mask = cv2.resize(painted.visible, (width, height), interpolation=cv2.INTER_AREA) > 128
            rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            if len(rows):
                box = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], np.float32)
                things.append(Thing(painted.colour, painted.shape, mask, box))
        scale = np.float32(1 / OVERSAMPLING)
        words = [Word(text, box * scale) for text, box in self._words]
        faces = [DrawnFace(face.box * scale, face.landmarks * scale, face.yaw_pitch) for face in self._faces]
        return Scene(image, things, words, faces)

    def _middles(
        self, half_width: float, half_height: float, at: tuple[float, float] | None
    ) -> Iterator[NDArray[np.float64]]:
        """Yield the places to try, in oversampled pixels: the given one, or random ones."""
        if at is not None:
            yield np.array(at) * self._extent
            return
        half = np.array([half_width, half_height])
        if (2 * half > self._extent).any():
            return
        for _ in range(MAX_TRIES):
            yield self._random.uniform(half, self._extent - half)

    def _words_and_faces(self) -> list[NDArray[np.float32]]:
        return [box for _, box in self._words] + [face.box for face in self._faces]

    def _is_free(self, box: NDArray[np.float32], others: list[NDArray[np.float32]]) -> bool:
        return all((box[2:] <= other[:2]).any() or (other[2:] <= box[:2]).any() for other in others)


@dataclass(slots=True, eq=False)
class _Painted:
    """A shape on the picture, in oversampled pixels: what is visible of it, and the area that it covers."""

    colour: str
    shape: str
    visible: Pixels
    area: int
