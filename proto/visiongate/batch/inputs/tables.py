"""Tables with a column of images: paths, addresses, or the bytes of image files."""

import zlib
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from visiongate.batch.inputs.folder import as_id, failed
from visiongate.batch.inputs.places import Place, checked
from visiongate.batch.inputs.records import Csv, JsonLines, Parquet, Records
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
    path, or by the table's name and the number of the row from 0: `photos.parquet#7`.
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
        self._columns = [self._column, id_column] if id_column else [self._column]
        for option, name in (("--column", self._column), ("--id-column", id_column)):
            if name and name not in names:
                raise ValueError(
                    f"{self._address} has no column {name!r} for {option}; it has {_listed(names)}"
                )
        if isinstance(self._records, Parquet):
            _check_type(self._records.type_of(self._column), self._column, self._address)
        chosen = f"column {self._column}" + (f", ids {id_column}" if id_column else "")
        self.name = f"{self._address} ({chosen})"

    def __iter__(self) -> Iterator[Item]:
        references = References(self._place, self._path.rpartition("/")[0] or "/")
        for number, values in enumerate(self._records.rows(self._columns)):
            by_number = as_id(f"{self._id}#{number}")
            if isinstance(values, ValueError):
                yield failed(by_number, values)
                continue
            own = values[1] if len(values) > 1 else None
            id = by_number if own is None else _text(own)
            yield self._item(values[0], number, id, has_own=own is not None, references=references)

    def count(self) -> int | None:
        return self._records.count()

    def _item(self, value: Any, number: int, id: str, *, has_own: bool, references: References) -> Item:
        if isinstance(value, dict):
            path = value.get("path")
            if path and not has_own:
                id, has_own = _text(path), True
            value = path if value.get("bytes") is None else value["bytes"]
        if isinstance(value, str) and value:
            read, version = references.reader(value)
            return Item(id if has_own else as_id(value), read, version)
        if isinstance(value, bytes):
            name = f"the image in row {number} of {self._address}"
            return Item(id, lambda: checked(value, name), f"{len(value)}-{zlib.crc32(value):08x}")
        where = f"row {number} of {self._address}"
        if value is None or value == "":
            return failed(id, ValueError(f"{where} has no {self._column}"))
        kind = type(value).__name__
        return failed(id, ValueError(f"{where}: {self._column} is no path or address, but of type {kind}"))


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


def _check_type(found: pa.DataType, column: str, address: str) -> None:
    """Raise ValueError for a column of Parquet that cannot hold images."""
    types = pa.types
    inner = found.value_type if types.is_dictionary(found) else found
    of_text = types.is_string(inner) or types.is_large_string(inner) or types.is_string_view(inner)
    of_bytes = types.is_binary(inner) or types.is_large_binary(inner) or types.is_binary_view(inner)
    of_both = types.is_struct(inner) and inner.get_field_index("bytes") >= 0
    if not (of_text or of_bytes or of_both or types.is_fixed_size_binary(inner)):
        raise ValueError(
            f"{address}: column {column} is of type {found}; images are paths, addresses, bytes, or structs "
            "of bytes and path: say with --column which"
        )
