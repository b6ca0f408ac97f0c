"""How far a file of less than float32 may be from its reference, in the measure of the task.

The limits are for trained weights. Seeded ones have no objects, words or faces in sight: their answers lie
near the threshold everywhere, and rounding decides more of them. Families give them lower limits.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Arrays = dict[str, Array]

MIN_COSINE = 0.9999
MIN_IOU = 0.99
MAX_DEGREES = 0.2
MAX_MEAN_DIFFERENCE = 0.02
# A score this near to the threshold may fall on either side of it.
SCORE_MARGIN = 0.01
# Of the largest logit: which of two classes that are nearer to each other is best, rounding may choose.
TIE = 5e-3


@dataclass(frozen=True)
class Measure:
    """A measure of an answer's quality, such as the least cosine, with the limit that it must keep."""

    name: str
    """As the exporter prints it, such as "mask IoU"."""
    of: Callable[[Arrays, Arrays, Arrays], float]
    """Returns the worst value in a case, of its inputs, the graph's outputs, and the reference's outputs."""
    limit: float
    is_least: bool = True
    """Whether the limit is the least value allowed, as of a cosine. Otherwise it is the largest."""

    def worst(self, values: Sequence[float]) -> float:
        """Return the worst of the values in several cases. NaN is the worst of all."""
        return float(np.min(values) if self.is_least else np.max(values))

    def allows(self, value: float) -> bool:
        """Return whether a value keeps the limit. NaN does not."""
        return value >= self.limit if self.is_least else value <= self.limit

    def text(self, value: float) -> str:
        """Return such as "mask IoU at least 0.9980"."""
        return f"{self.name} {'at least' if self.is_least else 'at most'} {value:.6g}"


def cosine(output: str, limit: float = MIN_COSINE) -> Measure:
    """Return the measure of embeddings [B,D]."""

    def of(_inputs: Arrays, actual: Arrays, expected: Arrays) -> float:
        ours, theirs = actual[output].astype(np.float64), expected[output].astype(np.float64)
        lengths = np.linalg.norm(ours, axis=-1) * np.linalg.norm(theirs, axis=-1)
        return float(((ours * theirs).sum(-1) / lengths).min())

    return Measure("cosine", of, limit)


def masks(
    *outputs: str, limit: float = MIN_IOU, draw: Callable[[Arrays], Array] | None = None, above: float = 0
) -> Measure:
    """Return the measure of masks, which are what lies `above` in outputs [...,H,W].

    All masks of an output count together: one pixel is a hundredth of a small mask. `draw` turns outputs that
    are no masks into some, such as embeddings through a decoder.
    """

    def of(_inputs: Arrays, actual: Arrays, expected: Arrays) -> float:
        if draw is not None:
            return _mask_iou(draw(actual), draw(expected), above)
        return min(_mask_iou(actual[name], expected[name], above) for name in outputs)

    return Measure("mask IoU", of, limit)


def _mask_iou(actual: Array, expected: Array, above: float) -> float:
    if not np.isfinite(actual).all():
        return float("nan")
    ours, theirs = actual > above, expected > above
    either = np.count_nonzero(ours | theirs)
    return np.count_nonzero(ours & theirs) / either if either else 1.0


def text_maps(output: str, above: float, limit: float = MIN_IOU) -> list[Measure]:
    """Return the measures of maps of the probability of text, which is where they lie `above`.

    A single pixel at the edge of a word may differ by much: the sigmoid is steep there.
    """

    def mean(_inputs: Arrays, actual: Arrays, expected: Arrays) -> float:
        return float(np.abs(actual[output].astype(np.float64) - expected[output]).mean())

    return [
        masks(output, above=above, limit=limit),
        Measure("mean difference", mean, MAX_MEAN_DIFFERENCE, is_least=False),
    ]


def boxes_of_phrases(threshold: float, limit: float = MIN_IOU, fallback: int = 10) -> Measure:
    """Return the measure of Grounding DINO: the least IoU of boxes that belong together, 0 if one has none.

    A box belongs to one of the same phrase in the other answer. The boxes are taken as sets: rounding may
    change their order. If none scores more than the threshold, the `fallback` best count: seeded scores mean
    nothing.
    """

    def of(inputs: Arrays, actual: Arrays, expected: Arrays) -> float:
        worst = 1.0
        for row in range(len(inputs["input_ids"])):
            spans = _phrases(inputs["input_ids"][row], inputs["position_ids"][row])
            ours, theirs = (_phrase_scores(answer["logits"][row], spans) for answer in (actual, expected))
            ordered = np.sort(theirs.max(1))
            least = threshold if ordered[-1] > threshold else float(ordered[-fallback])
            pairs = ((ours, actual, theirs, expected), (theirs, expected, ours, actual))
            for scores, answer, other_scores, other in pairs:
                overlaps = _overlaps(answer["boxes"][row], other["boxes"][row])
                phrases, other_phrases = scores.argmax(1), other_scores.argmax(1)
                for query in np.flatnonzero(scores.max(1) > least + SCORE_MARGIN):
                    fits = (other_phrases == phrases[query]) & (other_scores.max(1) > least - SCORE_MARGIN)
                    worst = min(worst, float(overlaps[query][fits].max(initial=0)))
        return worst

    return Measure("IoU of boxes with the same phrase", of, limit)


