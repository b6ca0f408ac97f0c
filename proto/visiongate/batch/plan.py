"""What a job still has to do: its inputs less those that earlier runs have done.

A source's inputs from number `b * rows_per_file` on are block b, and its rows are file b. As long as that
holds for the files that are there, little has to be in memory. Once inputs have come, gone or moved among
those that are done, rows are found by their ids, and what is new goes to files after the last one.
"""

from abc import ABC, abstractmethod
from bisect import bisect_right
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import islice

from visiongate.batch.columns import OK
from visiongate.batch.files import Block, open_name, open_numbers, part_name, part_numbers
from visiongate.batch.item import Item, Source
from visiongate.batch.output import Head, Output
from visiongate.command_error import CommandError


class Plan(ABC):
    """What is to do.

    done: how many rows of the job are in finished files, and stay as they are. statuses: how many of them
    have which status. renewed: how many rows of finished files are done anew in place. gone: how many rows
    are of inputs that the source has no more; they stay, and are not among `done`.
    """

    done = 0
    renewed = 0
    gone = 0

    def __init__(self) -> None:
        self.statuses: Counter[str] = Counter()

    @abstractmethod
    def blocks(self) -> Iterator[Block]:
        """Yield what is to do, in the order of the files, as it is asked for. It can be called once more."""

    @abstractmethod
    def pending(self, count: int | None) -> int | None:
        """Return how many inputs are to be done if the source has this many; None if nothing tells."""

    def _keep(self, head: Head, rows: Collection[int]) -> None:
        self.done += len(rows)
        self.statuses.update(head.statuses[row] for row in rows)


def make_plan(
    source: Source,
    output: Output,
    rows_per_file: int,
    shard: tuple[int, int] = (0, 1),
    retry_failed: bool = False,
) -> Plan:
    """Return what is to do in a folder, for the shard (i, n), i from 0.

    Raise CommandError for a damaged file, and if a sharded job's inputs have changed: its shards could not
    agree on the files of what is new.
    """
    names = output.store.names()
    blocks = _Blocks(source, output, rows_per_file, shard, retry_failed, names)
    if blocks.compare():
        return blocks
    if shard[1] > 1:
        raise CommandError(
            f"the inputs have changed since {output.store.name} was begun, and shards cannot agree on "
            "what is new: run the job once without --shard, or give another --out"
        )
    return _Changed(source, output, rows_per_file, retry_failed, names)


class _Blocks(Plan):
    """The plan where file b is that of block b, for all files of the shard."""

    def __init__(
        self,
        source: Source,
        output: Output,
        rows_per_file: int,
        shard: tuple[int, int],
        retry_failed: bool,
        names: Sequence[str],
    ) -> None:
        super().__init__()
        self._source = source
        self._rows_per_file = rows_per_file
        self._shard = shard
        self._heads = _Heads(output, retry_failed, names)
        self._finished = [number for number in part_numbers(names) if self._is_own(number)]
        # Files that stay as they are, once `compare` has seen them.
        self._untouched: set[int] = set()
        # Whether the source ends with the last file.
        self._ends = False

    def compare(self) -> bool:
        """Read the ids of the files. Return False if one has other inputs than its block."""
        if not self._finished:
            return True
        chunks = enumerate(_chunks(self._source, self._rows_per_file))
        heads = self._heads.of_parts(self._finished)
        for number, head in zip(self._finished, heads, strict=True):
            chunk = next((items for each, items in chunks if each == number), [])
            if self._heads.are_all_done(head, chunk):
                self.done += len(chunk)
                self.statuses.update(head.statuses)
                if not self._heads.is_open(number):
                    self._untouched.add(number)
            elif [item.id for item in chunk] != head.ids:
                return False
            else:
                kept = [row for row, item in enumerate(chunk) if self._heads.is_done(head, row, item)]
                self._keep(head, kept)
                self.renewed += len(chunk) - len(kept)
        self._ends = next(chunks, None) is None
        return True

    def blocks(self) -> Iterator[Block]:
        if self._ends and len(self._untouched) == len(self._finished) == self._own_blocks(
            self._finished[-1] + 1
        ):
            return
        finished = set(self._finished)
        for number, items in enumerate(_chunks(self._source, self._rows_per_file)):
            if number in self._untouched or not self._is_own(number):
                continue
            part = self._heads.part(number) if number in finished else None
            if part is not None and [item.id for item in items] != part.ids:
                raise CommandError("the inputs change while the job runs: run it again when they do not")
            yield self._heads.block(number, items, part)

    def pending(self, count: int | None) -> int | None:
        if count is None:
            return None
        full, rest = divmod(count, self._rows_per_file)
        own = self._own_blocks(full) * self._rows_per_file + (rest if self._is_own(full) else 0)
        return max(own - self.done, 0)

    def _is_own(self, number: int) -> bool:
        return number % self._shard[1] == self._shard[0]

    def _own_blocks(self, count: int) -> int:
        """Return how many of the first blocks are the shard's."""
        return len(range(self._shard[0], count, self._shard[1]))


