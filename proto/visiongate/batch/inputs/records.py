"""The rows of tables of text, read little by little."""

import csv
import gzip
import io
import json
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import IO, Any, Protocol, cast

from visiongate.batch.inputs.places import Place, cannot_read

Values = Sequence[Any] | ValueError
"""Of a row: the values of the columns that were asked for, None for those that it lacks; or what is wrong."""

_BUFFER_BYTES = 1 << 20
# JSON has no header: so many lines tell which columns there are.
_FIRST_LINES = 100


class Records(Protocol):
    """A file with rows. Its methods raise OSError or ValueError, a sentence, if it is not of its format."""

    def columns(self) -> list[str]: ...

    def rows(self, columns: Sequence[str]) -> Iterator[Values]: ...

    def count(self) -> int | None: ...


def is_gzip(path: str) -> bool:
    """Return whether a name is that of a compressed file."""
    return path.lower().endswith((".gz", ".tgz"))


@contextmanager
def opened(place: Place, path: str) -> Iterator[IO[bytes]]:
    """Open a file to read from its start; of a gzip file, what it holds. Errors become sentences."""
    name = place.address(path)
    with place.open(path) as file:
        try:
            if is_gzip(path):
                yield cast(IO[bytes], gzip.GzipFile(fileobj=file))
            else:
                # Not all of fsspec's files have a buffer, and would read lines byte by byte.
                yield io.BufferedReader(cast(io.RawIOBase, file), _BUFFER_BYTES)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise ValueError(f"{name} is no whole gzip file") from error
        except OSError as error:
            raise cannot_read(name, error) from error


class Csv:
    """A table of text with a header, which separates values by commas or, in a .tsv file, by tabs."""

    def __init__(self, place: Place, path: str, separator: str) -> None:
        self._place = place
        self._path = path
        self._separator = separator
        self._name = place.address(path)

    def columns(self) -> list[str]:
        names = next(self._rows(), [])
        if not names:
            raise ValueError(f"{self._name} is empty: its first line names the columns")
        return names

    def rows(self, columns: Sequence[str]) -> Iterator[Values]:
        rows = self._rows()
        header = next(rows, [])
        places = [header.index(name) for name in columns]
        for row in rows:
            if row:
                yield [row[place] if place < len(row) else None for place in places]

    def count(self) -> int | None:
        return max(sum(1 for row in self._rows() if row) - 1, 0)

    def _rows(self) -> Iterator[list[str]]:
        with opened(self._place, self._path) as file:
            text = io.TextIOWrapper(file, "utf-8-sig", "surrogateescape", newline="")
            try:
                yield from csv.reader(text, delimiter=self._separator)
            except csv.Error as error:
                raise ValueError(f"{self._name} is no table of text: {error}") from error


class JsonLines:
    """A file with a JSON object a line. A line that is none is an error of its own."""

    def __init__(self, place: Place, path: str) -> None:
        self._place = place
        self._path = path
        self._name = place.address(path)

    def columns(self) -> list[str]:
        names: dict[str, None] = {}
        for _, line in islice(self._lines(), _FIRST_LINES):
            found = self._parsed(0, line)
            if isinstance(found, dict):
                names.update(dict.fromkeys(found))
        if not names:
            raise ValueError(f"{self._name} has no line that is a JSON object with values")
        return list(names)

    def rows(self, columns: Sequence[str]) -> Iterator[Values]:
        for number, line in self._lines():
            found = self._parsed(number, line)
            yield found if isinstance(found, ValueError) else [found.get(name) for name in columns]

    def count(self) -> int | None:
        return sum(1 for _ in self._lines())

    def _lines(self) -> Iterator[tuple[int, bytes]]:
        with opened(self._place, self._path) as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield number, line

    def _parsed(self, number: int, line: bytes) -> dict[str, Any] | ValueError:
        try:
            found = json.loads(line.decode("utf-8-sig"))
        except (ValueError, RecursionError) as error:
            return ValueError(f"line {number} of {self._name} is no JSON: {error}")
        if not isinstance(found, dict):
            return ValueError(f"line {number} of {self._name} is no JSON object")
        return found
