"""Random choices from a list."""

from collections.abc import Sequence

import numpy as np


def one_of(random: np.random.Generator, choices: Sequence[str]) -> str:
    """Return one of the choices, each as likely as any other."""
    return choices[int(random.integers(len(choices)))]
