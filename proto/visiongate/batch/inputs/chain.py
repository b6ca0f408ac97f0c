"""Several sources as one."""

import hashlib
from collections.abc import Callable, Iterable, Iterator

from visiongate.batch.item import Item, Source

# Of names in a job's settings. Longer ones are shortened, with a hash of the whole.
_MAX_NAME = 1000


class Chain:
    """Sources, one after another: a `Source`. `sources` is called for each iteration."""

    def __init__(self, sources: Callable[[], Iterable[Source]], name: str) -> None:
        if len(name) > _MAX_NAME:
            digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()
            name = f"{name[: _MAX_NAME // 2]}… (and more; sha256 {digest})"
        self.name = name
        self.ignored = 0
        self._sources = sources

    def __iter__(self) -> Iterator[Item]:
        self.ignored = 0
        for source in self._sources():
            yield from source
            self.ignored += source.ignored

    def count(self) -> int | None:
        total = 0
        for source in self._sources():
            if (count := source.count()) is None:
                return None
            total += count
        return total
