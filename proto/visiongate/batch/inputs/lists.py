"""Lists of images: a path or an address a line."""

import os
import sys
from collections.abc import Iterable, Iterator, Sequence

from visiongate.batch.inputs.folder import as_id
from visiongate.batch.inputs.places import Local, Place
from visiongate.batch.inputs.records import opened
from visiongate.batch.inputs.references import References
from visiongate.batch.item import Item

_BOM = b"\xef\xbb\xbf"


class ListFile:
    """A text file with a path or an address a line: a `Source`. Its lines are the ids.

    Paths are relative to the file's folder. Empty lines are left out.
    """

    def __init__(self, place: Place, path: str) -> None:
        self.ignored = 0
        self.name = place.address(path)
        self._place = place
        self._path = path

    def __iter__(self) -> Iterator[Item]:
        return _items(self._lines(), References(self._place, self._path.rpartition("/")[0] or "/"))

    def count(self) -> int | None:
        return sum(1 for _ in self._lines())

    def _lines(self) -> Iterator[bytes]:
        with opened(self._place, self._path) as file:
            for number, line in enumerate(file):
                text = line.rstrip(b"\r\n")
                if number == 0:
                    text = text.removeprefix(_BOM)
                if text:
                    yield text


class Lines:
    """Paths, relative to the current folder, or addresses, that were given as they are: a `Source`."""

    def __init__(self, lines: Sequence[bytes], name: str) -> None:
        self.ignored = 0
        self.name = name
        self._lines = lines
        self._references = References(Local(), os.getcwd())

    def __iter__(self) -> Iterator[Item]:
        return _items(self._lines, self._references)

    def count(self) -> int | None:
        return len(self._lines)


def standard_input() -> Lines:
    """Read paths or addresses from standard input: a line each, or each ended by NUL if there is one.

    They stay in memory. Raises ValueError if standard input is a terminal.
    """
    if sys.stdin is None:
        raise ValueError("- reads paths from standard input, which is closed")
    if sys.stdin.isatty():
        raise ValueError("- reads paths from standard input, which is this terminal: send a list there")
    data = sys.stdin.buffer.read()
    if b"\0" in data:
        lines = data.split(b"\0")
    else:
        lines = [line.rstrip(b"\r") for line in data.removeprefix(_BOM).split(b"\n")]
    return Lines([line for line in lines if line], "standard input")


def _items(lines: Iterable[bytes], references: References) -> Iterator[Item]:
    for line in lines:
        text = os.fsdecode(line)
        read, version = references.reader(text)
        yield Item(as_id(text), read, version)
