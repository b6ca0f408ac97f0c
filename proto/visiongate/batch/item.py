"""The inputs of a job, one by one."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Item:
    r"""An input of a job.

    id: its name in the output: the path relative to the source's root with `/` between folders, or what a
    table's column says. It can be written as UTF-8; bytes of a name that are not are spelled `\xff`.
    read: returns the bytes of the image file. It may be called from any thread, at any time, several times,
    and raises OSError or ValueError, whose text is a sentence for people, if there are none.
    version: differs once the contents differ, such as size and time of a file; empty where nothing tells.
    time_s: the time of a video's frame from its start, in seconds; None for other inputs.
    """

    id: str
    read: Callable[[], bytes]
    version: str = ""
    time_s: float | None = None


class Source(Protocol):
    """Where inputs come from. It can be iterated any number of times, and has the same order each time.

    name: what it is, for people and for the job's settings: the same for the same inputs.
    ignored: how many files the last iteration has left out, as they are no images by their names.
    """

    name: str
    ignored: int

    def __iter__(self) -> Iterator[Item]: ...

    def count(self) -> int | None:
        """Return how many items there are, None if only reading them all would tell. It may take a while."""
        ...
