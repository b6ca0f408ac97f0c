"""WebDataset archives: tar files whose members are images and what belongs to them."""

import functools
import tarfile
from collections.abc import Callable, Generator, Iterator
from typing import IO, Any, cast

from visiongate.batch.inputs.folder import as_id, failed
from visiongate.batch.inputs.in_order import InOrder
from visiongate.batch.inputs.places import Local, Place, cannot_read, checked, is_connection
from visiongate.batch.inputs.records import is_gzip, opened
from visiongate.batch.item import Item
from visiongate.operations.image_file import MAX_BYTES

# Of a compressed archive: as many as threads may read at once.
_KEPT = 64


class Archive:
    """The images of a tar file, in its order: a `Source`. Ids are `shard-000.tar/folder/name.jpg`.

    Images are read when they are asked for: by their place in the file, or, of a compressed one, by reading
    it a second time from its start. An archive that breaks off, or is none, has an item more,
    `shard-000.tar/`, whose `read` says so.
    """

    def __init__(self, place: Place, path: str, id: str, version: str, wanted: Callable[[str], bool]) -> None:
        self.ignored = 0
        self.name = place.address(path)
        self._place = place
        self._path = path
        self._id = id
        self._version = version
        self._wanted = wanted
        self._in_order = InOrder(self._data, _KEPT) if is_gzip(path) else None

    def __iter__(self) -> Iterator[Item]:
        # Only set at the end: `count` may be called while another thread iterates.
        ignored = 0
        version = self._version or self._place.version(self._path)
        try:
            with opened(self._place, self._path) as file:
                for number, (_, member) in enumerate(_files(file)):
                    if not self._wanted(member.name):
                        ignored += 1
                        continue
                    id = as_id(f"{self._id}/{member.name.removeprefix('./')}")
                    yield self._item(number, member, id, f"{version}-{member.offset}")
        except (OSError, ValueError, tarfile.TarError) as error:
            if is_connection(self._place, error):
                raise
            if isinstance(error, tarfile.TarError):
                error = ValueError(f"{self.name} is no whole tar file: {error}")
            yield failed(as_id(f"{self._id}/"), error)
        self.ignored = ignored

    def count(self) -> int | None:
        # Others would be read whole.
        is_at_hand = isinstance(self._place, Local) and self._in_order is None
        return sum(1 for _ in self) if is_at_hand else None

    def _item(self, number: int, member: tarfile.TarInfo, id: str, version: str) -> Item:
        name = f"{self.name}/{member.name}"
        if not member.isreg():
            return failed(id, ValueError(f"{name} is no file but a link or a device"))
        if self._in_order is None:
            return Item(id, functools.partial(self._read, member.offset_data, member.size, name), version)
        return Item(id, functools.partial(self._read_in_order, number, name), version)

    def _read(self, offset: int, size: int, name: str) -> bytes:
        size = min(size, MAX_BYTES + 1)
        with self._place.open(self._path) as file:
            try:
                file.seek(offset)
                data = file.read(size)
            except OSError as error:
                raise cannot_read(self.name, error) from error
        if len(data) < size:
            raise ValueError(f"{self.name} breaks off within {name}")
        return checked(data, name)

    def _read_in_order(self, number: int, name: str) -> bytes:
        assert self._in_order is not None
        try:
            return checked(self._in_order.get(number), name)
        except (EOFError, LookupError, tarfile.TarError) as error:
            raise ValueError(f"{self.name} breaks off within {name}") from error

    def _data(self, first: int) -> Generator[tuple[int, bytes], None, None]:
        """Yield the bytes of files from a number on."""
        with opened(self._place, self._path) as file:
            for number, (tar, member) in enumerate(_files(file)):
                if number >= first and member.isreg():
                    found = tar.extractfile(member)
                    yield number, found.read(MAX_BYTES + 1) if found else b""


def _files(file: IO[bytes]) -> Iterator[tuple[tarfile.TarFile, tarfile.TarInfo]]:
    """Yield all but folders and hidden names. Raise TarError for what is no whole archive."""
    tap = _Tap(file)
    with tarfile.open(fileobj=cast(IO[bytes], tap), mode="r:") as tar:
        while (member := tar.next()) is not None:
            # It would keep them all.
            tar.members = []  # type: ignore[attr-defined]
            if not member.isdir() and not member.name.rpartition("/")[2].startswith("."):
                yield tar, member
    # The library ends quietly at a header that is damaged, too.
    if any(tap.last) or not tap.last:
        raise tarfile.ReadError("it has no end")


class _Tap:
    """A file that remembers what was read last."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self.last = b""

    def read(self, size: int = -1) -> bytes:
        self.last = self._file.read(size)
        return self.last

    def seek(self, place: int) -> int:
        return int(self._file.seek(place))

    def tell(self) -> int:
        return int(self._file.tell())