class _Changed(Plan):
    """The plan where inputs are found by their ids. Those of all files are in memory."""

    def __init__(
        self, source: Source, output: Output, rows_per_file: int, retry_failed: bool, names: Sequence[str]
    ) -> None:
        super().__init__()
        self._source = source
        self._rows_per_file = rows_per_file
        self._heads = _Heads(output, retry_failed, names)
        self._numbers = part_numbers(names)
        self._known = _Known(list(self._heads.of_parts(self._numbers)))
        self._new = 0
        # By file and row: the inputs that are done anew.
        self._renewals: dict[int, dict[int, Item]] = {}
        self._compare()

    def _compare(self) -> None:
        found = self._known.finder()
        kept: list[set[int]] = [set() for _ in self._numbers]
        for item in self._source:
            place = found.take(item.id)
            if place is None:
                self._new += 1
                continue
            file, row = place
            if self._heads.is_done(self._known.heads[file], row, item):
                kept[file].add(row)
            else:
                self._renewals.setdefault(file, {})[row] = item
                self.renewed += 1
        for head, rows in zip(self._known.heads, kept, strict=True):
            self._keep(head, rows)
        self.gone = self._known.count - self.done - self.renewed

    def blocks(self) -> Iterator[Block]:
        for file in sorted(self._renewals):
            number, head, items = self._numbers[file], self._known.heads[file], self._renewals[file]
            yield self._heads.renewal(number, head, items)
        if self._new:
            for number, chunk in enumerate(
                _chunks(self._unknown(), self._rows_per_file), self._numbers[-1] + 1
            ):
                yield self._heads.block(number, chunk, None)

    def _unknown(self) -> Iterator[Item]:
        found = self._known.finder()
        return (item for item in self._source if found.take(item.id) is None)

    def pending(self, count: int | None) -> int | None:
        return self._new + self.renewed


class _Heads:
    """The heads of the files, and which of their rows are done."""

    def __init__(self, output: Output, retry_failed: bool, names: Sequence[str]) -> None:
        self._output = output
        self._retry_failed = retry_failed
        self._open = frozenset(open_numbers(names))

    def of_parts(self, numbers: Sequence[int]) -> Iterator[Head]:
        return self._output.heads(map(part_name, numbers))

    def part(self, number: int) -> Head:
        return self._output.head(part_name(number))

    def is_open(self, number: int) -> bool:
        return number in self._open

    def is_done(self, head: Head, row: int, item: Item) -> bool:
        """Return whether a row of this item is to stay."""
        return (
            head.ids[row] == item.id
            and head.versions[row] == item.version
            and (head.statuses[row] == OK or not self._retry_failed)
        )

    def are_all_done(self, head: Head, items: Sequence[Item]) -> bool:
        """Return whether the rows are of these items, and all are to stay: `is_done` in less time."""
        return (
            [item.id for item in items] == head.ids
            and [item.version for item in items] == head.versions
            and not (self._retry_failed and any(status != OK for status in head.statuses))
        )

    def block(self, number: int, items: Sequence[Item], part: Head | None) -> Block:
        """Return the block of these items, less what is done, in its file or in what an ended job kept."""
        kept: dict[int, tuple[str, int]] = {}
        if part is not None:
            for row, item in enumerate(items):
                if self.is_done(part, row, item):
                    kept[row] = (part_name(number), row)
        return self._resumed(number, len(items), dict(enumerate(items)), kept)

    def renewal(self, number: int, part: Head, items: Mapping[int, Item]) -> Block:
        """Return the block of a file of which these items are done anew, by row."""
        kept = {row: (part_name(number), row) for row in range(len(part.ids)) if row not in items}
        return self._resumed(number, len(part.ids), items, kept)

    def _resumed(
        self, number: int, length: int, items: Mapping[int, Item], kept: dict[int, tuple[str, int]]
    ) -> Block:
        if number in self._open:
            head = self._output.head(open_name(number))
            for row, position in enumerate(head.positions):
                item = items.get(position)
                if item is None or not self.is_done(head, row, item):
                    continue
                # Of a failure that was tried again.
                if position not in kept or head.statuses[row] == OK:
                    kept[position] = (open_name(number), row)
        asked = {position: items[position] for position in sorted(items) if position not in kept}
        return Block(number, length, asked, kept, is_open=number in self._open)


class _Known:
    """The rows of files, by id. A row is named by its file's place in `heads`, and its own there.

    count: how many there are.
    """

    def __init__(self, heads: Sequence[Head]) -> None:
        self.heads = heads
        self._starts: list[int] = []
        self.count = 0
        for head in heads:
            self._starts.append(self.count)
            self.count += len(head.ids)
        self._first: dict[str, int] = {}
        # From a row to the next of the same id, where ids are not unique.
        self._following: dict[int, int] = {}
        for start, head in zip(reversed(self._starts), reversed(heads), strict=True):
            for row in range(start + len(head.ids) - 1, start - 1, -1):
                name = head.ids[row - start]
                if name in self._first:
                    self._following[row] = self._first[name]
                self._first[name] = row

    def finder(self) -> "_Finder":
        return _Finder(dict(self._first), self._following, self._starts)


class _Finder:
    """Gives each row once, rows of the same id in their order."""

    def __init__(self, first: dict[str, int], following: Mapping[int, int], starts: Sequence[int]) -> None:
        self._first = first
        self._following = following
        self._starts = starts

    def take(self, name: str) -> tuple[int, int] | None:
        row = self._first.pop(name, None)
        if row is None:
            return None
        if row in self._following:
            self._first[name] = self._following[row]
        file = bisect_right(self._starts, row) - 1
        return file, row - self._starts[file]


def _chunks(items: Source | Iterator[Item], length: int) -> Iterator[list[Item]]:
    """Yield the items in lists of a length; the last may be shorter, and none is empty."""
    iterator = iter(items)
    while chunk := list(islice(iterator, length)):
        yield chunk
