"""How a script ends: with the goals that it missed."""

import sys
from collections.abc import Mapping
from typing import NoReturn

Goals = Mapping[str, bool]
"""What is wanted, in words, and whether it was reached."""


def finish(goals: Goals) -> NoReturn:
    """Print the goals that were missed, or that all were reached. Exit with 1 or 0."""
    missed = [goal for goal, is_reached in goals.items() if not is_reached]
    for goal in missed:
        print(f"MISSED: {goal}")
    if not missed:
        print("reached")
    sys.exit(bool(missed))
