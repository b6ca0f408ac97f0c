"""Grounding DINO: images to canvases, words to tokens, query scores to named boxes.

Agrees with transformers' GroundingDinoImageProcessorPil, GroundingDinoProcessor and the text masks of its
modeling file, except that a detection is given its phrase by token positions, never by comparing strings.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self, TypeVar

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

from gateway.models import boxes as box_ops
from gateway.models import image as images

Size = tuple[int, int]
T = TypeVar("T", float, None)

# Of a model whose parameters say nothing of them: those of the authors' examples.
BOX_THRESHOLD = 0.35
TEXT_THRESHOLD = 0.25


class TextTooLongError(ValueError):
    """The text has more tokens than the model takes."""


@dataclass(frozen=True, slots=True, eq=False)
class TokenizedText:
    """The model's text inputs without the batch axis, T tokens long, and what the tokens stand for.

    input_ids, attention_mask, position_ids: int64 [T]. text_self_attention_mask: bool [T,T].
    phrases: as the caller wrote them; empty for a caption.
    spans: the token positions that count for each phrase; for a caption, those of each stretch between
    separators. Separators (. and ?) and special tokens are in no span.
    """

    input_ids: NDArray[np.int64]
    attention_mask: NDArray[np.int64]
    position_ids: NDArray[np.int64]
    text_self_attention_mask: NDArray[np.bool_]
    phrases: tuple[str, ...]
    spans: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True, eq=False)
class Detection:
    """One object: box float32 [4] xyxy in pixels of the image, its words, and the score in 0..1.

    phrase_index is the place of the phrase in the caller's list, None for a caption.
    """

    box: NDArray[np.float32]
    phrase: str
    phrase_index: int | None
    score: float


@dataclass(frozen=True, slots=True, eq=False)
class GroundingDinoSpec:
    """One variant: its image sizes, text lengths, tokenizer, and thresholds for who asks for none.

    Sizes are (height, width) in pixels; nms_iou_threshold is None for no suppression.
    """

    shortest_edge: int
    longest_edge: int
    canvases: tuple[Size, ...]
    text_lengths: tuple[int, ...]
    tokenizer: Tokenizer
    box_threshold: float = BOX_THRESHOLD
    text_threshold: float = TEXT_THRESHOLD
    nms_iou_threshold: float | None = None

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, str], tokenizer_path: str | Path) -> Self:
        """Read the model's parameters and its `tokenizer.json`.

        `shortest_edge`, `longest_edge`: integers. `canvases`: HEIGHTxWIDTH, comma-separated, able to hold the
        largest image upright and on its side. `text_lengths`: comma-separated integers, the last the largest.
        `box_threshold`, `text_threshold`, `nms_iou_threshold`: 0 to 1, and need not be there.
        Raises ValueError naming what is missing or wrong.
        """
        (shortest,) = _integers(parameters, "shortest_edge", count=1)
        (longest,) = _integers(parameters, "longest_edge", count=1)
        canvases = tuple(_canvas(item) for item in _items(parameters, "canvases"))
        for needed in ((shortest, longest), (longest, shortest)):
            if not any(_fits(needed, canvas) for canvas in canvases):
                raise ValueError(f"Parameter canvases has none that holds {needed[0]}x{needed[1]}.")
        lengths = _integers(parameters, "text_lengths")
        if list(lengths) != sorted(set(lengths)):
            raise ValueError("Parameter text_lengths must be rising.")
        return cls(
            shortest,
            longest,
            canvases,
            lengths,
            _load_tokenizer(tokenizer_path),
            _fraction(parameters, "box_threshold", BOX_THRESHOLD),
            _fraction(parameters, "text_threshold", TEXT_THRESHOLD),
            _fraction(parameters, "nms_iou_threshold", None),
        )

    @property
    def input_size(self) -> int:
        """Longest side that images are resized to, in pixels."""
        return self.longest_edge

    def preprocess(self, image: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], Size]:
        """Resize RGB uint8 [h,w,3] and put it at the top-left of the smallest canvas that holds it.

        Returns the canvas uint8 [H,W,3], zero elsewhere, and the (height, width) that the image covers.
        """
        size = self.resized_size((image.shape[0], image.shape[1]))
        canvas = min(
            (canvas for canvas in self.canvases if _fits(size, canvas)),
            key=lambda canvas: canvas[0] * canvas[1],
        )
        return images.place(images.resize(image, size), canvas), size

    def resized_size(self, original_size: Size) -> Size:
        """(height, width) at which the model sees an image: shorter side S, unless the longer would pass L.

        Equal to transformers' `get_size_with_aspect_ratio` but for slivers. Where that gives a side of 0 and
        fails, the side is 1; where it leaves a thin image of more than L alone (its short side happens
        to be right already: 1x2000 stays so) and no canvas holds it, the long side is cut to L. Boxes
        are relative to the resized image, so they stay right though its aspect ratio changes.
        """
        height, width = original_size
        short, long = sorted(original_size)
        target: float = self.shortest_edge
        if long / short * target > self.longest_edge:
            target = self.longest_edge * short / long
        edge = round(target)  # while the other side is made from the unrounded target
        if short == edge:
            size = (height, width)
        elif width < height:
            size = (int(target * height / width), edge)
        else:
            size = (edge, int(target * width / height))
        if not any(_fits(size, canvas) for canvas in self.canvases):
            size = (min(size[0], self.longest_edge), min(size[1], self.longest_edge))
        return max(1, size[0]), max(1, size[1])

    def encode_phrases(self, phrases: Sequence[str]) -> TokenizedText:
        """Encode a list of phrases as one caption, lower-cased and joined by ". ", as transformers does.

        A phrase may hold separators: they part its tokens' attention, but the tokens stay its own.
        Raises ValueError naming the index of a phrase without words, TextTooLongError.
        """
        if not phrases:
            raise ValueError("There are no phrases.")
        cleaned = [phrase.strip().lower() for phrase in phrases]
        starts = np.cumsum([0] + [len(phrase) + len(". ") for phrase in cleaned])
        encoding = self._encode(". ".join(cleaned) + ".")
        spans: list[list[int]] = [[] for _ in phrases]
        for position in self._words(encoding):
            # The phrase is where the token's first character is, so equal or nested phrases are no matter.
            owner = np.searchsorted(starts, encoding.offsets[position][0], side="right") - 1
            spans[owner].append(position)
        for index, span in enumerate(spans):
            if not span:
                raise ValueError(f"Phrase {index} has no words: {phrases[index][:50]!r}.")
        return self._text(encoding, tuple(phrases), spans)

    def encode_caption(self, caption: str) -> TokenizedText:
        """Encode free text; its phrases, if it has several, are parted by full stops.

        The caption is lower-cased and stripped and given a final "." where it has none, as the model's
        authors do. (transformers leaves it out, and a last phrase without it depends on the padding: its
        tokens see each other only where padding follows.) Raises ValueError where no word is in it,
        TextTooLongError.
        """
        cleaned = caption.strip().lower()
        encoding = self._encode(cleaned if cleaned.endswith(".") else cleaned + ".")
        words = self._words(encoding)
        if not words:
            raise ValueError("The caption has no words.")
        spans: list[list[int]] = [[]]
        for position in words:
            if spans[-1] and position != spans[-1][-1] + 1:
                spans.append([])
            spans[-1].append(position)
        return self._text(encoding, (), spans)

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

        logits float32 [Q,T] raw; boxes float32 [Q,4] cxcywh in 0..1 of the image; image_size (height, width).
        Kept are queries scored over `box_threshold` with a finite box. NMS is per phrase; 1 is none, exactly.
        Of each threshold None is the model's own.

        With phrases, a query's score for each is the highest sigmoid among that phrase's tokens, it belongs
        to its best phrase (the first of equals), and `text_threshold` has no part in it. With a caption,
        the score is the highest of all tokens and the phrase is the decoded text of those over
        `text_threshold`, as in transformers' post_process_grounded_object_detection; but [CLS] and [SEP]
        are never part of it, and where no word is over the threshold, the stretch between separators
        that scored best stands in, so that a detection always has a name.
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
            names = [text.phrases[best_spans[query]] for query in candidates]
            classes = best_spans[candidates]
        else:
            indices = [None] * len(candidates)
            over = _sigmoid(logits[candidates]) > text_threshold
            names = self._caption_names(text, over, best_spans[candidates])
            classes = np.unique(np.array(names, dtype=np.str_), return_inverse=True)[1]
        kept = np.arange(len(candidates))
        # Equal boxes can overlap by a rounding error more than 1.
        if nms_iou_threshold is not None and nms_iou_threshold < 1:
            kept = box_ops.nms(pixels, scores[candidates], nms_iou_threshold, classes)
        return [
            Detection(pixels[place], names[place], indices[place], float(scores[candidates[place]]))
            for place in kept[:max_detections]
        ]

    def _encode(self, caption: str) -> Encoding:
        encoding = self.tokenizer.encode(caption)
        if len(encoding) > self.text_lengths[-1]:
            raise TextTooLongError(
                f"The text has {len(encoding)} tokens, separators and special tokens included; "
                f"the limit is {self.text_lengths[-1]}."
            )
        return encoding

    def _words(self, encoding: Encoding) -> list[int]:
        separators = {self.tokenizer.token_to_id("."), self.tokenizer.token_to_id("?")}
        return [
            position
            for position, (token, special) in enumerate(
                zip(encoding.ids, encoding.special_tokens_mask, strict=True)
            )
            if not special and token not in separators
        ]

    def _text(
        self, encoding: Encoding, phrases: tuple[str, ...], spans: Sequence[Sequence[int]]
    ) -> TokenizedText:
        length = next(length for length in self.text_lengths if length >= len(encoding))
        input_ids = np.full(length, self.tokenizer.token_to_id("[PAD]"), dtype=np.int64)
        input_ids[: len(encoding)] = encoding.ids
        attention_mask = (np.arange(length) < len(encoding)).astype(np.int64)
        delimiters = {self.tokenizer.token_to_id(token) for token in _DELIMITERS}
        position_ids, self_attention = _blocks(np.array([token in delimiters for token in input_ids]))
        return TokenizedText(
            input_ids, attention_mask, position_ids, self_attention, phrases, tuple(tuple(s) for s in spans)
        )

    def _caption_names(
        self, text: TokenizedText, over: NDArray[np.bool_], best_spans: NDArray[np.intp]
    ) -> list[str]:
        words = np.concatenate([np.asarray(span) for span in text.spans])
        over = over & (text.attention_mask > 0)
        over[:, [0, int(text.attention_mask.sum()) - 1]] = False  # [CLS] and [SEP]
        names = []
        for row, best_span in zip(over, best_spans, strict=True):
            chosen = np.flatnonzero(row) if row[words].any() else np.asarray(text.spans[best_span])
            # Special tokens kept: [UNK] is how a word out of the vocabulary reads.
            names.append(self.tokenizer.decode(text.input_ids[chosen].tolist(), skip_special_tokens=False))
        return names


_DELIMITERS = ("[CLS]", "[SEP]", ".", "?")


def _blocks(delimiter: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Position ids [T] and self-attention mask [T,T] of tokens, from which of them delimit phrases [T].

    A block is a run of tokens and the delimiter that closes it: its tokens see each other and count their
    positions from 0. A block closed by the first token or by the very last of the array, and what no
    delimiter closes (padding), see only themselves at position 0: equal to transformers'
    generate_masks_with_special_tokens_and_transfer_map.
    """
    length = len(delimiter)
    place = np.arange(length)
    closing = np.minimum.accumulate(np.where(delimiter, place, length)[::-1])[::-1]
    before = np.maximum.accumulate(np.where(delimiter, place, -1))
    opening = np.concatenate([[-1], before[:-1]])
    in_block = (closing > 0) & (closing < length - 1)
    position_ids = np.where(in_block, place - opening - 1, 0)
    mask = (closing[:, None] == closing[None]) & in_block[None]
    return position_ids.astype(np.int64), mask | np.eye(length, dtype=np.bool_)


