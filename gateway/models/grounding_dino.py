"""Grounding DINO: images to canvases, scores and boxes of queries to named objects.

Agrees with transformers' GroundingDinoImageProcessorPil and GroundingDinoProcessor, except that token
positions, and never a comparison of strings, tell the phrase of a detection.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from gateway.models import boxes as box_ops
from gateway.models.grounding_dino_text import NEEDED_TOKENS, TextTokenizer, TokenizedText
from gateway.models.parameters import ParameterReader
from gateway.models.resizing import place, resize
from gateway.models.tokenizer import load_tokenizer

Size = tuple[int, int]

# The thresholds of the authors' examples, for a model whose parameters have none.
BOX_THRESHOLD = 0.35
TEXT_THRESHOLD = 0.25


@dataclass(frozen=True, slots=True, eq=False)
class Detection:
    """One object: box float32 [4] xyxy in pixels of the image, its phrase, and its score from 0 to 1.

    phrase_index is the index of the phrase in the caller's list, or None for a caption.
    """

    box: NDArray[np.float32]
    phrase: str
    phrase_index: int | None
    score: float


@dataclass(frozen=True, slots=True, eq=False)
class GroundingDinoSpec:
    """The constants of one variant, and its tokenizer.

    shortest_edge, longest_edge: in pixels, as transformers' `size` has them. canvases: (height, width) in
    pixels. box_threshold, text_threshold, nms_iou_threshold: for a request that has none. An
    nms_iou_threshold of None means no suppression.
    """

    shortest_edge: int
    longest_edge: int
    canvases: tuple[Size, ...]
    text: TextTokenizer
    box_threshold: float = BOX_THRESHOLD
    text_threshold: float = TEXT_THRESHOLD
    nms_iou_threshold: float | None = None

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, str], folder: Path) -> Self:
        """Read the model's parameters, and `tokenizer.json` in its folder.

        `shortest_edge`, `longest_edge`: positive integers. `canvases`: HEIGHTxWIDTH, comma-separated; they
        must hold the largest image both upright and on its side. `text_lengths`: comma-separated integers in
        rising order. `box_threshold`, `text_threshold`, `nms_iou_threshold`: 0 to 1, optional.
        Raises ValueError that names what is missing or wrong.
        """
        reader = ParameterReader(parameters)
        shortest, longest = reader.whole_number("shortest_edge"), reader.whole_number("longest_edge")
        canvases = reader.sizes("canvases")
        for height, width in ((shortest, longest), (longest, shortest)):
            if not any(_fits((height, width), canvas) for canvas in canvases):
                raise reader.wrong("canvases", f"sizes of which one holds {height}x{width}")
        return cls(
            shortest,
            longest,
            canvases,
            TextTokenizer(load_tokenizer(folder, NEEDED_TOKENS), reader.rising_numbers("text_lengths")),
            reader.fraction("box_threshold", BOX_THRESHOLD),
            reader.fraction("text_threshold", TEXT_THRESHOLD),
            reader.fraction("nms_iou_threshold") if "nms_iou_threshold" in parameters else None,
        )

    @property
    def input_size(self) -> int:
        """Longest side, in pixels, that images are resized to."""
        return self.longest_edge

    @property
    def canvas_bytes(self) -> int:
        """Bytes of the largest canvas."""
        return max(3 * height * width for height, width in self.canvases)

    def preprocess(self, image: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], Size]:
        """Resize RGB uint8 [h,w,3] and put it at the top-left of the smallest canvas that holds it.

        Returns the canvas uint8 [H,W,3], zero elsewhere, and the (height, width) that the image covers.
        """
        size = self.resized_size((image.shape[0], image.shape[1]))
        canvas = min(
            (canvas for canvas in self.canvases if _fits(size, canvas)),
            key=lambda canvas: canvas[0] * canvas[1],
        )
        return place(resize(image, size), canvas), size

    def resized_size(self, original_size: Size) -> Size:
        """Return the (height, width) to which an image of `original_size` (height, width) is resized.

        The shorter side becomes `shortest_edge`, or less if the longer side would exceed `longest_edge`.

        Equal to transformers' `get_size_with_aspect_ratio`, except for slivers. If the reference gives a side
        of 0 pixels and fails, the side is 1 pixel. If the reference leaves a thin image alone that is longer
        than `longest_edge`, because its short side happens to be right already (1x2000 stays so), and no
        canvas holds it, the long side is cut to `longest_edge`. Boxes are relative to the resized image, so
        they stay right although its aspect ratio changes.
        """
        height, width = original_size
        short, long = sorted(original_size)
        target: float = self.shortest_edge
        if long / short * target > self.longest_edge:
            target = self.longest_edge * short / long
        edge = round(target)  # the other side, as in the reference, is made from the unrounded target
        if short == edge:
            size = (height, width)
        elif width < height:
            size = (int(target * height / width), edge)
        else:
            size = (edge, int(target * width / height))
        if not any(_fits(size, canvas) for canvas in self.canvases):
            size = (min(size[0], self.longest_edge), min(size[1], self.longest_edge))
        return max(1, size[0]), max(1, size[1])

    def postprocess(
        self,
        logits: NDArray[np.float32],
        boxes: NDArray[np.float32],
        text: TokenizedText,
        image_size: Size,
        *,
        box_threshold: float | None = None,
        text_threshold: float | None = None,
        nms_iou_threshold: float | None = None,
        max_detections: int,
    ) -> list[Detection]:
        """Turn the answer for one image into detections by falling score (ties in the order of queries).

        logits: float32 [Q,T], raw. boxes: float32 [Q,4] cxcywh, 0 to 1 of the image. image_size: (height,
        width). A threshold of None stands for the model's own. A query is kept if its score is over
        `box_threshold` and its box is finite. Non-maximum suppression is per phrase; an `nms_iou_threshold`
        of exactly 1 turns it off.

        With phrases, a query's score for a phrase is the highest sigmoid among the phrase's tokens. The query
        belongs to its best phrase (the first of equals). `text_threshold` has no effect.

        With a caption, a query's score is the highest of all tokens. Its phrase is the decoded text of the
        tokens over `text_threshold`, as in transformers' post_process_grounded_object_detection, but without
        [CLS] and [SEP]. If no word is over the threshold, the phrase is the stretch between separators that
        scored best, so that every detection has a name.
        """
        if logits.shape[-1] != len(text.input_ids):
            raise ValueError(
                f"The logits are for {logits.shape[-1]} tokens, the text has {len(text.input_ids)}."
            )
        box_threshold = self.box_threshold if box_threshold is None else box_threshold
        text_threshold = self.text_threshold if text_threshold is None else text_threshold
        nms_iou_threshold = self.nms_iou_threshold if nms_iou_threshold is None else nms_iou_threshold
        logits = np.where(np.isnan(logits), -np.inf, logits)
        span_logits = _maximum_of_spans(logits, text.spans)
        best_spans = span_logits.argmax(axis=1)
        scores = _sigmoid(span_logits.max(axis=1) if text.phrases else logits.max(axis=1))
        candidates = np.flatnonzero((scores > box_threshold) & np.isfinite(boxes).all(axis=1))
        candidates = candidates[np.argsort(-scores[candidates], kind="stable")]

        pixels = box_ops.scale(box_ops.cxcywh_to_xyxy(boxes[candidates]), image_size)
        pixels = box_ops.clip(pixels, image_size)
        if text.phrases:
            indices: list[int | None] = [int(best_spans[query]) for query in candidates]
            phrases = [text.phrases[best_spans[query]] for query in candidates]
            classes = best_spans[candidates]
        else:
            indices = [None] * len(candidates)
            is_over = _sigmoid(logits[candidates]) > text_threshold
            phrases = self.text.decode_phrases(text, is_over, best_spans[candidates])
            classes = np.unique(np.array(phrases, dtype=np.str_), return_inverse=True)[1]
        kept = np.arange(len(candidates))
        # At 1 it must not run: by a rounding error, the IoU of equal boxes can be more than 1.
        if nms_iou_threshold is not None and nms_iou_threshold < 1:
            kept = box_ops.nms(pixels, scores[candidates], nms_iou_threshold, classes)
        return [
            Detection(pixels[rank], phrases[rank], indices[rank], float(scores[candidates[rank]]))
            for rank in kept[:max_detections]
        ]


def _maximum_of_spans(logits: NDArray[np.float32], spans: Sequence[Sequence[int]]) -> NDArray[np.float32]:
    """Return the highest logit float32 [Q,S] of each span of tokens."""
    positions = np.concatenate([np.asarray(span) for span in spans])
    starts = np.cumsum([0] + [len(span) for span in spans[:-1]])
    maximum: NDArray[np.float32] = np.maximum.reduceat(logits[:, positions], starts, axis=1)
    return maximum


def _sigmoid(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):
        probabilities: NDArray[np.float32] = np.divide(1, 1 + np.exp(-logits), dtype=np.float32)
    return probabilities


def _fits(size: Size, canvas: Size) -> bool:
    return size[0] <= canvas[0] and size[1] <= canvas[1]
