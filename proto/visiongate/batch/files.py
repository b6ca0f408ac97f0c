"""The Parquet files of a job: their names, their schema, and how one is written."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, Self

import pyarrow as pa
from pyarrow import parquet

from visiongate.batch.columns import COLUMNS
from visiongate.batch.item import Item
from visiongate.batch.store import Store, reason
from visiongate.command_error import CommandError

METADATA_KEY = "visiongate"
_POSITIONS_KEY = "visiongate_positions"
_GROUP = 100
"""Rows that are in memory at a time: masks are large."""
_PART = re.compile(r"part-(\d{6,})\.parquet")
_OPEN = re.compile(r"_open-(\d{6,})\.parquet")
_OTHER = re.compile(r"_job\.json|_summary(-\d+-of-\d+)?\.json")


def part_name(number: int) -> str:
    """Return the name of a block's file."""
    return f"part-{number:06d}.parquet"


def open_name(number: int) -> str:
    """Return the name of the file that keeps what was done of a block when the job was ended."""
    return f"_open-{number:06d}.parquet"


def part_numbers(names: Sequence[str]) -> list[int]:
    """Return the numbers of the blocks whose files are among these names, sorted."""
    return _numbers(_PART, names)


def open_numbers(names: Sequence[str]) -> list[int]:
    """Return the numbers of the blocks of which these names keep a part, sorted."""
    return _numbers(_OPEN, names)


def is_job_file(name: str) -> bool:
    """Return whether a name is that of a file which every job writes."""
    return any(kind.fullmatch(name) for kind in (_PART, _OPEN, _OTHER))


def job_schema(columns: pa.Schema, about: Mapping[str, Any]) -> pa.Schema:
    """Return the schema of a job's files. `about` is kept in its metadata, as JSON."""
    return pa.schema([*COLUMNS, *columns], metadata={METADATA_KEY: json.dumps(about, ensure_ascii=False)})


@dataclass(frozen=True, slots=True)
class Block:
    """A file to write.

    number: its number. length: how many rows it has. items: what is to be asked, by the place of its row in
    the file, ascending. kept: of the other rows, by place, which file has them and as its which row. is_open:
    whether there is a file that `FileWriter.keep` made of it.
    """

    number: int
    length: int
    items: Mapping[int, Item]
    kept: Mapping[int, tuple[str, int]] = field(default_factory=dict)
    is_open: bool = False

    @property
    def resumed(self) -> int:
        """How many rows come from the file that a job kept when it was ended early."""
        return sum(name == open_name(self.number) for name, _ in self.kept.values())


class FileWriter:
    """Writes the file of a block, from rows that come in any order.

    Rows are held in memory until all before them are there. As a context manager it leaves nothing behind but
    what `finish` or `keep` made. It is not for several threads at a time.
    """

    def __init__(self, store: Store, schema: pa.Schema, block: Block) -> None:
        self._store = store
        self._schema = schema
        self._block = block
        self._waiting: dict[int, Mapping[str, Any]] = {}
        # The place of the next row that goes to the file.
        self._next = 0
        self._group: list[Mapping[str, Any] | pa.Table] = []
        self._written: list[int] = []
        self._kept: dict[str, _Rows] = {}
        self._stack = ExitStack()
        self._writer: parquet.ParquetWriter | None = None
        self._path: Any = None
        self._take()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def add(self, position: int, row: Mapping[str, Any]) -> None:
        """Add the row of a place: the values of all columns; those that are missing are null."""
        assert position in self._block.items
        assert position >= self._next
        assert position not in self._waiting
        self._waiting[position] = row
        self._take()

    @property
    def is_full(self) -> bool:
        """Whether all rows are there, so that `finish` can be called."""
        return self._next == self._block.length

    def finish(self) -> None:
        """Make the block's file of all rows, in place of one that is there, and of what `keep` once made."""
        assert self.is_full
        self._put(part_name(self._block.number))
        if self._block.is_open:
            self._store.remove(open_name(self._block.number))

    def keep(self) -> None:
        """Keep the rows that are there for a later job, beside the block's file if it has one."""
        if not self._written and not self._waiting:
            return
        for position in range(self._next, self._block.length):
            if position in self._waiting:
                self._append(position, self._waiting[position])
            elif self._block.kept.get(position, ("", 0))[0] == open_name(self._block.number):
                self._append(position, self._kept_row(position))
        self._put(open_name(self._block.number))

    def close(self) -> None:
        """Drop what was not finished. After it, and after an error of writing, `keep` does nothing."""
        self._waiting.clear()
        self._written.clear()
        self._group.clear()
        self._kept.clear()
        writer, self._writer = self._writer, None
        if writer is not None:
            # A full disk would be told a second time, and a third time by the garbage collector.
            with suppress(OSError):
                writer.close()
            writer.is_open = False
        self._stack.close()

    def _take(self) -> None:
        """Pass on rows as long as none is missing."""
        while self._next < self._block.length:
            if self._next in self._waiting:
                self._append(self._next, self._waiting.pop(self._next))
            elif self._next in self._block.kept:
                self._append(self._next, self._kept_row(self._next))
            else:
                return
            self._next += 1

    def _append(self, position: int, row: Mapping[str, Any] | pa.Table) -> None:
        self._group.append(row)
        self._written.append(position)
        if len(self._group) == _GROUP:
            self._flush()

    def _kept_row(self, position: int) -> pa.Table:
        name, row = self._block.kept[position]
        if name not in self._kept:
            self._kept[name] = _Rows(self._store, name, self._schema)
        return self._kept[name].row(row)

    def _flush(self) -> None:
        """Write the rows of the group as a row group."""
        with self._all_or_nothing(part_name(self._block.number)):
            self._opened().write_table(pa.concat_tables(self._tables()))
        self._group.clear()

    def _tables(self) -> Iterator[pa.Table]:
        """Yield the rows of the group: those that are kept as they are, and new ones together."""
        for is_kept, rows in groupby(self._group, lambda row: isinstance(row, pa.Table)):
            if is_kept:
                yield from rows
            else:
                yield pa.Table.from_pylist(list(rows), schema=self._schema)

    @contextmanager
    def _all_or_nothing(self, name: str) -> Iterator[None]:
        """Drop all rows if writing fails: nobody knows which of them are in the file then."""
        try:
            yield
        except BaseException as error:
            self.close()
            if isinstance(error, OSError):
                self._store.fail_writing(name, error)
            raise

    def _opened(self) -> parquet.ParquetWriter:
        if self._writer is None:
            self._path = self._stack.enter_context(self._store.temporary(part_name(self._block.number)))
            self._writer = parquet.ParquetWriter(
                self._path,
                self._schema,
                compression="zstd",
                # Of numbers, dictionaries would be larger than the numbers.
                use_dictionary=["status", "error_message"],
                write_statistics=["id"],
                write_page_checksum=True,
            )
        return self._writer

    def _put(self, name: str) -> None:
        if self._group:
            self._flush()
        with self._all_or_nothing(name):
            writer = self._opened()
            if name != part_name(self._block.number):
                writer.add_key_value_metadata({_POSITIONS_KEY: json.dumps(self._written)})
            writer.close()
            self._writer = None
            self._store.put(name, self._path)
        self.close()


