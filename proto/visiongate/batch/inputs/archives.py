"""WebDataset archives: tar files whose members are images and what belongs to them."""

import functools
import tarfile
from collections.abc import Callable, Iterator
from typing import IO, Any, cast

from visiongate.batch.inputs.folder import as_id, failed
from visiongate.batch.inputs.places import Local, Place, checked, is_connection
from visiongate.batch.inputs.records import is_gzip, opened
from visiongate.batch.item import Item
from visiongate.operations.image_file import MAX_BYTES


class Archive:
    """The images of a tar file, in its order: a `Source`. Ids are `shard-000.tar/folder/name.jpg`.

    Of a plain file on this machine, images are read when they are asked for. Others, compressed ones and
    those in buckets, are read once, from start to end, and each image is in memory as long as its item is.

    An archive that breaks off, or is none, has an item more, `shard-000.tar/`, whose `read` says so.
    """

    def __init__(self, place: Place, path: str, id: str, version: str, wanted: Callable[[str], bool]) -> None:
        self.ignored = 0
        self.name = place.address(path)
        self._place = place
        self._path = path
        self._id = id
        self._version = version
        self._wanted = wanted
        self._by_place = isinstance(place, Local) and not is_gzip(path)

    def __iter__(self) -> Iterator[Item]:
        self.ignored = 0
        version = self._version or self._place.version(self._path)
        try:
            with opened(self._place, self._path) as file:
                for member, data in self._members(file):
                    id = as_id(f"{self._id}/{member.name.removeprefix('./')}")
                    yield self._item(member, data, id, f"{version}-{member.offset}")
        except (OSError, ValueError, tarfile.TarError) as error:
            if is_connection(self._place, error):
                raise
            yield failed(as_id(f"{self._id}/"), self._sentence(error))

    def count(self) -> int | None:
        # Others would be read whole.
        return sum(1 for _ in self) if self._by_place else None

    def _members(self, file: IO[bytes]) -> Iterator[tuple[tarfile.TarInfo, bytes | None]]:
        """Yield images with their bytes, unless these are read by their place in the file."""
        tap = _Tap(file)
        with tarfile.open(fileobj=cast(IO[bytes], tap), mode="r:") as tar:
            while (member := tar.next()) is not None:
                # It would keep them all.
                tar.members = []  # type: ignore[attr-defined]
                name = member.name.rpartition("/")[2]
                if member.isdir() or name.startswith("."):
                    continue
                if not self._wanted(name):
                    self.ignored += 1
                    continue
                yield member, None if self._by_place else self._data(tar, member)
        # The library ends quietly at a header that is damaged, too.
        if any(tap.last) or not tap.last:
            raise tarfile.ReadError("it has no end")

    def _data(self, tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes | None:
        try:
            found = tar.extractfile(member) if member.isreg() else None
            return found.read(MAX_BYTES + 1) if found else None
        except tarfile.ReadError:
            # The archive breaks off here.
            return None

    def _item(self, member: tarfile.TarInfo, data: bytes | None, id: str, version: str) -> Item:
        name = f"{self.name}/{member.name}"
        if not member.isreg():
            return failed(id, ValueError(f"{name} is no file but a link or a device"))
        if self._by_place:
            return Item(id, functools.partial(self._read, member.offset_data, member.size, name), version)
        if data is None:
            return failed(id, self._broken(name))
        return Item(id, lambda: checked(data, name), version)

    def _read(self, offset: int, size: int, name: str) -> bytes:
        with opened(self._place, self._path) as file:
            file.seek(offset)
            data = file.read(min(size, MAX_BYTES + 1))
        if len(data) < min(size, MAX_BYTES + 1):
            raise self._broken(name)
        return checked(data, name)

    def _broken(self, name: str) -> ValueError:
        return ValueError(f"{self.name} breaks off within {name}")

    def _sentence(self, error: Exception) -> Exception:
        if isinstance(error, tarfile.TarError):
            return ValueError(f"{self.name} is no whole tar file: {error}")
        return error


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
