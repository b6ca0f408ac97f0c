"""Drawn scenes with exact truth: coloured shapes, printed words, faces that look somewhere.

They teach the demo models and test them. Everything follows from the seed; training takes seeds below
FIRST_UNSEEN_SEED, tests and figures those from there on.
"""

import colorsys
import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

FIRST_UNSEEN_SEED = 1_000_000_000

# Hue in degrees, saturation and brightness.
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

# Pillow's own font is Aileron Regular. The others come with matplotlib.
PILLOW_FONT = "Aileron"
FONTS = {
    PILLOW_FONT: None,
    "DejaVu Sans": "DejaVuSans.ttf",
    "DejaVu Sans Bold": "DejaVuSans-Bold.ttf",
    "DejaVu Sans Mono": "DejaVuSansMono.ttf",
    "DejaVu Serif": "DejaVuSerif.ttf",
    "STIX General": "STIXGeneral.ttf",
    "STIX General Bold": "STIXGeneralBol.ttf",
}
# Of syllables. What is there twice is twice as likely.
ONSETS = [*"bcdfghjklmnprstvwzqxy", "st", "tr", "pl", "br", "ch", "sh", "gr", "fl", "qu", "th"]
VOWELS = [*"aeiouyaeio", "ee", "oo", "ai", "ea", "ou"]
CODAS = [*"nrstlmdxpwfbg", "ck", "ng", "st", "rd", "nt"]
ALPHABET = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
"""All characters of the words."""

# Everything is drawn this many times larger, then averaged.
OVERSAMPLING = 2
# What shapes leave of one another, and the most tries to find a place for something.
LEAST_VISIBLE, TRIES = 0.6, 30
# In oversampled pixels, what is kept free around a shape of the same colour: twice half of it.
RIM = 4 * OVERSAMPLING + 1
# Of words, that lie on a plate of one colour.
PLATE_SHARE = 0.4
# How far faces look aside and up or down, in radians.
MAX_YAW, MAX_PITCH = math.radians(40), math.radians(25)

Pixels = NDArray[np.uint8]


@dataclass(frozen=True, slots=True, eq=False)
class Thing:
    """A coloured shape: what is visible of it, bool [H,W], and that part's box float32 [4] xyxy."""

    colour: str
    shape: str
    mask: NDArray[np.bool_]
    box: NDArray[np.float32]

    @property
    def phrase(self) -> str:
        """Its name, one of PHRASES."""
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
    YuNet's. yaw_pitch: float32 [2], radians, in L2CS-Net's sense: looking to the picture's left and upwards
    is positive.
    """

    box: NDArray[np.float32]
    landmarks: NDArray[np.float32]
    yaw_pitch: NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """A picture, RGB uint8 [H,W,3], and all that is on it."""

    image: Pixels
    things: list[Thing] = field(default_factory=list)
    words: list[Word] = field(default_factory=list)
    faces: list[DrawnFace] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Plan:
    """How many of what, each (least, most), and how large, as shares of the picture's shorter side."""

    shapes: tuple[int, int] = (1, 6)
    words: tuple[int, int] = (0, 3)
    faces: tuple[int, int] = (0, 1)
    shape_size: tuple[float, float] = (0.16, 0.42)
    font_size: tuple[float, float] = (0.06, 0.11)
    face_size: tuple[float, float] = (0.26, 0.6)
    fonts: tuple[str, ...] = tuple(FONTS)
    degraded: bool = True
    """Blurred, noisy, with the traces of JPEG compression."""


def draw(seed: int, width: int, height: int, plan: Plan = Plan()) -> Scene:
    """Draw the scene of a seed: the same seed, size and plan make the same scene."""
    random = np.random.default_rng(seed)
    painter = Painter(random, width, height)
    for _ in range(random.integers(plan.faces[0], plan.faces[1] + 1)):
        painter.face(random.uniform(*plan.face_size))
    for _ in range(random.integers(plan.words[0], plan.words[1] + 1)):
        family = _one_of(random, plan.fonts)
        painter.word(word(random), family, random.uniform(*plan.font_size))
    for _ in range(random.integers(plan.shapes[0], plan.shapes[1] + 1)):
        colour, shape = _one_of(random, list(COLOURS)), _one_of(random, SHAPES)
        painter.shape(colour, shape, random.uniform(*plan.shape_size))
    return painter.scene(degraded=plan.degraded)


