"""docTR: pages to words. Detection, recognition and layout are in files of their own beside this one.

Agrees with python-doctr's `ocr_predictor` at its defaults; for rotated text, with its
`assume_straight_pages=False` without the orientation classifiers (`disable_page_orientation` and
`disable_crop_orientation`).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gateway.models.doctr_detection import MapThresholds, find_boxes, find_quadrilaterals, remove_padding
from gateway.models.doctr_recognition import (
    DECODERS,
    Decoded,
    Decoder,
    cut_boxes,
    cut_quadrilaterals,
    merge,
    split,
)

Pixels = NDArray[np.uint8]


@dataclass(frozen=True, eq=False, slots=True)
class Places:
    """Where the words of a page are, in parts of its sides (0 to 1).

    points: float64 [n, 4] xyxy, or [n, 4, 2] corners clockwise from the top-left one. scores: float64 [n].
    """

    points: NDArray[np.float64]
    scores: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.points)

    def __getitem__(self, part: slice | NDArray[np.bool_]) -> "Places":
        return Places(self.points[part], self.scores[part])

    def quadrilaterals(self, size: tuple[int, int]) -> NDArray[np.float32]:
        """Corners float32 [n, 4, 2] in pixels of a page of `size` (height, width), from the top-left one."""
        points = self.points
        corners = points if points.ndim == 3 else points[:, [[0, 1], [2, 1], [2, 3], [0, 3]]]
        return (corners * [size[1], size[0]]).astype(np.float32)


@dataclass(frozen=True, eq=False, slots=True)
class Crops:
    """What the recognition network reads of some words.

    pixels: uint8 [n, h, w, 3]. counts: how many of them each word has, left to right; 0 where it has no
    pixels at all. last_overlaps: see `doctr_recognition.split`.
    """

    pixels: Pixels
    counts: tuple[int, ...]
    last_overlaps: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class DoctrSpec:
    """A variant's constants, as the exporter wrote them.

    image_size: side of the detection network's square input. crop_size: (height, width) of the recognition
    network's. vocabulary: its characters in the order of its classes.
    """

    image_size: int
    detection: MapThresholds
    crop_size: tuple[int, int]
    vocabulary: str
    decoder: Decoder

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, str]) -> Self:
        """Reads both models' `parameters`; raises ValueError where one is missing or makes no sense."""
        try:
            height, width = map(int, parameters["crop_size"].split("x"))
            doctr = cls(
                image_size=int(parameters["image_size"]),
                detection=MapThresholds(
                    bin_threshold=float(parameters["bin_threshold"]),
                    box_threshold=float(parameters["box_threshold"]),
                    unclip_ratio=float(parameters["unclip_ratio"]),
                    min_box_size=int(parameters["min_box_size"]),
                ),
                crop_size=(height, width),
                vocabulary=parameters["vocabulary"],
                decoder=DECODERS[parameters["decoder"]],
            )
        except KeyError as error:
            raise ValueError(f"its parameters lack {error}, or it is none that visiongate knows") from error
        if min(doctr.image_size, *doctr.crop_size) < 1:
            raise ValueError("its image_size and crop_size must be positive")
        if not doctr.vocabulary:
            raise ValueError("its vocabulary is empty")
        return doctr

    @property
    def input_size(self) -> int:
        return self.image_size

    def preprocess(self, image: Pixels) -> Pixels:
        """uint8 [H, W, 3] to the detection network's [S, S, 3]: the image in the middle, black around it."""
        return fit(image, (self.image_size, self.image_size), centred=True)

    def find_words(
        self,
        probability: NDArray[np.float32],
        size: tuple[int, int],
        detection: MapThresholds,
        *,
        rotated: bool,
    ) -> Places:
        """Words of a page of `size` (height, width), in no particular order.

        probability: float32 [S, S], the detection network's answer.
        """
        if rotated:
            points, scores = find_quadrilaterals(probability, detection)
        else:
            boxes, scores = find_boxes(probability, detection)
            points = boxes.reshape(-1, 2, 2)
        unpadded = remove_padding(points, size)
        return Places(unpadded if rotated else unpadded.reshape(-1, 4), scores)

    def cut(self, image: Pixels, places: Places) -> Crops:
        """Crops of words out of uint8 [H, W, 3]."""
        cut = cut_quadrilaterals if places.points.ndim == 3 else cut_boxes
        pixels: list[Pixels] = []
        counts, overlaps = [], []
        for crop in cut(image, places.points):
            pieces, last_overlap = split(crop) if crop.size else ([], 0.0)
            pixels += [fit(piece, self.crop_size, centred=False) for piece in pieces]
            counts.append(len(pieces))
            overlaps.append(last_overlap)
        return Crops(
            np.stack(pixels) if pixels else np.zeros((0, *self.crop_size, 3), np.uint8),
            tuple(counts),
            tuple(overlaps),
        )

    def read(self, crops: Crops, logits: Sequence[NDArray[np.float32]]) -> list[Decoded | None]:
        """What each word says, None where it has no pixels.

        logits: float32 [., L, V + 1], in as many parts as the crops were sent in.
        """
        pieces = iter([piece for part in logits for piece in self.decoder(part, self.vocabulary)])
        words: list[Decoded | None] = []
        for count, overlap in zip(crops.counts, crops.last_overlaps, strict=True):
            parts = [next(pieces) for _ in range(count)]
            words.append(merge(parts, overlap) if parts else None)
        return words


def fit(image: Pixels, size: tuple[int, int], *, centred: bool) -> Pixels:
    """Resize uint8 [H, W, 3] to fit into `size` (height, width), and pad with black.

    The image is in the middle, or else at the top-left. Agrees with docTR's `Resize` with
    `preserve_aspect_ratio=True` to one grey level in a few of 100,000 values.
    """
    height, width = size
    ratio = image.shape[0] / image.shape[1]
    if ratio > height / width:
        inner = height, max(int(height / ratio), 1)
    elif ratio < height / width:
        inner = max(int(width * ratio), 1), width
    else:
        inner = size
    resized = _resize(image, inner)
    if inner == size:
        return resized
    top, left = ((math.ceil((size[axis] - inner[axis]) / 2) if centred else 0) for axis in (0, 1))
    canvas = np.zeros((*size, 3), np.uint8)
    canvas[top : top + inner[0], left : left + inner[1]] = resized
    return canvas


def _resize(image: Pixels, size: tuple[int, int]) -> Pixels:
    """Bilinear with antialiasing, as torch does it.

    Pillow rounds 8-bit images twice, once a direction, which changes every seventh value by one; its
    floating-point images it does not round.
    """
    if image.shape[:2] == size:
        return image
    resized = np.empty((*size, 3), np.uint8)
    for channel in range(3):
        grey = Image.fromarray(image[:, :, channel]).convert("F")
        resized[:, :, channel] = np.rint(
            np.asarray(grey.resize((size[1], size[0]), Image.Resampling.BILINEAR))
        )
    return resized