def open_file(store: Store, name: str, stack: ExitStack) -> parquet.ParquetFile:
    """Open a job's Parquet file, until the stack is closed. Raise CommandError if it cannot be read."""
    try:
        return parquet.ParquetFile(
            stack.enter_context(store.open_input(name)), page_checksum_verification=True
        )
    except (OSError, pa.ArrowException) as error:
        raise unreadable(store, name, error) from error


def unreadable(store: Store, name: str, error: Exception) -> CommandError:
    """Return the error for a Parquet file that cannot be read: it is damaged, or not to be had now."""
    # The errors of a network and those of wrong bytes are of the same kind.
    if isinstance(error, OSError) and (error.errno is not None or not store.is_local):
        return CommandError(f"{store.path(name)} cannot be read: {reason(error)}")
    return CommandError(
        f"{store.path(name)} is damaged ({reason(error)}): remove it to have its inputs done again, or give "
        "--overwrite to begin anew"
    )


def open_positions(file: parquet.ParquetFile) -> list[int]:
    """Return the places in the block of the rows of a file that `FileWriter.keep` made."""
    positions: list[int] = json.loads((file.metadata.metadata or {}).get(_POSITIONS_KEY.encode(), b"[]"))
    return positions


class _Rows:
    """The rows of a file, each as a table, in ascending order; a row group of them is in memory."""

    def __init__(self, store: Store, name: str, schema: pa.Schema) -> None:
        self._store = store
        self._name = name
        self._schema = schema
        self._groups = self._read()
        self._first = 0
        self._group = pa.Table.from_pylist([], schema=schema)

    def row(self, number: int) -> pa.Table:
        while number >= self._first + len(self._group):
            self._first += len(self._group)
            group = next(self._groups, None)
            if group is None:
                raise CommandError(f"{self._store.path(self._name)} has changed meanwhile: run the job again")
            self._group = group
        return self._group.slice(number - self._first, 1)

    def _read(self) -> Iterator[pa.Table]:
        with ExitStack() as stack:
            file = open_file(self._store, self._name, stack)
            if not file.schema_arrow.equals(self._schema, check_metadata=False):
                raise CommandError(
                    f"{self._store.path(self._name)} has other columns than this version of visiongate "
                    "writes: give another --out, or --overwrite to begin anew"
                )
            try:
                for group in range(file.num_row_groups):
                    yield file.read_row_group(group).replace_schema_metadata(self._schema.metadata)
            except (OSError, pa.ArrowException) as error:
                raise unreadable(self._store, self._name, error) from error


def _numbers(pattern: re.Pattern[str], names: Sequence[str]) -> list[int]:
    return sorted(int(match[1]) for name in names if (match := pattern.fullmatch(name)))
