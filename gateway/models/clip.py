"""CLIP: images and texts to inputs, embeddings to similarities and probabilities.

Agrees with open_clip's image_transform (for inference, before it normalises colours) and SimpleTokenizer.
"""

import html
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import ftfy
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tokenizers import Tokenizer

from gateway.models.image import Picture
from gateway.models.parameters import ParameterReader
from gateway.models.tokenizer import TextTooLongError, load_tokenizer, token_id

START, END = "<start_of_text>", "<end_of_text>"
# Longer side to shorter side. A more elongated image is cut to this ratio around its middle before a resize.
MAX_ASPECT_RATIO = 64

INTERPOLATIONS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}


class NoWordsError(ValueError):
    """A text has no tokens."""


@dataclass(frozen=True, slots=True, eq=False)
class ClipSpec:
    """The constants of one variant, and its tokenizer.

    image_size: side of the square input, in pixels.
    resize_mode: a key of RESIZES.
    interpolation: a key of INTERPOLATIONS.
    fill_color: grey level, 0 to 255, around images that do not fill the square.
    context_length: tokens of a text, start and end counted.
    logit_scale: factor of the cosines before the softmax.
    embedding_size: dimensions of an embedding.
    start, end: ids of the tokens that enclose a text.
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
    def from_parameters(cls, parameters: Mapping[str, str], folder: Path) -> Self:
        """Read the parameters of those names, and `tokenizer.json` in the model's folder.

        Raises ValueError that names what is missing or wrong.
        """
        reader = ParameterReader(parameters)
        tokenizer = load_tokenizer(folder, (START, END))
        # A control token that a caller writes out is text: it must not end the text early, or start it again.
        tokenizer.encode_special_tokens = True
        return cls(
            image_size=reader.whole_number("image_size"),
            resize_mode=reader.one_of("resize_mode", RESIZES),
            interpolation=reader.one_of("interpolation", INTERPOLATIONS),
            fill_color=reader.whole_number("fill_color", 0, 255),
            context_length=reader.whole_number("context_length", 3),
            logit_scale=reader.positive_number("logit_scale"),
            embedding_size=reader.whole_number("embedding_size"),
            tokenizer=tokenizer,
            start=token_id(tokenizer, START),
            end=token_id(tokenizer, END),
        )

    @property
    def input_size(self) -> int:
        """Longest side, in pixels, that images are resized to."""
        return self.image_size

    def preprocess(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Resize RGB uint8 [H,W,3] to the model's square, uint8 [S,S,3].

        Equal to open_clip's image_transform of the RGB image, up to the step that converts it to floats.
        (open_clip resizes an image with transparency or a palette before it converts it to RGB, which gives
        other pixels. Here images are RGB as soon as they are decoded.)

        With "shortest", an image more elongated than MAX_ASPECT_RATIO is first cut to that ratio around its
        middle, where this mode crops anyway. The result is less than a source pixel away from the reference,
        which would need gigabytes.
        """
        return self.preprocess_picture(Picture.of(image))

    def preprocess_picture(self, picture: Picture) -> NDArray[np.uint8]:
        """Do what `preprocess` does with an image in Pillow's form."""
        resize = RESIZES[self.resize_mode]
        square = resize(picture, self.image_size, INTERPOLATIONS[self.interpolation], self.fill_color)
        return np.asarray(square)

    @property
    def min_side(self) -> int:
        """Pixels on either side of a photo at half its size that are as good as its full size.

        On photos the model's square then differs by less than 0.25 grey levels in the mean, and 3 at most.
        """
        return math.ceil(3.75 * self.image_size)

    def encode(self, text: str, *, truncate: bool = False) -> NDArray[np.int64]:
        """Return the token ids int64 [context_length] of a text: start, its tokens, end, zeros.

        Equal to open_clip's SimpleTokenizer with two exceptions: a control token written out in a text
        ("<end_of_text>") is spelled like any other word, and the tokenizer knows Unicode 14. With `truncate`
        the end of a long text is cut off, as open_clip always does.

        Raises NoWordsError, and without `truncate` TextTooLongError.
        """
        tokens: list[int] = self.tokenizer.encode(clean(text), add_special_tokens=False).ids
        if not tokens:
            raise NoWordsError("has no words")
        max_tokens = self.context_length - 2
        if len(tokens) > max_tokens and not truncate:
            raise TextTooLongError(len(tokens) + 2, self.context_length, counted="start and end")
        ids = np.zeros(self.context_length, dtype=np.int64)
        kept = tokens[:max_tokens]
        ids[: len(kept) + 2] = [self.start, *kept, self.end]
        return ids

    def probabilities(self, similarities: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the softmax, over L labels, of cosines float32 [N,L] times the model's logit scale."""
        logits = similarities.astype(np.float64) * self.logit_scale
        exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True))
        shares: NDArray[np.float64] = exponentials / exponentials.sum(axis=-1, keepdims=True)
        return shares.astype(np.float32)


