"""Checks of numbers and lengths. Each names the field, what it is, and what it must be."""

import math
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from google.protobuf.message import Message

from gateway.errors import InvalidArgumentError

Number = TypeVar("Number", int, float)


@dataclass(frozen=True, slots=True)
class Range:
    """Numbers from `low` to `high`; without the bound itself if `without_low` or `without_high` is set."""

    low: float
    high: float = math.inf
    without_low: bool = False
    without_high: bool = False

    def check(self, value: Number, path: str) -> Number:
        """Return the value. Raise InvalidArgumentError if it lies outside, or is NaN."""
        is_over = value > self.low or (value == self.low and not self.without_low)
        is_under = value < self.high or (value == self.high and not self.without_high)
        if not (is_over and is_under):
            raise InvalidArgumentError(path, f"is {written(value)}; it must be {self}")
        return value

    def __str__(self) -> str:
        if self.high == math.inf:
            return f"{self.low:.15g} or more"
        low = f"over {self.low:.15g}," if self.without_low else f"{self.low:.15g}"
        return f"{low} to {'less than ' if self.without_high else ''}{self.high:.15g}"


FRACTION = Range(0, 1)


def optional(message: Message, name: str, allowed: Range, prefix: str = "") -> float | None:
    """Return an optional number of a message, checked; None if it is not set."""
    if not message.HasField(name):
        return None
    value: float = getattr(message, name)
    return allowed.check(value, prefix + name)


def check_count(count: int, limit: int, path: str, what: str) -> None:
    """Raise InvalidArgumentError for more items than a request may have."""
    if count > limit:
        raise InvalidArgumentError(path, f"has {count} {what}; the limit is {limit}")


def written(value: float) -> str:
    """Return a number of a request as its caller wrote it.

    Floats are single precision on the wire: as Python's doubles, -0.1 would read -0.10000000149011612.
    """
    return str(value) if isinstance(value, int) else str(np.float32(value)).removesuffix(".0")
