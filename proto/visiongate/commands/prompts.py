"""Boxes and points as the command line has them."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from visiongate.command_error import CommandError

BOX_EXAMPLE = "75,275,1725,850"
POINT_EXAMPLE = "500,375"


@dataclass(frozen=True, eq=False, slots=True)
class Prompts:
    """What `Client.segment` takes: boxes float [n, 4] or None; for each prompt points [m, 2] and labels [m].

    Points and labels are None if no prompt has any.
    """

    boxes: NDArray[np.float64] | None
    points: list[NDArray[np.float64]] | None
    labels: list[NDArray[np.int64]] | None

    def __len__(self) -> int:
        return len(self.points or ()) if self.boxes is None else len(self.boxes)


def read_boxes(texts: Sequence[str]) -> NDArray[np.float64]:
    """Read x_min,y_min,x_max,y_max of each text: float [n, 4]."""
    return np.array([_numbers(text, BOX_EXAMPLE) for text in texts])


def read_points(text: str) -> NDArray[np.float64]:
    """Read points, x,y with spaces between them: float [m, 2]."""
    pairs = re.sub(r"\s*,\s*", ",", text).split()
    return np.array([_numbers(pair, POINT_EXAMPLE) for pair in pairs]).reshape(-1, 2)


def read_prompts(boxes: Sequence[str], points: Sequence[str], background: Sequence[str]) -> Prompts:
    """Read --box, --point and --background: the first of each make one prompt, the second another, and so on.

    Raises CommandError if there are not as many of each.
    """
    options = {"--box": boxes, "--point": points, "--background": background}
    if background and not boxes and not points:
        raise CommandError("--background says what is not the object: give --point or --box too")
    counts = {option: len(texts) for option, texts in options.items() if texts}
    if len(set(counts.values())) > 1:
        raise CommandError(
            f"{' and '.join(f'{count} {option}' for option, count in counts.items())} do not pair up: the "
            "first of each make one prompt, the second another. Points of one object go into one --point, "
            'with spaces between them; --background "" gives a prompt none'
        )
    coordinates, labels = None, None
    if points or background:
        count = max(counts.values())
        on_object = [read_points(text) for text in points or [""] * count]
        off_object = [read_points(text) for text in background or [""] * count]
        pairs = list(zip(on_object, off_object, strict=True))
        coordinates = [np.concatenate(pair) for pair in pairs]
        labels = [np.repeat([1, 0], [len(on), len(off)]) for on, off in pairs]
    return Prompts(read_boxes(boxes) if boxes else None, coordinates, labels)


def _numbers(text: str, example: str) -> list[float]:
    """Read as many numbers as the example has."""
    count = example.count(",") + 1
    try:
        values = [float(value) for value in text.split(",")]
    except ValueError:
        values = []
    if len(values) != count or not all(map(math.isfinite, values)):
        raise CommandError(f"{text!r} is not {count} numbers with commas between them, such as {example}")
    return values