def word(random: np.random.Generator) -> str:
    """A number, or a word that can be spoken, in one of three cases."""
    if random.random() < 0.2:
        return str(random.integers(10 ** random.integers(1, 6)))
    text = ""
    for _ in range(random.integers(1, 4)):
        text += _one_of(random, ONSETS) + _one_of(random, VOWELS)
        if random.random() < 0.5:
            text += _one_of(random, CODAS)
    case = random.random()
    if case < 0.5:
        return text
    return text.capitalize() if case < 0.75 else text.upper()


def _one_of(random: np.random.Generator, choices: Sequence[str]) -> str:
    return choices[int(random.integers(len(choices)))]


@cache
def font(name: str, size: int) -> ImageFont.FreeTypeFont:
    """One of FONTS, `size` pixels high."""
    file = FONTS[name]
    if file is None:
        default: Any = ImageFont.load_default(size)
        return default  # type: ignore[no-any-return]
    package = find_spec("matplotlib")
    if package is None or package.origin is None:
        raise ModuleNotFoundError(f"The font {name} comes with matplotlib, which is not installed.")
    return ImageFont.truetype(Path(package.origin).parent / "mpl-data/fonts/ttf" / file, size)


class Painter:
    """A picture in the making, `width` x `height` pixels; what comes later covers what was there.

    Sizes are shares of the shorter side, places are shares (x, y) of the picture. What finds no free place is
    left out: the methods return whether it was drawn.
    """

    def __init__(self, random: np.random.Generator, width: int, height: int) -> None:
        self._random = random
        self._extent = np.array([width, height]) * OVERSAMPLING
        self._side = int(self._extent.min())
        background = _background(random, width, height)
        self._picture = background.repeat(OVERSAMPLING, 0).repeat(OVERSAMPLING, 1)
        self._shapes: list[_Painted] = []
        self._words: list[tuple[str, NDArray[np.float32]]] = []
        self._faces: list[DrawnFace] = []

    def shape(self, colour: str, shape: str, size: float, at: tuple[float, float] | None = None) -> bool:
        """Draw a shape that leaves LEAST_VISIBLE of all others."""
        radius = size * self._side / 2
        for middle in self._middles(radius, radius, at):
            if not self._is_free(_around(middle, radius, radius), self._words_and_faces()):
                continue
            cover = np.zeros(self._picture.shape[:2], np.uint8)
            for outline in _outlines(self._random, shape, middle, radius):
                cv2.fillPoly(cover, [np.round(outline * 16).astype(np.int32)], 255, cv2.LINE_AA, shift=4)
            # Two of one colour that touch would look like one shape.
            around = np.asarray(cv2.dilate(cover, np.ones((RIM, RIM), np.uint8)), np.uint8)
            if any((around & other.visible).any() for other in self._shapes if other.colour == colour):
                continue
            left = [np.minimum(other.visible, 255 - cover) for other in self._shapes]
            if any(
                cv2.countNonZero(visible) < LEAST_VISIBLE * other.area
                for visible, other in zip(left, self._shapes, strict=True)
            ):
                continue
            for visible, other in zip(left, self._shapes, strict=True):
                other.visible = visible
            self._shapes.append(_Painted(colour, shape, cover, cv2.countNonZero(cover)))
            _blend(self._picture, cover, _shade(self._random, colour))
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
            around = _around(middle, width / 2 + margin, height / 2 + margin)
            if not self._is_free(around, self._words_and_faces()):
                continue
            x, y = (int(value) for value in np.round(middle - np.array([width, height]) / 2))
            x_min, y_min, x_max, y_max = np.round(around).astype(int).clip(0).tolist()
            part = self._picture[y_min:y_max, x_min:x_max]
            if self._random.random() < PLATE_SHARE:
                grey = 255 * self._random.uniform(0, 1) ** 0.5
                part[...] = (grey - self._random.uniform(0, 40, 3)).clip(0, 255)
            ink = Image.new("L", (part.shape[1], part.shape[0]))
            ImageDraw.Draw(ink).text((x - x_min - left, y - y_min - top), text, fill=255, font=letters)
            dark, light = self._random.uniform(0, 50, 3), self._random.uniform(215, 255, 3)
            _blend(part, np.asarray(ink), dark if part.mean() > 127 else light)
            # The font's own box counts the space after the last letter.
            self._words.append((text, np.array(ink.getbbox(), np.float32) + np.tile([x_min, y_min], 2)))
            return True
        return False

    def face(
        self,
        size: float,
        at: tuple[float, float] | None = None,
        yaw_pitch: tuple[float, float] | None = None,
    ) -> bool:
        """Draw a face, `size` high, that looks along `yaw_pitch` (radians), with head and eyes."""
        half = size * self._side / 2
        for middle in self._middles(half, half, at):
            if not self._is_free(_around(middle, half, half), self._words_and_faces()):
                continue
            if yaw_pitch is None:
                yaw = self._random.uniform(-MAX_YAW, MAX_YAW)
                pitch = self._random.uniform(-MAX_PITCH, MAX_PITCH)
            else:
                yaw, pitch = yaw_pitch
            self._faces.append(_Face(self._random, middle, half, yaw, pitch).paint(self._picture))
            return True
        return False

    def scene(self, *, degraded: bool) -> Scene:
        """The finished picture with its truth, in its own pixels."""
        width, height = (self._extent // OVERSAMPLING).tolist()
        image = np.asarray(cv2.resize(self._picture, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
        if degraded:
            image = _degrade(self._random, image)
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
        if at is not None:
            yield np.array(at) * self._extent
            return
        half = np.array([half_width, half_height])
        if (2 * half > self._extent).any():
            return
        for _ in range(TRIES):
            yield self._random.uniform(half, self._extent - half)

    def _words_and_faces(self) -> list[NDArray[np.float32]]:
        return [box for _, box in self._words] + [face.box for face in self._faces]

    def _is_free(self, box: NDArray[np.float32], others: list[NDArray[np.float32]]) -> bool:
        return all((box[2:] <= other[:2]).any() or (other[2:] <= box[:2]).any() for other in others)


@dataclass(slots=True, eq=False)
class _Painted:
    colour: str
    shape: str
    visible: Pixels
    area: int


def _blend(picture: Pixels, cover: Pixels, colour: NDArray[np.float64]) -> None:
    """Lay a colour over the picture, as thick as `cover` says, from 0 to 255."""
    x, y, width, height = cv2.boundingRect(cover)
    if not width:
        return
    part = picture[y : y + height, x : x + width]
    thick = cover[y : y + height, x : x + width, None].astype(np.float32) / 255
    part[...] = (part + thick * (np.asarray(colour, np.float32) - part) + 0.5).astype(np.uint8)


def _around(middle: NDArray[np.float64], half_width: float, half_height: float) -> NDArray[np.float32]:
    half = np.array([half_width, half_height])
    return np.concatenate([middle - half, middle + half]).astype(np.float32)


def _shade(random: np.random.Generator, colour: str) -> NDArray[np.float64]:
    hue, saturation, value = COLOURS[colour]
    jittered = colorsys.hsv_to_rgb(
        ((hue + random.uniform(-6, 6)) / 360) % 1,
        saturation * random.uniform(0.85, 1),
        min(1, value * random.uniform(0.88, 1.08)),
    )
    return np.array(jittered) * 255


def _outlines(
    random: np.random.Generator, shape: str, middle: NDArray[np.float64], radius: float
) -> list[NDArray[np.float64]]:
    """Polygons [N,2] whose union is the shape, within the radius and turned a little."""
    turn = random.uniform(-0.3, 0.3)
    if shape == "circle":
        angles = np.linspace(0, 2 * math.pi, 64, endpoint=False)
        polygons = [np.stack([np.cos(angles), np.sin(angles)], 1)]
    elif shape == "square":
        polygons = [np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * 0.74]
    elif shape == "triangle":
        angles = np.deg2rad([-90, 30, 150])
        polygons = [np.stack([np.cos(angles), np.sin(angles)], 1)]
    elif shape == "star":
        angles = np.deg2rad(np.arange(10) * 36 - 90)
        lengths = np.where(np.arange(10) % 2, 0.42, 1.0)[:, None]
        polygons = [np.stack([np.cos(angles), np.sin(angles)], 1) * lengths]
    else:
        arm = np.array([[-1, -0.32], [1, -0.32], [1, 0.32], [-1, 0.32]]) * 0.93
        polygons = [arm, arm[:, ::-1]]
    rotation = np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
    return [polygon @ rotation.T * radius + middle for polygon in polygons]


def _background(random: np.random.Generator, width: int, height: int) -> Pixels:
    """A pale or dark, hardly coloured surface: a gradient, blotches, stripes, tiles or grain."""
    base = random.uniform(30, 235) + random.uniform(-14, 14, 3)
    other = base + random.uniform(-45, 45) + random.uniform(-10, 10, 3)
    kind = random.integers(5)
    if kind == 0:
        corners = random.uniform(0, 1, (2, 2))
        share = cv2.resize(corners, (width, height), interpolation=cv2.INTER_LINEAR)
    elif kind == 1:
        cells = int(random.integers(3, 12))
        share = cv2.resize(
            random.uniform(0, 1, (cells, cells)), (width, height), interpolation=cv2.INTER_CUBIC
        )
    else:
        angle, period = random.uniform(0, math.pi), random.uniform(0.04, 0.3) * min(width, height)
        y, x = np.mgrid[:height, :width].astype(np.float32)
        along = (x * math.cos(angle) + y * math.sin(angle)) / period
        across = (y * math.cos(angle) - x * math.sin(angle)) / period
        if kind == 2:
            share = 0.5 + 0.5 * np.sin(2 * math.pi * along)
        elif kind == 3:
            share = ((np.floor(along) + np.floor(across)) % 2).astype(np.float32)
        else:
            share = random.random((height // 2 + 1, width // 2 + 1), dtype=np.float32)
            share = cv2.resize(share, (width, height), interpolation=cv2.INTER_LINEAR)
    picture = base.astype(np.float32) + share[..., None].astype(np.float32) * (other - base).astype(
        np.float32
    )
    return np.asarray(picture.clip(0, 255), np.uint8)


def _degrade(random: np.random.Generator, image: Pixels) -> Pixels:
    """What lenses, sensors and compression leave."""
    side = min(image.shape[:2])
    blur = random.uniform(0, 0.004) * side
    if blur > 0.3:
        image = np.asarray(cv2.GaussianBlur(image, (0, 0), blur), np.uint8)
    noise = random.standard_normal(image.shape, np.float32) * np.float32(random.uniform(0, 9))
    image = (image + noise).clip(0, 255).astype(np.uint8)
    quality = int(random.integers(45, 96))
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


class _Face:
    """One drawn face: a ball whose features turn with the head, and irises that turn in the eyes."""

    def __init__(
        self, random: np.random.Generator, middle: NDArray[np.float64], half: float, yaw: float, pitch: float
    ) -> None:
        self._random, self._middle, self._half = random, middle, half
        self._gaze = np.array([yaw, pitch])
        # The head goes some of the way, the eyes the rest.
        self._head = self._gaze * random.uniform(0.2, 0.8) + random.normal(0, 0.04, 2)
        self._eyes = self._gaze - self._head
        self._radii = half * np.array([random.uniform(0.68, 0.8), 0.94])

    def paint(self, picture: Pixels) -> DrawnFace:
        """Draw it and say what it is."""
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
        cv2.fillPoly(picture, [np.round(lips * 16).astype(np.int32)], red.tolist(), cv2.LINE_AA, shift=4)
        box = _around(self._middle, self._radii[0] * 1.05, unit)
        landmarks = np.array([*eyes, nose, *mouth], np.float32)
        return DrawnFace(box, landmarks, self._gaze.astype(np.float32))

    def _place(self, x: float, y: float, out: float = 1.0) -> NDArray[np.float64]:
        """Where a feature of the ball's front, at (x, y) of its radii, is seen once the head has turned."""
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
        x_min, y_min = np.floor(middle - radii - 2).astype(int).clip(0).tolist()
        x_max, y_max = np.ceil(middle + radii + 2).astype(int).clip(0).tolist()
        part = picture[y_min:y_max, x_min:x_max]
        corner = np.array([x_min, y_min])
        cover = _ellipse_cover(part.shape[:2], middle - corner, radii)
        if within is not None:
            cover = np.minimum(cover, _ellipse_cover(part.shape[:2], within[0] - corner, within[1]))
        _blend(part, cover, colour.clip(0, 255))


def _ellipse_cover(shape: tuple[int, ...], middle: NDArray[np.float64], radii: NDArray[np.float64]) -> Pixels:
    cover = np.zeros(shape, np.uint8)
    sixteenths = [tuple(int(value) for value in np.round(pair * 16)) for pair in (middle, radii)]
    cv2.ellipse(cover, sixteenths[0], sixteenths[1], 0, 0, 360, 255, -1, cv2.LINE_AA, shift=4)
    return cover


def _point(place: NDArray[np.float64]) -> tuple[int, int]:
    x, y = np.round(place).astype(int).tolist()
    return x, y
