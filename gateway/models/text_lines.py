"""Text models that find whole lines at any angle, and read each at its own width: PP-OCR's kind.

Agrees with PaddleOCR's pipeline, as the package `rapidocr` has it, in what the networks see: stretched pages,
lines cut out of their rectangles and padded with grey, CTC. Where the two differ, on purpose:

- Text pixels become rectangles as in docTR (`doctr_detection.find_quadrilaterals`).
- A line's width depends on itself alone, and not on the other lines of its batch. Recognition networks of
  this kind see the whole line, so that padding is part of the answer.
- A line is warped to the network's height at once. Two resizings in a row wash out what is thin, such as
  underscores.
- A line that is too wide for memory is read in pieces, which are joined step by step.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Self

import cv2
import numpy as np
from numpy.typing import NDArray

from gateway.models.doctr_detection import MapThresholds, find_quadrilaterals
from gateway.models.doctr_layout import arrange
from gateway.models.parameters import ParameterReader
from gateway.models.text import MAX_WARP_SIDE, Crops, Pixels, Places, Span, Steps, first_steps, warp

# The sides of the detection network's input are multiples of this.
SIDE_FACTOR = 32
# A line is on its side if it is this many times as high as it is wide.
ON_SIDE_RATIO = 1.5
# Lines less high, in pixels of the image, cannot be read. It also bounds how far a line is enlarged.
MIN_LINE_HEIGHT = 4
# How much of a piece of a very wide line the next one repeats, as a multiple of the height.
PIECE_OVERLAP = 8


@dataclass(frozen=True, slots=True)
class LineSpec:
    """The constants of one variant: a `TextSpec` whose places are lines.

    min_side, max_side: the detection network's input has at least and at most this side, in pixels; max_side
    counts more. crop_height: height of the recognition network's input, in pixels. crop_widths: the widths,
    rising, to which lines are padded. padding: the grey level that does it.
    """

    min_side: int
    max_side: int
    thresholds: MapThresholds
    crop_height: int
    crop_widths: tuple[int, ...]
    padding: int
    vocabulary: str
    min_confidence: float
    by_columns: bool = True

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, str], folder: Path) -> Self:
        """Read the parameters of both networks; raise ValueError that names what is missing or wrong."""
        reader = ParameterReader(parameters)
        spec = cls(
            min_side=reader.multiple("min_side", SIDE_FACTOR),
            max_side=reader.multiple("max_side", SIDE_FACTOR),
            thresholds=MapThresholds.from_parameters(reader),
            crop_height=reader.whole_number("crop_height"),
            crop_widths=reader.rising_numbers("crop_widths"),
            padding=reader.whole_number("padding", 0, 255),
            vocabulary=reader.text("vocabulary"),
            min_confidence=reader.fraction("min_confidence"),
        )
        if spec.crop_widths[-1] < 2 * PIECE_OVERLAP * spec.crop_height:
            raise reader.wrong("crop_widths", f"widths up to {2 * PIECE_OVERLAP * spec.crop_height} or more")
        return spec

    @property
    def input_size(self) -> int:
        """Longest side, in pixels, that images are resized to."""
        return self.max_side

    def preprocess(self, image: Pixels) -> Pixels:
        """Stretch uint8 [H, W, 3] to the detection network's input, whose sides are multiples of 32."""
        sides = image.shape[:2]
        scale = min(max(1.0, self.min_side / min(sides)), self.max_side / max(sides))
        height, width = (max(round(side * scale / SIDE_FACTOR), 1) * SIDE_FACTOR for side in sides)
        return np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)

    def find(
        self,
        probability: NDArray[np.float32],
        size: tuple[int, int],
        thresholds: MapThresholds,
        *,
        rotated: bool,
    ) -> Places:
        """Find lines: see `TextSpec`. They are at any angle, also if words are wanted upright.

        An upright box around a tilted line has its neighbours in it, too.
        """
        points, scores = find_quadrilaterals(probability, thresholds)
        places = Places(points, scores, np.zeros(len(points), np.bool_))
        widths, heights = _sides(places, size)
        readable = np.minimum(widths, heights) >= MIN_LINE_HEIGHT
        return Places(points, scores, heights >= ON_SIDE_RATIO * widths)[readable]

    def arrange(
        self, places: Places, size: tuple[int, int], *, lines: bool, blocks: bool, by_columns: bool
    ) -> list[list[list[int]]]:
        """Return blocks of lines of indices of places: see `TextSpec`. Places close side by side join."""
        return arrange(
            places.points, size, lines=lines, blocks=blocks, by_columns=by_columns, places_are_lines=True
        )

    def batches(self, places: Places, size: tuple[int, int], limit: int) -> list[NDArray[np.intp]]:
        """Return lines of one crop size each: see `TextSpec`."""
        widths = np.array([self._padded(width) for width in self._line_widths(places, size)], np.intp)
        batches = []
        for width, group in groupby(np.argsort(widths, kind="stable"), key=lambda index: widths[index]):
            indices, step = np.array(list(group)), self._limit(int(width), limit)
            batches += [indices[start : start + step] for start in range(0, len(indices), step)]
        return batches

    def crop_limit(self, crops: Crops, limit: int) -> int:
        """Return how many of the crops have as many pixels as `limit` of the smallest size."""
        return self._limit(crops.pixels.shape[2], limit)

    def batch_bytes(self, limit: int) -> int:
        """Return the bytes of so many crops of the smallest size, or of a crop of the largest."""
        return 3 * self.crop_height * max(limit * self.crop_widths[0], self.crop_widths[-1])

    def cut(self, image: Pixels, places: Places) -> Crops:
        """Cut lines of one crop size out of uint8 [H, W, 3], the very wide ones in pieces."""
        size = image.shape[0], image.shape[1]
        widths = self._line_widths(places, size)
        pixels: list[Pixels] = []
        counts = []
        for corners, width in zip(places.quadrilaterals(size), widths, strict=True):
            pieces = self._pieces(self._line(image, corners, width))
            pixels += pieces
            counts.append(len(pieces))
        return Crops(np.stack(pixels), tuple(counts), tuple(map(float, widths)))

    def read(self, crops: Crops, steps: Sequence[Steps], min_confidence: float) -> list[list[Span]]:
        """Return the words of each line: see `TextSpec`. Spaces part them."""
        classes = np.concatenate([batch.classes for batch in steps])
        probabilities = np.concatenate([batch.probabilities for batch in steps])
        pixels_per_step = crops.pixels.shape[2] / classes.shape[1]
        lines = []
        start = 0
        for count, width in zip(crops.counts, crops.extents, strict=True):
            pieces = slice(start, start + count)
            start += count
            line = self._join(classes[pieces], probabilities[pieces], pixels_per_step)
            lines.append(self._words(line, pixels_per_step / width, min_confidence))
        return lines

    def _line_widths(self, places: Places, size: tuple[int, int]) -> list[int]:
        """Return how wide lines are at the height of the crops, in pixels."""
        widths, heights = _sides(places, size)
        lengths = np.where(places.on_side, heights, widths)
        thicknesses = np.where(places.on_side, widths, heights)
        enlarged = np.ceil(lengths * self.crop_height / np.maximum(thicknesses, 1))
        return [int(width) for width in np.clip(enlarged, 1, MAX_WARP_SIDE)]

    def _padded(self, width: int) -> int:
        return next((padded for padded in self.crop_widths if padded >= width), self.crop_widths[-1])

    def _limit(self, width: int, limit: int) -> int:
        return max(1, limit * self.crop_widths[0] // width)

    def _line(self, image: Pixels, corners: NDArray[np.float32], width: int) -> Pixels:
        """Cut a line out of an image: uint8 [crop_height, width, 3]."""
        thickness = np.linalg.norm(corners[3] - corners[0])
        # Warping takes single pixels. A large line is warped to a multiple of its size first.
        factor = max(1, min(int(thickness / self.crop_height), MAX_WARP_SIDE // width))
        size = width * factor, self.crop_height * factor
        target = [[0, 0], [size[0], 0], [size[0], size[1]], [0, size[1]]]
        line = warp(image, corners, target, size, interpolation=cv2.INTER_CUBIC, border=cv2.BORDER_REPLICATE)
        if factor == 1:
            return line
        small = cv2.resize(line, (width, self.crop_height), interpolation=cv2.INTER_AREA)
        return np.asarray(small, np.uint8)

    def _pieces(self, line: Pixels) -> list[Pixels]:
        """Pad a line [h, w, 3] to the width of the crops. If it is too wide, cut it into equal pieces."""
        width = line.shape[1]
        padded = self._padded(width)
        step = self._piece_step(padded)
        starts = range(0, width - padded + step, step) if width > padded else [0]
        pieces = []
        for start in starts:
            piece = np.full((self.crop_height, padded, 3), self.padding, np.uint8)
            part = line[:, start : start + padded]
            piece[:, : part.shape[1]] = part
            pieces.append(piece)
        return pieces

    def _piece_step(self, width: int) -> int:
        """Return how far apart pieces begin, in pixels. It is a whole number of the network's steps."""
        return width - PIECE_OVERLAP * self.crop_height

    def _join(
        self, classes: NDArray[np.int32], probabilities: NDArray[np.float32], pixels_per_step: float
    ) -> Steps:
        """Join the steps [n, L] of a line's pieces to those of the line [L']."""
        blank = len(self.vocabulary)
        count, length = classes.shape
        begins = round(self._piece_step(round(length * pixels_per_step)) / pixels_per_step)
        overlap = length - begins
        # The first step of each piece that counts, and the end of those that do.
        firsts, ends = [0], []
        for left, right in zip(classes[:-1, begins:], classes[1:, :overlap], strict=True):
            # Change over where both pieces see no character, as close to the middle as can be.
            free = np.flatnonzero((left == blank) & (right == blank))
            change = int(free[np.abs(free - overlap // 2).argmin()]) if len(free) else overlap // 2
            ends.append(begins + change)
            firsts.append(change)
        ends.append(length)
        kept = np.zeros((count, length), np.bool_)
        for row, first, end in zip(kept, firsts, ends, strict=True):
            row[first:end] = True
        return Steps(classes[kept], probabilities[kept])

    def _words(self, line: Steps, fraction_per_step: float, min_confidence: float) -> list[Span]:
        """Return the words of a line, or none if it is not as certain as that.

        fraction_per_step: how much of the line's width a step is. A confidence is the characters' mean.
        """
        places = np.flatnonzero(first_steps(line.classes, len(self.vocabulary)))
        if not len(places):
            return []
        characters = [self.vocabulary[index] for index in line.classes[places]]
        confidences = np.minimum(line.probabilities[places], 1.0)
        if confidences.mean() < min_confidence:
            return []
        centres = (places + 0.5) * fraction_per_step
        # CTC writes a character at its middle: half a character more belongs to a word at each end.
        half = float(np.ptp(centres)) / (len(centres) - 1) / 2 if len(centres) > 1 else 0.5
        groups = [
            list(group)
            for is_space, group in groupby(range(len(characters)), lambda index: characters[index].isspace())
            if not is_space
        ]
        if not groups:
            return []
        starts = np.array([centres[group[0]] for group in groups]) - half
        ends = np.array([centres[group[-1]] for group in groups]) + half
        # Each of two words gets a quarter of the white between them. If they overlap, each gives half of it.
        white = starts[1:] - ends[:-1]
        share = np.where(white > 0, white / 4, white / 2)
        starts[1:] -= share
        ends[:-1] += share
        # The line ends where its text does, but for about a character. It may have been found to be longer.
        starts[0] = starts[0] if starts[0] > 2 * half else 0
        ends[-1] = ends[-1] if ends[-1] < 1 - 2 * half else 1
        return [
            Span("".join(characters[i] for i in group), float(confidences[group].mean()), start, end)
            for group, start, end in zip(groups, starts.tolist(), ends.tolist(), strict=True)
        ]


def _sides(places: Places, size: tuple[int, int]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the widths and heights [n] of places whose corners are known, in pixels."""
    corners = places.points * [size[1], size[0]]
    edges = np.linalg.norm(corners - np.roll(corners, -1, axis=1), axis=-1)
    return np.maximum(edges[:, 0], edges[:, 2]), np.maximum(edges[:, 1], edges[:, 3])
