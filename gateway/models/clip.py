"""CLIP: images and texts to its inputs, embeddings to similarities and probabilities.

Agrees with open_clip's image_transform (for inference, before it normalises colours) and SimpleTokenizer.
"""

import html
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import ftfy
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tokenizers import Tokenizer

START, END = "<start_of_text>", "<end_of_text>"
# Of an image this many times longer than wide, only a stretch of that shape around its middle is resized.
MAX_ELONGATED = 64

INTERPOLATIONS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}


class NoWordsError(ValueError):
    """A text with nothing in it to read."""


class TextTooLongError(ValueError):
    """A text with more tokens than the model reads; the message gives both numbers."""


@dataclass(frozen=True, slots=True, eq=False)
class ClipSpec:
    """Constants of one variant and its tokenizer.

    image_size: side of the square input, in pixels. resize_mode: a name of RESIZES. interpolation: a name
    of INTERPOLATIONS. fill_color: grey level, 0 to 255, around images that do not fill the square.
    context_length: tokens of a text, start and end counted. logit_scale: what cosines are multiplied by
    before the softmax. embedding_size: dimensions of an embedding. start, end: token ids that enclose a text.
    """

    image_size: int
    resize_mode: str
    interpolation: str
    fill_color: int
    context_length: int
    logit_scale: float
    embedding_size: int
    tokenizer: Tokenizer
    start: int
    end: int

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, str], tokenizer_file: Path) -> Self:
        """Read the parameters of those names; ValueError names what is missing or wrong."""
        tokenizer = _load_tokenizer(tokenizer_file)
        return cls(
            image_size=_integer(parameters, "image_size", 1),
            resize_mode=_choice(parameters, "resize_mode", RESIZES),
            interpolation=_choice(parameters, "interpolation", INTERPOLATIONS),
            fill_color=_integer(parameters, "fill_color", 0, 255),
            context_length=_integer(parameters, "context_length", 3),
            logit_scale=_positive(parameters, "logit_scale"),
            embedding_size=_integer(parameters, "embedding_size", 1),
            tokenizer=tokenizer,
            start=_token(tokenizer, START),
            end=_token(tokenizer, END),
        )

    @property
    def input_size(self) -> int:
        """Side that images are resized to, in pixels."""
        return self.image_size

    def preprocess(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Bring RGB uint8 [H,W,3] to the model's square: uint8 [S,S,3].

        Equal to open_clip's image_transform of the RGB image up to where that makes floats of it. (Given
        an image with transparency or a palette, open_clip resizes first and converts to RGB after, which
        differs: ours are RGB from the door on.) Images more elongated than MAX_ELONGATED to 1 are first
        cut to that around their middle, where "shortest" crops anyway: the reference's result moves by
        less than a source pixel, and would need gigabytes.
        """
        resize = RESIZES[self.resize_mode]
        picture = resize(
            Image.fromarray(image), self.image_size, INTERPOLATIONS[self.interpolation], self.fill_color
        )
        return np.asarray(picture)

    def encode(self, text: str, *, truncate: bool = False) -> NDArray[np.int64]:
        """Token ids int64 [context_length] of a text: start, its tokens, end, zeros.

        Equal to open_clip's SimpleTokenizer, but that control tokens written out in a text ("<end_of_text>")
        are spelled like any other word, and that its Unicode is version 14. Raises NoWordsError, and
        TextTooLongError unless `truncate` asks for the text's beginning, as open_clip always gives it.
        """
        tokens: list[int] = self.tokenizer.encode(clean(text), add_special_tokens=False).ids
        if not tokens:
            raise NoWordsError("has no words")
        room = self.context_length - 2
        if len(tokens) > room and not truncate:
            raise TextTooLongError(
                f"has {len(tokens) + 2} tokens, start and end counted; the limit is {self.context_length}"
            )
        ids = np.zeros(self.context_length, dtype=np.int64)
        kept = tokens[:room]
        ids[: len(kept) + 2] = [self.start, *kept, self.end]
        return ids

    def probabilities(self, similarities: NDArray[np.float32]) -> NDArray[np.float32]:
        """Softmax of cosines float32 [N,L] over the L labels, sharpened by the model's own logit scale."""
        logits = similarities.astype(np.float64) * self.logit_scale
        exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True))
        shares: NDArray[np.float64] = exponentials / exponentials.sum(axis=-1, keepdims=True)
        return shares.astype(np.float32)


def clean(text: str) -> str:
    """Mend a text as CLIP's training texts were: mojibake, HTML entities, white space, capitals."""
    mended = html.unescape(html.unescape(ftfy.fix_text(text)))
    return " ".join(mended.split()).lower()


