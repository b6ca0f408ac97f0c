"""A folder's files, or those that a pattern names, one by one."""

import functools
from collections.abc import Callable, Iterator

from visiongate.batch.inputs.patterns import ANY_DEPTH, Pattern, State
from visiongate.batch.inputs.places import Place, is_connection, read
from visiongate.batch.item import Item

Found = tuple[str, str, str, OSError | None]
"""Of a file: path, path relative to the root, version if it is known. Of a folder that cannot be listed: its
relative path with `/` at the end, and the error."""


class Tree:
    """The files below a folder of a place. It can be walked any number of times.

    Whole paths are in the order of their bytes, as in a bucket. Hidden names are left out. Links are
    followed, but not those to a folder that the link is in. One folder of each depth is in memory.
    """

    def __init__(
        self, place: Place, root: str, wanted: Callable[[str], bool], pattern: Pattern | None = None
    ) -> None:
        self.place = place
        self.root = root
        self._wanted = wanted
        self._pattern = pattern or Pattern([ANY_DEPTH])
        self._start: State = pattern.start if pattern else None
        self.ignored = 0

    def __iter__(self) -> Iterator[Found]:
        # Only set at the end: `count` may be called while another thread iterates.
        ignored = 0
        lineage = {self.place.identity(path) for path in self.place.parents(self.root)}
        above = self.root.rstrip("/")
        open_folders = [(above, "", self._start, iter(self.place.entries(self.root)), object())]
        while open_folders:
            folder, relative, state, entries, mark = open_folders[-1]
            for name, version in entries:
                if name.endswith("/"):
                    opened = self._enter(folder, relative, name[:-1], state, lineage)
                    if isinstance(opened, OSError):
                        yield f"{folder}/{name}", f"{relative}{name}", "", opened
                    elif opened is not None:
                        open_folders.append(opened)
                        break
                elif name.startswith(".") and state is None:
                    continue
                elif state is None or self._pattern.matched(name, state):
                    if self._wanted(name):
                        yield f"{folder}/{name}", relative + name, version, None
                    else:
                        ignored += 1
            else:
                open_folders.pop()
                lineage.discard(mark)
        self.ignored = ignored

    def _enter(
        self, folder: str, relative: str, name: str, state: State, lineage: set[object]
    ) -> tuple[str, str, State, Iterator[tuple[str, str]], object] | OSError | None:
        """Return what is in a folder, an error if that cannot be told, None if it is not to be entered."""
        if state is None:
            if name.startswith("."):
                return None
        else:
            state = self._pattern.inside(name, state)
            if state is not None and not state:
                return None
        path = f"{folder}/{name}"
        try:
            mark = self.place.identity(path)
            if mark is not None and mark in lineage:
                return None
            entries = self.place.entries(path)
        except OSError as error:
            if is_connection(self.place, error):
                raise
            return error
        lineage.add(mark)
        return path, f"{relative}{name}/", state, iter(entries), mark


class Folder:
    """The images of a tree: a `Source`. Their ids are paths relative to the root, after a prefix."""

    def __init__(self, tree: Tree, name: str, prefix: str) -> None:
        self.name = name
        self._tree = tree
        self._prefix = prefix
        self.ignored = 0

    def __iter__(self) -> Iterator[Item]:
        place = self._tree.place
        for path, relative, version, error in self._tree:
            id = as_id(self._prefix + relative)
            if error is None:
                yield Item(id, functools.partial(read, place, path), version or place.version(path))
            else:
                yield failed(id, error)
        self.ignored = self._tree.ignored

    def count(self) -> int | None:
        return sum(1 for _ in self._tree)


class OneFile:
    """An image file that was named itself: a `Source`."""

    def __init__(self, place: Place, path: str, id: str, version: str) -> None:
        self.ignored = 0
        self.name = place.address(path)
        self._place = place
        self._path = path
        self._id = as_id(id)
        self._version = version

    def __iter__(self) -> Iterator[Item]:
        version = self._version or self._place.version(self._path)
        yield Item(self._id, functools.partial(read, self._place, self._path), version)

    def count(self) -> int | None:
        return 1


def as_id(path: str) -> str:
    r"""Return a path that can be written as UTF-8: bytes of a name that are not are spelled `\xff`."""
    if path.isascii():
        return path
    try:
        return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:
        # Half of a pair of UTF-16, as JSON may spell it.
        return path.encode("utf-8", "backslashreplace").decode()


def failed(id: str, error: Exception) -> Item:
    """Return the input whose bytes are not to be had."""

    def read() -> bytes:
        # A copy: an error that is raised twice, perhaps in two threads, gathers the frames of both.
        raise type(error)(*error.args)

    return Item(id, read)
