"""Tables with a column of images: paths, addresses, or the bytes of image files."""

import functools
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from visiongate.batch.inputs.folder import as_id, failed
from visiongate.batch.inputs.parquet import Parquet
from visiongate.batch.inputs.places import Place, checked
from visiongate.batch.inputs.records import Csv, JsonLines, Records
from visiongate.batch.inputs.references import References
from visiongate.batch.item import Item

# Usual names of the column of images, the likeliest first.
_USUAL = (
    *("image", "path", "file_name", "url", "image_path", "filename", "file", "file_path", "filepath"),
    *("image_url", "uri", "image_uri", "img", "img_path", "photo", "picture", "jpg", "png", "bytes"),
)


class Table:
    """The rows of a table: a `Source`. An id is what `id_column` says, or the path or address of the image.

    Images that are in the table as bytes, or as Hugging Face has them, {bytes, path}, are called by that
    path, or by the table's name and the number of the row from 0: `photos.parquet#7`. They are read when they
    are asked for.
    """

    def __init__(
        self, place: Place, path: str, id: str, kind: str, *, column: str = "", id_column: str = ""
    ) -> None:
        """Choose the columns. Raises ValueError or OSError, a sentence."""
        self.ignored = 0
        self._place = place
        self._path = path
        self._id = id
        self._address = place.address(path)
        self._records = _records(place, path, kind)
        names = self._records.columns()
        self._column = column or _guess(names, self._address)
        self._id_column = id_column
        for option, name in (("--column", self._column), ("--id-column", id_column)):
            if name and name not in names:
                has = _listed(names)
                raise ValueError(f"{self._address} has no column {name!r} for {option}; it has {has}")
        self._bytes, self._references = _parts(self._records, self._column, self._address)
        chosen = f"column {self._column}" + (f", ids {id_column}" if id_column else "")
        self.name = f"{self._address} ({chosen})"

    def __iter__(self) -> Iterator[Item]:
        references = References(self._place, self._path.rpartition("/")[0] or "/")
        columns = [name for name in (self._references, self._id_column) if name]
        version = self._place.version(self._path) if self._bytes else ""
        for number, values in enumerate(self._records.rows(columns)):
            id = as_id(f"{self._id}#{number}")
            if isinstance(values, ValueError):
                yield failed(id, values)
                continue
            reference = values[0] if self._references else None
            if self._id_column and values[-1] is not None:
                id = _text(values[-1])
            elif isinstance(reference, str) and reference:
                id = as_id(reference)
            if self._bytes:
                read = functools.partial(self._read, number, reference, references)
                yield Item(id, read, version)
            else:
                yield self._named(id, number, reference, references)

    def count(self) -> int | None:
        return self._records.count()

    def _named(self, id: str, number: int, reference: Any, references: References) -> Item:
        """Return the input whose image is elsewhere."""
        if reference is None or reference == "":
            return failed(id, self._without(number))
        if not isinstance(reference, str):
            kind = type(reference).__name__
            where = f"row {number} of {self._address}"
            return failed(
                id, ValueError(f"{where}: {self._column} is no path or address, but of type {kind}")
            )
        read, version = references.reader(reference)
        return Item(id, read, version)

    def _read(self, number: int, reference: str | None, references: References) -> bytes:
        """Return the bytes that are in the table; those of its path if there are none."""
        assert isinstance(self._records, Parquet)
        try:
            data = self._records.bytes_of(self._bytes, number)
        except LookupError as error:
            raise ValueError(f"{self._address} has no row {number} any more") from error
        if data is not None:
            return checked(data, f"the image in row {number} of {self._address}")
        if reference:
            return references.reader(reference)[0]()
        raise self._without(number)

    def _without(self, number: int) -> ValueError:
        return ValueError(f"row {number} of {self._address} has no {self._column}")


def _records(place: Place, path: str, kind: str) -> Records:
    if kind == "parquet":
        return Parquet(place, path)
    if kind == "jsonl":
        return JsonLines(place, path)
    return Csv(place, path, "\t" if kind == "tsv" else ",")


def _text(value: Any) -> str:
    """Return a value as an id: bytes as names of files, all others as Python writes them."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    return as_id(str(value))


def _guess(names: list[str], address: str) -> str:
    if len(names) == 1:
        return names[0]
    by_lower = {name.lower(): name for name in reversed(names)}
    for usual in _USUAL:
        if usual in by_lower:
            return by_lower[usual]
    raise ValueError(
        f"{address}: no column has a usual name for images; say with --column which of {_listed(names)}"
    )


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - 20} more" if len(names) > 20 else ""
    return ", ".join(names[:20]) + more


def _parts(records: Records, column: str, address: str) -> tuple[str, str]:
    """Return which column has bytes, and which has paths or addresses; "" for one that is not there.

    Raises ValueError for a column of Parquet that cannot hold images.
    """
    if not isinstance(records, Parquet):
        return "", column
    types = pa.types
    found = records.type_of(column)
    inner = found.value_type if types.is_dictionary(found) else found
    if types.is_string(inner) or types.is_large_string(inner) or types.is_string_view(inner):
        return "", column
    if any(is_one(inner) for is_one in (types.is_binary, types.is_large_binary, types.is_binary_view)):
        return column, ""
    if types.is_struct(inner) and inner.get_field_index("bytes") >= 0:
        return f"{column}.bytes", f"{column}.path" if inner.get_field_index("path") >= 0 else ""
    raise ValueError(
        f"{address}: column {column} is of type {found}; images are paths, addresses, bytes, or structs of "
        "bytes and path: say with --column which"
    )
