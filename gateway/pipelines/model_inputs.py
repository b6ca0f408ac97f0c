"""The making of a model's input of an image, which is decoded for that alone."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from gateway.models.image import ImageFile, Picture, open_image

Input = TypeVar("Input")


@dataclass(frozen=True, slots=True)
class Recipe(Generic[Input]):
    """How an image becomes a model's input.

    name: tells it apart from other recipes. min_side: pixels on either side that are as good as the full
    size. prepare: makes the input, in a thread.
    """

    name: str
    min_side: int
    prepare: Callable[[Picture], Input]


@dataclass(frozen=True, slots=True)
class Made(Generic[Input]):
    """A model's input, the image's (width, height), and the seconds since `end_ns` that `prepare` took."""

    input: Input
    size: tuple[int, int]
    seconds: float
    end_ns: int


def make(
    data: bytes, recipe: Recipe[Input], min_side: int | None, max_pixels: int, peak_bytes: int
) -> Made[Input] | ImageFile:
    """Make a model's input of a file, unless that takes more memory: then return the file, opened."""
    file = open_image(data, max_pixels=max_pixels)
    if file.peak_bytes_at(min_side) > peak_bytes:
        return file
    return make_of_file(file, recipe, min_side)


def make_of_file(file: ImageFile, recipe: Recipe[Input], min_side: int | None) -> Made[Input]:
    """Decode a file that is open, and make a model's input of it."""
    return _make_of_picture(file.decode_picture(min_side), recipe)


def make_of_pixels(pixels: NDArray[np.uint8], recipe: Recipe[Input]) -> Made[Input]:
    """Make a model's input of an image that is decoded already."""
    return _make_of_picture(Picture.of(pixels), recipe)


def _make_of_picture(picture: Picture, recipe: Recipe[Input]) -> Made[Input]:
    start = time.perf_counter()
    prepared = recipe.prepare(picture)
    return Made(prepared, picture.size, time.perf_counter() - start, time.time_ns())
