"""The finished files of a job, for all that is made of them."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass

import pyarrow as pa

from visiongate.batch.files import open_file, open_positions, part_name, part_numbers, unreadable
from visiongate.batch.store import Store
from visiongate.command_error import CommandError

_READ_AHEAD = 8


@dataclass(frozen=True, slots=True)
class Head:
    """What tells of a file's rows which inputs they are of. Each list has a value for each row.

    positions: the places of the rows in their block.
    """

    ids: Sequence[str]
    versions: Sequence[str]
    statuses: Sequence[str]
    positions: Sequence[int]


class Output:
    """The finished files of a folder. Their rows are in the order of the files' numbers.

    All methods raise CommandError, with a sentence, for a damaged file.
    """

    def __init__(self, store: Store) -> None:
        self.store = store

    def files(self) -> list[int]:
        """Return the numbers of the files that are there now, sorted."""
        return part_numbers(self.store.names())

    def schema(self) -> pa.Schema:
        """Return the schema of the files; its metadata has the job as JSON, see `job_schema`."""
        with ExitStack() as stack:
            return open_file(self.store, part_name(self._some()[0]), stack).schema_arrow

    def table(self, columns: Sequence[str] | None = None, files: Iterable[int] | None = None) -> pa.Table:
        """Return the rows of some files, by default of all, with some columns, by default with all.

        Raise CommandError if there are no files, or a column is not among theirs.
        """
        batches = list(self.batches(columns, files))
        if batches:
            return pa.Table.from_batches(batches)
        schema = self.schema()
        return pa.Table.from_batches([], schema=schema if columns is None else _chosen(schema, columns))

    def batches(
        self, columns: Sequence[str] | None = None, files: Iterable[int] | None = None
    ) -> Iterator[pa.RecordBatch]:
        """Yield the same as `table`, some rows at a time, so that memory holds few of them."""
        for number in self._some() if files is None else files:
            with ExitStack() as stack:
                file = open_file(self.store, part_name(number), stack)
                if columns is not None and (missing := set(columns) - set(file.schema_arrow.names)):
                    raise CommandError(f"{self.store.name} has no column {', '.join(sorted(missing))}")
                try:
                    for group in range(file.num_row_groups):
                        yield from file.read_row_group(group, columns=columns).to_batches()
                except (OSError, pa.ArrowException) as error:
                    raise unreadable(self.store, part_name(number), error) from error

    def heads(self, names: Iterable[str]) -> Iterator[Head]:
        """Yield the heads of files of these names. Some files of a bucket are read ahead."""
        if self.store.is_local:
            yield from map(self.head, names)
            return
        ahead: deque[Future[Head]] = deque()
        with ThreadPoolExecutor(_READ_AHEAD) as pool:
            try:
                for name in names:
                    ahead.append(pool.submit(self.head, name))
                    if len(ahead) == _READ_AHEAD:
                        yield ahead.popleft().result()
                while ahead:
                    yield ahead.popleft().result()
            finally:
                for future in ahead:
                    future.cancel()

    def head(self, name: str) -> Head:
        """Return the head of a file of this name."""
        with ExitStack() as stack:
            file = open_file(self.store, name, stack)
            try:
                table = file.read(columns=["id", "version", "status"], use_threads=False)
                ids, versions, statuses = (
                    table[column].to_pylist() for column in ("id", "version", "status")
                )
            except (OSError, KeyError, pa.ArrowException) as error:
                raise unreadable(self.store, name, error) from error
            return Head(ids, versions, statuses, open_positions(file) or range(len(ids)))

    def _some(self) -> list[int]:
        files = self.files()
        if not files:
            raise CommandError(f"{self.store.name} has no Parquet files of `visiongate batch`")
        return files


def _chosen(schema: pa.Schema, columns: Sequence[str]) -> pa.Schema:
    return pa.schema([schema.field(name) for name in columns], metadata=schema.metadata)