def clean(text: str) -> str:
    """Repair mojibake, HTML entities, white space and capitals, as in CLIP's training texts."""
    repaired = html.unescape(html.unescape(ftfy.fix_text(text)))
    return " ".join(repaired.split()).lower()


def normalise(embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scale embeddings float32 [N,D] to length 1, as torch.nn.functional.normalize does."""
    # As np.linalg.norm does, which takes three times as long for one row.
    lengths = np.sqrt(np.add.reduce(embeddings * embeddings, axis=-1, keepdims=True))
    scaled: NDArray[Any] = embeddings / np.maximum(lengths, 1e-12)
    return scaled


def cosines(rows: NDArray[np.float32], columns: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the cosine similarities float32 [N,M], -1 to 1, of raw embeddings [N,D] and [M,D]."""
    return (normalise(rows) @ normalise(columns).T).clip(-1, 1)


def _shortest(picture: Picture, size: int, resample: Image.Resampling, _fill_color: int) -> Image.Image:
    """Resize the shorter side to `size`, and keep the middle of the longer side."""
    picture = _middle(picture)
    width, height = picture.size
    long = int(size * max(width, height) / min(width, height))
    resized = picture.resize((size, long) if width <= height else (long, size), resample)
    return _center(resized, size)


def _longest(picture: Picture, size: int, resample: Image.Resampling, fill_color: int) -> Image.Image:
    """Resize the longer side to `size`, and fill up the shorter side at both ends."""
    ratio = max(picture.size) / size
    # The reference rounds a side of less than half a pixel to 0 and fails. Here it becomes one pixel.
    width, height = (max(1, round(side / ratio)) for side in picture.size)
    square = Image.new("RGB", (size, size), (fill_color,) * 3)
    square.paste(picture.resize((width, height), resample), ((size - width) // 2, (size - height) // 2))
    return square


def _squash(picture: Picture, size: int, resample: Image.Resampling, _fill_color: int) -> Image.Image:
    """Resize both sides to `size`, without regard for the aspect ratio."""
    return picture.resize((size, size), resample)


RESIZES: Mapping[str, Callable[[Picture, int, Image.Resampling, int], Image.Image]] = {
    "shortest": _shortest,
    "longest": _longest,
    "squash": _squash,
}


def _center(picture: Image.Image, size: int) -> Image.Image:
    # Python rounds halves to even, as torchvision's CenterCrop does.
    left, top = (round((side - size) / 2) for side in picture.size)
    return picture.crop((left, top, left + size, top + size))


def _middle(picture: Picture) -> Picture:
    short, long = sorted(picture.size)
    kept = MAX_ASPECT_RATIO * short
    if long <= kept:
        return picture
    # So elongated an image is never decoded at a reduced size.
    start = (long - kept) // 2
    width, height = picture.size
    image = picture.image.crop(
        (start, 0, start + kept, height) if width > height else (0, start, width, start + kept)
    )
    return Picture(image, image.size)
