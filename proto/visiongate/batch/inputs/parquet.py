"""The rows of Parquet files, read little by little."""

import threading
from bisect import bisect_right
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from visiongate.batch.inputs.in_order import InOrder
from visiongate.batch.inputs.places import Place
from visiongate.batch.inputs.records import Values

_ROWS = 10_000
# Of images: so many are decoded at once, and so many are kept: as many as threads may read at once.
_IMAGE_ROWS = 16
_KEPT_IMAGES = 64
_BUFFER_BYTES = 1 << 20


class Parquet:
    """A Parquet file. Its methods raise OSError or ValueError, a sentence, if it is none."""

    def __init__(self, place: Place, path: str) -> None:
        self._place = place
        self._path = path
        self._name = place.address(path)
        self._images: dict[str, InOrder[bytes | None]] = {}
        self._lock = threading.Lock()

    def columns(self) -> list[str]:
        with self._opened() as file:
            return list(file.schema_arrow.names)

    def type_of(self, column: str) -> pa.DataType:
        with self._opened() as file:
            return file.schema_arrow.field(column).type

    def rows(self, columns: Sequence[str]) -> Iterator[Values]:
        """Yield the values of columns, also of one within a column of structs, such as `image.path`."""
        with self._opened() as file:
            if not columns:
                yield from ([] for _ in range(file.metadata.num_rows))
                return
            for batch in file.iter_batches(_ROWS, columns=list(dict.fromkeys(columns))):
                arrays = [_column(batch, name) for name in columns]
                for row in range(batch.num_rows):
                    yield [array[row].as_py() for array in arrays]

    def count(self) -> int | None:
        with self._opened() as file:
            return int(file.metadata.num_rows)

    def bytes_of(self, column: str, row: int) -> bytes | None:
        """Return a value of a column of bytes, from any thread. It is quick in about the order of rows."""
        with self._lock:
            if column not in self._images:
                self._images[column] = self._in_order(column)
        return self._images[column].get(row)

    def _in_order(self, column: str) -> InOrder[bytes | None]:
        with self._opened() as file:
            sizes = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
        # The first row of each group.
        starts = list(accumulate(sizes, initial=0))[:-1]

        def group_of(row: int) -> int:
            return bisect_right(starts, row) - 1

        def begin(first: int) -> Generator[tuple[int, bytes | None], None, None]:
            groups = range(group_of(first), len(starts))
            row = starts[groups.start]
            with self._opened() as file:
                for batch in file.iter_batches(_IMAGE_ROWS, row_groups=list(groups), columns=[column]):
                    values = _column(batch, column)
                    for index in range(batch.num_rows):
                        if row >= first:
                            yield row, values[index].as_py()
                        row += 1

        # Within a group, rows are only found by reading all that are before.
        return InOrder(begin, _KEPT_IMAGES, lambda next, row: group_of(row) > group_of(next))

    @contextmanager
    def _opened(self) -> Iterator[pq.ParquetFile]:
        with self._place.open(self._path) as file:
            try:
                # With a buffer a group's column is read little by little, and not whole.
                with pq.ParquetFile(file, buffer_size=_BUFFER_BYTES, pre_buffer=False) as parquet:
                    yield parquet
            except (pa.ArrowInvalid, OSError) as error:
                # OSError is also how pyarrow says that a page is damaged.
                reason = str(error).splitlines()[0]
                raise ValueError(f"{self._name} is no whole Parquet file: {reason}") from error


def _column(batch: pa.RecordBatch, name: str) -> pa.Array:
    """Return a column, or that within a column of structs: null where the struct is."""
    if name in batch.schema.names:
        return batch.column(name)
    outer, _, inner = name.rpartition(".")
    return pc.struct_field(batch.column(outer), inner)