def _phrases(ids: Array, positions: Array) -> list[Array]:
    """Return the tokens of each phrase. Its positions count up from 0. Padding and separators are alone."""
    starts = np.flatnonzero((positions == 0) & (ids != 0))
    spans = [np.arange(start, end) for start, end in zip(starts, [*starts[1:], len(ids)], strict=True)]
    return [span[ids[span] != 0] for span in spans if len(span) > 1]


def _phrase_scores(logits: Array, spans: list[Array]) -> Array:
    """Return the score [Q,S] of each phrase: that of its best token."""
    best = np.stack([logits[:, span].max(1) for span in spans], axis=1)
    scores: Array = 1 / (1 + np.exp(-best.astype(np.float64)))
    return scores


def _overlaps(ours: Array, theirs: Array) -> Array:
    """Return the IoU [N,M] of boxes cxcywh."""
    from gateway.models import boxes

    overlaps: Array = boxes.iou(boxes.cxcywh_to_xyxy(ours), boxes.cxcywh_to_xyxy(theirs))
    return overlaps


def words(decode: Callable[[Array], list[str]], limit: float = 1.0) -> Measure:
    """Return the measure of docTR's recognition: the share of crops with the same word.

    `decode` returns the words of classes [B,L]. Where the reference's two best classes are as good as equal,
    the graph may choose.
    """

    def of(_inputs: Arrays, actual: Arrays, expected: Arrays) -> float:
        logits, chosen = expected["logits"], actual["logits"].argmax(-1)
        gap = logits.max(-1) - np.take_along_axis(logits, chosen[..., None], -1)[..., 0]
        right = np.where(gap <= TIE * np.abs(logits).max(), chosen, logits.argmax(-1))
        same = [ours == theirs for ours, theirs in zip(decode(chosen), decode(right), strict=True)]
        return float(np.mean(same))

    return Measure("share of the same words", of, limit)


def same_words(decode: Callable[[Array], list[str]]) -> Measure:
    """Return the same of a network that has no logits to tell how near its classes are: all words count."""

    def of(_inputs: Arrays, actual: Arrays, expected: Arrays) -> float:
        pairs = zip(decode(actual["classes"]), decode(expected["classes"]), strict=True)
        return float(np.mean([ours == theirs for ours, theirs in pairs]))

    return Measure("share of the same words", of, 1.0)


def words_of(decoder: str, vocabulary: str) -> Callable[[Array], list[str]]:
    """Return what makes words of classes [B,L], as the gateway does with this decoder."""
    from gateway.models.doctr_recognition import DECODERS
    from gateway.models.text import Steps

    def decode(classes: Array) -> list[str]:
        steps = Steps(classes.astype(np.int32), np.ones(classes.shape, np.float32))
        return [span.text for span in DECODERS[decoder](steps, vocabulary)]

    return decode


def degrees(output: str, limit: float = MAX_DEGREES) -> Measure:
    """Return the measure of gazes (yaw, pitch) [B,2] in radians: the angle between them."""

    def of(_inputs: Arrays, actual: Arrays, expected: Arrays) -> float:
        from export.demo.agreement import angles_between

        return float(angles_between(actual[output], expected[output]).max())

    return Measure("degrees", of, limit, is_least=False)


def faces(threshold: float = 0.6, limit: float = 0.98) -> Measure:
    """Return the measure of YuNet's raw heads: the least IoU of a cell's box in both answers.

    It is 0 if a face is in one of them alone. The strides' cells have boxes of their size around any place,
    so that only their offsets and sides count.
    """

    def of(_inputs: Arrays, actual: Arrays, expected: Arrays) -> float:
        worst = 1.0
        for stride in (8, 16, 32):
            (scores, found), (right_scores, right) = (_cells(a, stride) for a in (actual, expected))
            is_face = np.maximum(scores, right_scores) > threshold + SCORE_MARGIN
            if (np.minimum(scores, right_scores)[is_face] < threshold - SCORE_MARGIN).any():
                return 0.0
            if is_face.any():
                overlap = np.diagonal(_overlaps(found[is_face], right[is_face]))
                worst = min(worst, float(overlap.min()))
        return worst

    return Measure("IoU of faces", of, limit)


def _cells(heads: Arrays, stride: int) -> tuple[Array, Array]:
    """Return the scores [B,N] and the boxes cxcywh [B,N,4], in strides from the cell."""
    cls, obj, box = (heads[f"{name}_{stride}"] for name in ("cls", "obj", "bbox"))
    scores = np.sqrt(cls[..., 0].clip(0, 1) * obj[..., 0].clip(0, 1))
    return scores, np.concatenate([box[..., :2], np.exp(box[..., 2:])], -1)


@dataclass(frozen=True)
class Gate:
    """Measures, and inputs on which they mean something."""

    cases: Sequence[Arrays]
    measures: Sequence[Measure]
