"""Segment Anything 1 and 2: images and prompts to the encoder's frame, low-resolution logits to masks.

Agrees with transformers' SamImageProcessorPil and SamProcessor, and for SAM 2 with Sam2Processor. One
exception: Sam2ImageProcessor resizes images with torchvision, this module with Pillow, at most a grey level
away.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import cv2
import numpy as np
from numpy.typing import NDArray

from gateway.models.masks import PlacedMask
from gateway.models.parameters import ParameterReader
from gateway.models.resizing import place, resize
from gateway.models.upsampling import Upsampled

# Labels of points, as the prompt encoder knows them.
FOREGROUND, BACKGROUND, PADDING, BOX_MIN, BOX_MAX = 1, 0, -1, 2, 3

_NO_POINTS, _NO_LABELS = np.zeros((0, 2), dtype=np.float32), np.zeros(0, dtype=np.int32)


@dataclass(frozen=True, slots=True, eq=False)
class Prompt:
    """What to segment: points, a box, a previous mask, or any combination of them.

    points: float [n,2] of (x, y), in pixels of the image.
    labels: int [n], 1 for a point on the object, 0 for one on the background.
    box: float32 [4] xyxy in pixels of the image, or None.
    mask_logits: float32 [m,m], low-resolution logits of an earlier answer, or None.
    """

    points: NDArray[np.floating] = field(default_factory=lambda: np.zeros((0, 2), dtype=np.float32))
    labels: NDArray[np.integer] = field(default_factory=lambda: np.zeros(0, dtype=np.int32))
    box: NDArray[np.float32] | None = None
    mask_logits: NDArray[np.float32] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class PromptGroup:
    """Prompts that go through the decoder together: its inputs without the batch axis.

    indices: index of each of the P prompts in the list that they came from.
    points: float32 [P,N,2], (x, y) in the encoder's frame. labels: int32 [P,N].
    mask_input: float32 [M,m,m]. has_mask_input: bool [M]. M is P, or 1 (zeros) if no prompt has a mask.
    """

    indices: tuple[int, ...]
    points: NDArray[np.float32]
    labels: NDArray[np.int32]
    mask_input: NDArray[np.float32]
    has_mask_input: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class SamSpec:
    """The constants of one variant.

    image_size, mask_size: sides of the encoder's square input and of the decoder's square logits, in pixels.
    stretches: images are stretched to the square (SAM 2), instead of scaled by their longer side and padded
    (SAM 1).
    pads_boxes: prompts with a box end in a padding point too, as all other prompts do.
    """

    image_size: int
    mask_size: int
    stretches: bool = False
    pads_boxes: bool = False

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, str], folder: Path) -> Self:
        """Read `image_size` and `mask_size`, and the optional `fit` and `padding_point`.

        `fit`: longest (the default) or stretch. `padding_point`: without_box (the default) or always. Raises
        ValueError that names the parameter that is missing or wrong.
        """
        reader = ParameterReader(parameters)
        image_size, mask_size = reader.whole_number("image_size"), reader.whole_number("mask_size")
        if image_size % mask_size:
            raise reader.wrong("image_size", f"a multiple of mask_size, {mask_size}")
        return cls(
            image_size,
            mask_size,
            stretches=reader.one_of("fit", ("longest", "stretch"), "longest") == "stretch",
            pads_boxes=reader.one_of("padding_point", ("without_box", "always"), "without_box") == "always",
        )

    @property
    def input_size(self) -> int:
        """Longest side, in pixels, that images are resized to."""
        return self.image_size

    @property
    def logits_bytes(self) -> int:
        """Bytes of the low-resolution logits of one mask."""
        return 4 * self.mask_size**2

    @property
    def view_bytes(self) -> int:
        """Most bytes of an image's embedding: SAM 2 has finer features beside it."""
        return 4 * self.mask_size**2 * (64 if self.stretches else 16)

    def preprocess(self, image: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], tuple[int, int]]:
        """Scale RGB uint8 [H,W,3] to `valid_size`, and put it at the top-left of the encoder's square.

        Returns the square uint8 [S,S,3], zero elsewhere, and the (height, width) that the image covers.
        """
        valid_size = self.valid_size((image.shape[0], image.shape[1]))
        return place(resize(image, valid_size), (self.image_size, self.image_size)), valid_size

    def valid_size(self, original_size: tuple[int, int]) -> tuple[int, int]:
        """Return the size in the encoder's frame of an image of `original_size`; both are (height, width)."""
        if self.stretches:
            return self.image_size, self.image_size
        factor = self.image_size / max(original_size)
        # The reference rounds a side of less than half a pixel to 0 and fails. Here it becomes one pixel.
        height, width = (max(1, int(side * factor + 0.5)) for side in original_size)
        return height, width

    def group_prompts(
        self, prompts: Sequence[Prompt], original_size: tuple[int, int], *, max_prompts: int
    ) -> list[PromptGroup]:
        """Group prompts on an image of `original_size` (height, width) into those that share a decoder call.

        The prompts of a group have the same number of points (padding and box corners counted), and either
        all or none have a mask: points cannot be padded to a common number without a change of the answer.
        Groups come in the order of their first prompt and hold at most `max_prompts`. A prompt ends in one
        padding point if it has no box or if `pads_boxes` is set. A prompt of a mask alone has only that
        point. Raises ValueError that names the index of a wrong prompt.
        """
        height, width = original_size
        valid_height, valid_width = self.valid_size(original_size)
        factor = np.array([valid_width / width, valid_height / height])
        for index, prompt in enumerate(prompts):
            _check(prompt, index, self.mask_size)
        sequences = _sequences(prompts, factor, self.pads_boxes)
        indices_by_shape: dict[tuple[int, bool], list[int]] = {}
        for index, (prompt, (_, labels)) in enumerate(zip(prompts, sequences, strict=True)):
            indices_by_shape.setdefault((len(labels), prompt.mask_logits is not None), []).append(index)
        return [
            PromptGroup(
                chunk,
                np.stack([sequences[index][0] for index in chunk]),
                np.stack([sequences[index][1] for index in chunk]),
                *self._mask_inputs([prompts[index].mask_logits for index in chunk]),
            )
            for indices in indices_by_shape.values()
            for chunk in _chunks(indices, max_prompts)
        ]

    def postprocess_mask(
        self,
        low_res_logits: NDArray[np.float32],
        valid_size: tuple[int, int],
        original_size: tuple[int, int],
        *,
        threshold: float = 0.0,
    ) -> PlacedMask:
        """Resize logits float32 [m,m] to the image's size and cut them at `threshold`.

        Sizes are (height, width): `valid_size` as from `preprocess`, `original_size` of the image. Agrees
        with SamProcessor.post_process_masks (bilinear to S, crop, bilinear to the image) and with
        Sam2Processor's (bilinear to the image), except for pixels whose logit is within float32 rounding of
        the threshold.
        """
        logits = self.upsampled(low_res_logits, valid_size, original_size, least=threshold)
        return PlacedMask.empty(original_size) if logits is None else logits.over(threshold)

    def upsampled(
        self,
        low_res_logits: NDArray[np.float32],
        valid_size: tuple[int, int],
        original_size: tuple[int, int],
        *,
        least: float,
    ) -> Upsampled | None:
        """Return logits float32 [m,m] as they are at the image's size, to be cut at thresholds from `least`.

        It is None if none are over it.
        """
        # Interpolation stays between its inputs. Only what may touch a cell over the threshold is looked at.
        over = low_res_logits > np.float32(least)
        rows, columns = (np.flatnonzero(over.any(axis)) for axis in (1, 0))
        if not len(rows):
            return None
        near_rows, near_columns = (_with_margin(cells, self.mask_size) for cells in (rows, columns))
        window = np.ascontiguousarray(
            low_res_logits[near_rows.start : near_rows.stop, near_columns.start : near_columns.stop],
            dtype=np.float32,
        )
        grid_size = (self.mask_size, self.mask_size)
        if not self.stretches:
            ratio, grid_size = self.image_size // self.mask_size, valid_size
            frame = _resize_bilinear(window, (window.shape[0] * ratio, window.shape[1] * ratio))
            in_rows, in_columns = (
                _within_margin(near, self.mask_size, ratio, side)
                for near, side in zip((near_rows, near_columns), valid_size, strict=True)
            )
            if not in_rows or not in_columns:  # all are in the padding
                return None
            top, left = near_rows.start * ratio, near_columns.start * ratio
            window = np.ascontiguousarray(
                frame[
                    in_rows.start - top : in_rows.stop - top, in_columns.start - left : in_columns.stop - left
                ]
            )
            near_rows, near_columns = in_rows, in_columns
        return Upsampled(
            window,
            near_rows,
            near_columns,
            grid_size,
            original_size,
            lambda: self.resize_logits(low_res_logits, valid_size, original_size),
        )

    def resize_logits(
        self, low_res_logits: NDArray[np.float32], valid_size: tuple[int, int], original_size: tuple[int, int]
    ) -> NDArray[np.float32]:
        """Resize logits float32 [m,m] to the image's size, float32 [H,W], as `postprocess_mask` does."""
        if self.stretches:
            return _resize_bilinear(np.ascontiguousarray(low_res_logits, dtype=np.float32), original_size)
        ratio = self.image_size // self.mask_size
        # Only the cells that the valid area touches, and one more for the interpolation at its edge.
        rows, columns = (-(-side // ratio) + 1 for side in valid_size)
        cells = np.ascontiguousarray(low_res_logits[:rows, :columns], dtype=np.float32)
        frame = _resize_bilinear(cells, (cells.shape[0] * ratio, cells.shape[1] * ratio))
        return _resize_bilinear(frame[: valid_size[0], : valid_size[1]], original_size)

    def _mask_inputs(
        self, logits: Sequence[NDArray[np.float32] | None]
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        masks = [mask for mask in logits if mask is not None]
        if not masks:  # one empty mask for all: P of them would be most of the request's bytes
            empty = np.zeros((1, self.mask_size, self.mask_size), dtype=np.float32)
            return empty, np.zeros(1, dtype=np.bool_)
        return np.stack(masks).astype(np.float32), np.ones(len(masks), dtype=np.bool_)


def _sequences(
    prompts: Sequence[Prompt], factor: NDArray[np.float64], pads_boxes: bool
) -> list[tuple[NDArray[np.float32], NDArray[np.int32]]]:
    """Return each prompt's points in the encoder's frame, float32 [n,2], and their labels, int32 [n]."""
    sequences: list[tuple[NDArray[np.float32], NDArray[np.int32]]] = [(_NO_POINTS, _NO_LABELS)] * len(prompts)
    # All of a kind together: one by one, a thousand take longer than some of their masks.
    indices_by_kind: dict[tuple[int, bool], list[int]] = {}
    for index, prompt in enumerate(prompts):
        indices_by_kind.setdefault((len(prompt.points), prompt.box is not None), []).append(index)
    for (_, has_box), indices in indices_by_kind.items():
        # The reference scales in float64 until the end. The padding point is (0, 0) in the encoder's frame.
        points = [np.array([prompts[index].points for index in indices]) * factor]
        labels = [np.array([prompts[index].labels for index in indices], np.int32)]
        count = len(indices)
        if has_box:
            boxes = np.array([prompts[index].box for index in indices])
            points.append(boxes.reshape(count, 2, 2) * factor)
            labels.append(np.tile(np.array([BOX_MIN, BOX_MAX], np.int32), (count, 1)))
        if not has_box or pads_boxes:
            points.append(np.zeros((count, 1, 2)))
            labels.append(np.full((count, 1), PADDING, np.int32))
        joined = np.concatenate(points, 1).astype(np.float32), np.concatenate(labels, 1)
        for index, *sequence in zip(indices, *joined, strict=True):
            sequences[index] = sequence[0], sequence[1]
    return sequences


def _check(prompt: Prompt, index: int, mask_size: int) -> None:
    points, labels, box, mask = prompt.points, prompt.labels, prompt.box, prompt.mask_logits
    if points.ndim != 2 or points.shape[1] != 2 or not np.isfinite(points).all():
        raise ValueError(f"Prompt {index}: points must be finite (x, y) pairs.")
    if labels.shape != (len(points),):
        raise ValueError(f"Prompt {index}: there are {len(points)} points, but {labels.size} labels.")
    if not ((labels == FOREGROUND) | (labels == BACKGROUND)).all():
        raise ValueError(f"Prompt {index}: a label must be 1 (on the object) or 0 (on the background).")
    if box is not None and (box.shape != (4,) or not np.isfinite(box).all() or (box[:2] > box[2:]).any()):
        raise ValueError(
            f"Prompt {index}: a box must be finite (x_min, y_min, x_max, y_max), min at most max."
        )
    if mask is not None and (mask.shape != (mask_size, mask_size) or not np.isfinite(mask).all()):
        raise ValueError(f"Prompt {index}: mask logits must be {mask_size}x{mask_size} finite numbers.")
    if not len(points) and box is None and mask is None:
        raise ValueError(f"Prompt {index}: there is no point, box or mask.")


def _with_margin(indices: NDArray[np.intp], count: int) -> range:
    """Return the range of the sorted indices, and two more on each side that there is."""
    return range(max(0, int(indices[0]) - 2), min(count, int(indices[-1]) + 3))


def _within_margin(cells: range, count: int, ratio: int, valid: int) -> range:
    """Return the pixels of these cells, `ratio` each, without the outer cells', which miss a neighbour."""
    start = cells.start + 1 if cells.start else 0
    stop = cells.stop - 1 if cells.stop < count else count
    return range(start * ratio, min(stop * ratio, valid))


def _chunks(indices: Sequence[int], size: int) -> Iterator[tuple[int, ...]]:
    for start in range(0, len(indices), size):
        yield tuple(indices[start : start + size])


def _resize_bilinear(values: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    # Equal to torch's bilinear with `align_corners=False` and no antialiasing, and about 15 times faster.
    height, width = size
    return cv2.resize(values, (width, height), interpolation=cv2.INTER_LINEAR).astype(np.float32, copy=False)
