"""Checks of the callers' arguments, before NumPy or protobuf see them.

All raise ValueError, or TypeError for the wrong type, with a sentence that starts with the argument's name.
Nothing is cast, cut or left out to make it fit.
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

from visiongate.operations.image import ImageHandle, ImageLike, image_message
from visiongate.v1 import image_pb2

# None if the argument may be left out: then the server's default holds.
Count = TypeVar("Count", int, int | None)
Number = TypeVar("Number", float, float | None)
Choice = TypeVar("Choice")

SHORT = reprlib.Repr()
SHORT.maxstring = SHORT.maxother = 120
MAX_UINT32 = 2**32 - 1
# A single image of these types could be taken for a list: bytes iterate as numbers, a file as lines.
LONE_IMAGES = (str, bytes, bytearray, memoryview, os.PathLike, Image.Image, ImageHandle)


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
    """Return a number from 0 to 1."""
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


def choice(value: str | None, name: str, choices: Mapping[str, Choice]) -> Choice | None:
    """Return what one of the names stands for, or None for none."""
    if value is None:
        return None
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name} is {shown(value)}: it must be one of {', '.join(choices)}")
    return choices[value]


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
    """Refuse a lone image that stands for a list."""
    lone = isinstance(values, LONE_IMAGES) or hasattr(values, "read")
    if lone or (isinstance(values, np.ndarray) and values.ndim < 4):
        raise TypeError(f"{name} is a list of {what}; for a single one, put it into a list")


def listed(values: Any, name: str, what: str) -> list[Any]:
    """Return the items of any iterable that has an order."""
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
    """Return finite numbers as float32 of any shape; `wanted` says in errors what they should be.

    kinds: NumPy's letters of the types that count as numbers.
    """
    try:
        items = np.asarray(value)
    except (TypeError, ValueError):  # rows of different lengths, or no numbers at all
        items = np.array(None)
    if not items.size:
        # NumPy cannot know the type of an empty list's items.
        return items.astype(np.float32)
    if items.dtype.kind not in kinds:
        raise TypeError(f"{name} is {shown(value)}: {wanted}")
    with np.errstate(over="ignore"):
        numbers = items.astype(np.float32)
    finite = np.isfinite(numbers)
    if not finite.all():
        raise ValueError(
            f"{name} has {first(items, ~finite)}: {wanted}, of finite numbers in single precision"
        )
    return numbers


def first(values: NDArray[Any], chosen: NDArray[np.bool_]) -> str:
    """Show the first of the chosen values, and where it is: "nan at [0, 1]"."""
    index = np.argwhere(chosen)[0].tolist()
    return f"{shown(values[tuple(index)])} at {index}"


def box(value: Any, name: str) -> NDArray[np.float32]:
    """Return a box: float32 [4], x_min, y_min, x_max, y_max."""
    wanted = "a box is [x_min, y_min, x_max, y_max]"
    numbers = array(value, name, wanted)
    match numbers.shape:
        case (4,):
            return numbers
        case ():
            advice = f"{wanted}, and several are a list of them, also if there is only one"
        case (2, 2):
            advice = f"{wanted} in one row, not two corners"
        case (size,) if size > 4:
            advice = f"{wanted} without a score or class"
        case _:
            advice = wanted
    raise ValueError(f"{name} is {shown(value)}: {advice}")


def boxes(values: Any, name: str) -> list[NDArray[np.float32] | None]:
    """Return boxes: float32 [4] each, None for None."""
    items = listed(values, name, "boxes")
    # All at once, because a thousand one by one take their time. If one is wrong, they are read one by one.
    try:
        together = array(items, name, "boxes")
    except (TypeError, ValueError):
        together = np.zeros(0, np.float32)
    if together.shape == (len(items), 4):
        return list(together)
    return [None if item is None else box(item, f"{name}[{index}]") for index, item in enumerate(items)]


def shown(value: Any) -> str:
    """Return a value for an error message: short, whatever it is."""
    if isinstance(value, np.ndarray):
        if value.size > 16:
            return f"an array {list(value.shape)} of {value.dtype}"
        value = value.tolist()
    if isinstance(value, np.generic):
        value = value.item()
    return SHORT.repr(value)
