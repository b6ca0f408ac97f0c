"""Patterns of paths: `*`, `?` and `[…]` within a name, `**` for folders at any depth."""

import fnmatch
import re
from collections.abc import Iterable, Sequence

_MAGIC = re.compile(r"[*?\[]")
ANY_DEPTH = "**"

# Which parts of a pattern the next name may match; None: all that is here was matched.
State = frozenset[int] | None


def has_magic(text: str) -> bool:
    """Return whether a text has characters of patterns."""
    return _MAGIC.search(text) is not None


def split(path: str) -> tuple[str, list[str]]:
    """Return the folder before the first part of a path that is a pattern, and the parts from there."""
    parts = path.split("/")
    first = next((index for index, part in enumerate(parts) if has_magic(part)), len(parts))
    return "/".join(parts[:first]) or "/", [part for part in parts[first:] if part]


class Pattern:
    """A pattern of paths below a folder, by the names between `/`. Hidden names match hidden ones only."""

    def __init__(self, parts: Sequence[str]) -> None:
        self._parts = [
            None if part == ANY_DEPTH else re.compile(fnmatch.translate(part)).match for part in parts
        ]
        self._hidden = [part.startswith(".") for part in parts]
        self.start: State = self._closed([0])

    def _closed(self, places: Iterable[int]) -> frozenset[int]:
        """Add what comes after each `**`, which may match no folder at all."""
        found = set()
        for first in places:
            place = first
            found.add(place)
            while place < len(self._parts) and self._parts[place] is None:
                place += 1
                found.add(place)
        return frozenset(found)

    def matched(self, name: str, state: State) -> bool:
        """Return whether a path that ends with this name, of a file or a folder, matches it all."""
        return state is None or any(
            place == len(self._parts) - 1 and self._matches(place, name) for place in state
        )

    def inside(self, name: str, state: State) -> State:
        """Return the state in a folder of this name; an empty one if nothing in it can match."""
        if self.matched(name, state):
            return None
        assert state is not None
        places = {
            place if self._parts[place] is None else place + 1
            for place in state
            if place < len(self._parts) and self._matches(place, name)
        }
        return self._closed(places)

    def _matches(self, place: int, name: str) -> bool:
        part = self._parts[place]
        if name.startswith(".") and not self._hidden[place]:
            return False
        return part is None or part(name) is not None
