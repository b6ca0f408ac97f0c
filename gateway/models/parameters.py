"""A model's parameters, strings by name as Triton's config holds them, read into values."""

import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

_WHOLE_NUMBER = re.compile(r"\s*[0-9]+\s*")
_SIZE = re.compile(r"\s*([1-9][0-9]*)x([1-9][0-9]*)\s*")


@dataclass(frozen=True, slots=True)
class ParameterReader:
    """Reads the parameters of one model.

    Every method raises ValueError if the value is wrong, or if it is missing and there is no default. The
    message names the parameter, its value and what the value must be.
    """

    parameters: Mapping[str, str]

    def text(self, name: str) -> str:
        """Return a text that is not empty."""
        text = self._value(name)
        if not text:
            raise self.wrong(name, "a text that is not empty")
        return text

    def one_of(self, name: str, choices: Collection[str], default: str | None = None) -> str:
        """Return one of `choices`."""
        choice = self._value(name, default)
        if choice not in choices:
            raise self.wrong(name, f"one of {', '.join(choices)}")
        return choice

    def whole_number(self, name: str, minimum: int = 1, maximum: int | None = None) -> int:
        """Return a whole number from `minimum` to `maximum`."""
        text = self._value(name)
        number = int(text) if _WHOLE_NUMBER.fullmatch(text) else -1
        if number < minimum or (maximum is not None and number > maximum):
            bounds = f"of at least {minimum}" if maximum is None else f"from {minimum} to {maximum}"
            raise self.wrong(name, f"a whole number {bounds}")
        return number

    def multiple(self, name: str, factor: int) -> int:
        """Return a positive multiple of `factor`."""
        text = self._value(name)
        number = int(text) if _WHOLE_NUMBER.fullmatch(text) else 0
        if number < 1 or number % factor:
            raise self.wrong(name, f"a positive multiple of {factor}")
        return number

    def rising_numbers(self, name: str) -> tuple[int, ...]:
        """Return positive whole numbers, written with commas between them, each larger than the last."""
        items = self._value(name).split(",")
        numbers = [int(item) if _WHOLE_NUMBER.fullmatch(item) else 0 for item in items]
        if numbers[0] < 1 or numbers != sorted(set(numbers)):
            raise self.wrong(name, "positive whole numbers in rising order, separated by commas")
        return tuple(numbers)

    def sizes(self, name: str) -> tuple[tuple[int, int], ...]:
        """Return sizes (height, width), written as HEIGHTxWIDTH with commas between them."""
        matches = [_SIZE.fullmatch(item) for item in self._value(name).split(",")]
        sizes = tuple((int(match[1]), int(match[2])) for match in matches if match)
        if len(sizes) < len(matches):
            raise self.wrong(name, "sizes as HEIGHTxWIDTH, separated by commas")
        return sizes

    def size(self, name: str) -> tuple[int, int]:
        """Return one size (height, width), written as HEIGHTxWIDTH."""
        match = _SIZE.fullmatch(self._value(name))
        if not match:
            raise self.wrong(name, "a size as HEIGHTxWIDTH")
        return int(match[1]), int(match[2])

    def positive_number(self, name: str) -> float:
        """Return a finite number above 0."""
        number = _number(self._value(name))
        if not (number > 0 and math.isfinite(number)):
            raise self.wrong(name, "a number above 0")
        return number

    def fraction(self, name: str, default: float | None = None) -> float:
        """Return a number from 0 to 1."""
        number = _number(self._value(name, None if default is None else str(default)))
        if not 0 <= number <= 1:
            raise self.wrong(name, "a number from 0 to 1")
        return number

    def wrong(self, name: str, requirement: str) -> ValueError:
        """Return the error for a value that is not what it must be, in the wording of all such errors."""
        return ValueError(f"Parameter {name} is {self.parameters[name]!r}; it must be {requirement}.")

    def _value(self, name: str, default: str | None = None) -> str:
        value = self.parameters.get(name, default)
        if value is None:
            raise ValueError(f"The model has no parameter {name}.")
        return value


def _number(text: str) -> float:
    """Return NaN, which is within no bounds, for what is not a number."""
    try:
        return float(text)
    except ValueError:
        return math.nan