def _maximum_of_spans(logits: NDArray[np.float32], spans: Sequence[Sequence[int]]) -> NDArray[np.float32]:
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


def _load_tokenizer(path: str | Path) -> Tokenizer:
    if not Path(path).is_file():
        raise ValueError("The model has no tokenizer.json.")
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exception
        raise ValueError("The model's tokenizer.json cannot be read.") from error
    for token in (*_DELIMITERS, "[PAD]"):
        if tokenizer.token_to_id(token) is None:
            raise ValueError(f"The model's tokenizer.json has no token {token}.")
    # Exported files may carry the settings of the last call: cutting would lose phrases in silence.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _items(parameters: Mapping[str, str], name: str) -> list[str]:
    if name not in parameters:
        raise ValueError(f"The model has no parameter {name}.")
    return [item.strip() for item in parameters[name].split(",")]


def _integers(parameters: Mapping[str, str], name: str, count: int | None = None) -> tuple[int, ...]:
    items = _items(parameters, name)
    try:
        values = tuple(int(item) for item in items)
    except ValueError as error:
        raise ValueError(f"Parameter {name} is not made of integers: {parameters[name]!r}.") from error
    if min(values) < 1 or (count is not None and len(values) != count):
        raise ValueError(f"Parameter {name} is wrong: {parameters[name]!r}.")
    return values


def _fraction(parameters: Mapping[str, str], name: str, default: T) -> float | T:
    if name not in parameters:
        return default
    try:
        value = float(parameters[name])
    except ValueError:
        value = np.nan
    if not 0 <= value <= 1:  # NaN fails too
        raise ValueError(f"Parameter {name} is not a number from 0 to 1: {parameters[name]!r}.")
    return value


def _canvas(item: str) -> Size:
    height, cross, width = item.partition("x")
    if not (cross and height.isdecimal() and width.isdecimal() and int(height) and int(width)):
        raise ValueError(f"Parameter canvases has an item that is not HEIGHTxWIDTH: {item!r}.")
    return int(height), int(width)
