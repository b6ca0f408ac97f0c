"""Checks of what callers give, before NumPy or protobuf see it.

All raise ValueError, or TypeError for the wrong kind of thing, in a sentence that starts with the argument's
name. Nothing is cast, cut or left out to make it fit.
"""

import operator
import os
import reprlib
from collections.abc import Iterable, Mapping, Set
from numbers import Real
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from visiongate.operations.image import EncodedImage, ImageLike, image_message
from visiongate.v1 import image_pb2

# None where it may be left out: then the server's default holds.
Count = TypeVar("Count", int, int | None)
Number = TypeVar("Number", float, float | None)

SHORT = reprlib.Repr()
SHORT.maxstring = SHORT.maxother = 120
MAX_UINT32 = 2**32 - 1
# Of which the whole would be gone through, or almost: bytes as numbers, a file by its lines.
LONE_IMAGES = (str, bytes, bytearray, memoryview, os.PathLike, Image.Image, EncodedImage)


def flag(value: bool, name: str) -> bool:
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{name} is {shown(value)}: it must be True or False")
    return bool(value)


def whole_number(value: Count, name: str, least: int, most: int = MAX_UINT32) -> Count:
    if value is None:
        return value
    wanted = f"it must be a whole number, {least} {'or more' if most == MAX_UINT32 else f'to {most}'}"
    try:
        # True is an index too.
        number = None if isinstance(value, bool | np.bool_) else operator.index(value)
    except TypeError:
        number = None
    if number is None:
        raise TypeError(f"{name} is {shown(value)}: {wanted}")
    if not least <= number <= most:
        raise ValueError(f"{name} is {number}: {wanted}")
    return number


def fraction(value: Number, name: str, *, below_one: bool = False) -> Number:
    """A number from 0 to 1."""
    most = np.nextafter(1, 0) if below_one else 1
    return _between(value, name, 0, float(most), "0 to less than 1" if below_one else "0 to 1")


def positive(value: Number, name: str, most: float) -> Number:
    return _between(value, name, np.nextafter(0, 1), most, f"over 0, to {most}")


def _between(value: Number, name: str, least: float, most: float, wanted: str) -> Number:
    if value is None:
        return value
    if not isinstance(value, Real) or isinstance(value, bool):
        raise TypeError(f"{name} is {shown(value)}: it must be a number, {wanted}")
    if not least <= value <= most:  # NaN fails too
        raise ValueError(f"{name} is {shown(value)}: it must be {wanted}")
    return float(value)


def text(value: str, name: str) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{name} is {shown(value)}: it must be a string")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{name} is {shown(value)}: a lone surrogate has no form in UTF-8") from None
    return value


def texts(values: Iterable[str], name: str, hint: str = "for a single one, put it into a list") -> list[str]:
    if isinstance(values, str):
        raise TypeError(f"{name} is a list of strings; {hint}")
    return [text(value, f"{name}[{index}]") for index, value in enumerate(listed(values, name, "strings"))]


def images(values: Iterable[ImageLike], name: str = "images") -> list[image_pb2.Image]:
    check_several(values, name, "images")
    return [
        image_message(value, f"{name}[{index}]") for index, value in enumerate(listed(values, name, "images"))
    ]


def check_several(values: Any, name: str, what: str) -> None:
    """Refuses a lone image where a list is wanted."""
    lone = isinstance(values, LONE_IMAGES) or hasattr(values, "read")
    if lone or (isinstance(values, np.ndarray) and values.ndim < 4):
        raise TypeError(f"{name} is a list of {what}; for a single one, put it into a list")


def listed(values: Any, name: str, what: str) -> list[Any]:
    """The items of whatever has several, in an order."""
    if isinstance(values, Mapping | Set):
        raise TypeError(
            f"{name} is a {type(values).__name__}: it must be a list of {what}, which has an order"
        )
    if isinstance(values, str | bytes) or not isinstance(values, Iterable):
        raise TypeError(f"{name} is {shown(values)}: it must be a list of {what}")
    try:
        return list(values)
    except TypeError:  # an array of no dimension, which claims to have items
        raise TypeError(f"{name} is {shown(values)}: it must be a list of {what}") from None


def array(value: Any, name: str, wanted: str, kinds: str = "iuf") -> NDArray[np.float32]:
    """Finite numbers as float32 of any shape; `wanted` is how the error says what they should be.

    kinds: NumPy's letters of what is taken as a number.
    """
    try:
        given = np.asarray(value)
    except (TypeError, ValueError):  # rows of different lengths, or what has no numbers at all
        given = np.array(None)
    if not given.size:
        # Of an empty list NumPy does not know what would be in it.
        return given.astype(np.float32)
    if given.dtype.kind not in kinds:
        raise TypeError(f"{name} is {shown(value)}: {wanted}")
    with np.errstate(over="ignore"):
        numbers = given.astype(np.float32)
    finite = np.isfinite(numbers)
    if not finite.all():
        raise ValueError(
            f"{name} has {first(given, ~finite)}: {wanted}, of finite numbers in single precision"
        )
    return numbers


def first(values: NDArray[Any], chosen: NDArray[np.bool_]) -> str:
    """The first of the chosen values, and where it is: "nan at [0, 1]"."""
    place = np.argwhere(chosen)[0].tolist()
    return f"{shown(values[tuple(place)])} at {place}"


def box(value: Any, name: str) -> NDArray[np.float32]:
    """float32 [4]: x_min, y_min, x_max, y_max."""
    wanted = "a box is [x_min, y_min, x_max, y_max]"
    numbers = array(value, name, wanted)
    match numbers.shape:
        case (4,):
            return numbers
        case ():
            advice = f"{wanted}, and several are a list of them, also of one"
        case (2, 2):
            advice = f"{wanted} in one row, not two corners"
        case (size,) if size > 4:
            advice = f"{wanted} without a score or class"
        case _:
            advice = wanted
    raise ValueError(f"{name} is {shown(value)}: {advice}")


def boxes(values: Any, name: str) -> list[NDArray[np.float32] | None]:
    """float32 [4] each, None for None."""
    items = listed(values, name, "boxes")
    # Together, as one by one a thousand take their time. What is wrong is found one by one.
    try:
        together = array(items, name, "boxes")
    except (TypeError, ValueError):
        together = np.zeros(0, np.float32)
    if together.shape == (len(items), 4):
        return list(together)
    return [None if item is None else box(item, f"{name}[{index}]") for index, item in enumerate(items)]


def shown(value: Any) -> str:
    """A value in an error: short, whatever it is."""
    if isinstance(value, np.ndarray):
        if value.size > 16:
            return f"an array {list(value.shape)} of {value.dtype}"
        value = value.tolist()
    if isinstance(value, np.generic):
        value = value.item()
    return SHORT.repr(value)