def normalise(embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scale embeddings float32 [N,D] to length 1, as torch.nn.functional.normalize does."""
    lengths = np.linalg.norm(embeddings, axis=-1, keepdims=True)
    scaled: NDArray[np.float32] = embeddings / np.maximum(lengths, 1e-12)
    return scaled


def cosines(rows: NDArray[np.float32], columns: NDArray[np.float32]) -> NDArray[np.float32]:
    """Cosine similarities float32 [N,M], -1 to 1, of raw embeddings [N,D] and [M,D]."""
    return (normalise(rows) @ normalise(columns).T).clip(-1, 1)


def _shortest(picture: Image.Image, size: int, resample: Image.Resampling, _fill_color: int) -> Image.Image:
    """Shorter side to `size`, the middle of the longer one."""
    picture = _middle(picture)
    width, height = picture.size
    long = int(size * max(width, height) / min(width, height))
    resized = _resize(picture, (size, long) if width <= height else (long, size), resample)
    return _center(resized, size)


def _longest(picture: Image.Image, size: int, resample: Image.Resampling, fill_color: int) -> Image.Image:
    """Longer side to `size`, the shorter one filled up on both sides."""
    ratio = max(picture.size) / size
    # The reference rounds a side thinner than half a pixel to 0 and fails; here it stays one pixel.
    width, height = (max(1, round(side / ratio)) for side in picture.size)
    square = Image.new("RGB", (size, size), (fill_color,) * 3)
    square.paste(_resize(picture, (width, height), resample), ((size - width) // 2, (size - height) // 2))
    return square


def _squash(picture: Image.Image, size: int, resample: Image.Resampling, _fill_color: int) -> Image.Image:
    """Both sides to `size`, whatever becomes of the shapes."""
    return _resize(picture, (size, size), resample)


RESIZES: Mapping[str, Callable[[Image.Image, int, Image.Resampling, int], Image.Image]] = {
    "shortest": _shortest,
    "longest": _longest,
    "squash": _squash,
}


def _resize(picture: Image.Image, size: tuple[int, int], resample: Image.Resampling) -> Image.Image:
    return picture if picture.size == size else picture.resize(size, resample)


def _center(picture: Image.Image, size: int) -> Image.Image:
    # Python's rounding to even, as torchvision's CenterCrop has it.
    left, top = (round((side - size) / 2) for side in picture.size)
    return picture.crop((left, top, left + size, top + size))


def _middle(picture: Image.Image) -> Image.Image:
    short, long = sorted(picture.size)
    kept = MAX_ELONGATED * short
    if long <= kept:
        return picture
    start = (long - kept) // 2
    width, height = picture.size
    return picture.crop(
        (start, 0, start + kept, height) if width > height else (0, start, width, start + kept)
    )


def _load_tokenizer(path: Path) -> Tokenizer:
    if not path.is_file():
        raise ValueError("The model has no tokenizer.json.")
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exception
        raise ValueError("The model's tokenizer.json cannot be read.") from error
    # What a caller writes is text: it must not end the text early, or start it again.
    tokenizer.encode_special_tokens = True
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _token(tokenizer: Tokenizer, token: str) -> int:
    index = tokenizer.token_to_id(token)
    if index is None:
        raise ValueError(f"The model's tokenizer.json has no token {token}.")
    return index


def _parameter(parameters: Mapping[str, str], name: str) -> str:
    if name not in parameters:
        raise ValueError(f"The model has no parameter {name}.")
    return parameters[name]


def _choice(parameters: Mapping[str, str], name: str, known: Mapping[str, object]) -> str:
    value = _parameter(parameters, name)
    if value not in known:
        raise ValueError(f"Parameter {name} is {value!r}; it must be one of {', '.join(known)}.")
    return value


def _integer(parameters: Mapping[str, str], name: str, least: int, most: float = math.inf) -> int:
    value = _parameter(parameters, name)
    if not (value.isdecimal() and least <= int(value) <= most):
        raise ValueError(f"Parameter {name} is wrong: {value!r}.")
    return int(value)


def _positive(parameters: Mapping[str, str], name: str) -> float:
    value = _parameter(parameters, name)
    try:
        number = float(value)
    except ValueError as error:
        raise ValueError(f"Parameter {name} is not a number: {value!r}.") from error
    if not (math.isfinite(number) and number > 0):
        raise ValueError(f"Parameter {name} is wrong: {value!r}.")
    return number
