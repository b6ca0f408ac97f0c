"""Jobs without a server: sources of given ids, and rows that say which input they are of."""

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from visiongate.batch.files import Block, FileWriter, job_schema
from visiongate.batch.item import Item
from visiongate.batch.output import Output
from visiongate.batch.plan import Plan, make_plan
from visiongate.batch.store import Store

SCHEMA = job_schema(pa.schema([pa.field("answer", pa.string())]), {"task": "say"})


class Inputs:
    """A source of these ids. An input's version is what `versions` says; its bytes are its id and version.

    reads: how often it was iterated.
    """

    name = "inputs"
    ignored = 0

    def __init__(self, ids: Sequence[str], versions: Mapping[str, str] | None = None) -> None:
        self.ids = ids
        self.versions = versions or {}
        self.reads = 0

    def __iter__(self) -> Iterator[Item]:
        self.reads += 1
        return map(self.item, self.ids)

    def item(self, name: str) -> Item:
        version = self.versions.get(name, "1")
        return Item(name, f"{name} {version}".encode, version)

    def count(self) -> int:
        return len(self.ids)


def answer(item: Item, failing: Collection[str] = ()) -> dict[str, Any]:
    """Return the row of an item, that of a failure if its id is among `failing`."""
    is_bad = item.id in failing
    return {
        "id": item.id,
        "status": "UNAVAILABLE" if is_bad else "OK",
        "error_message": "it is gone" if is_bad else "",
        "version": item.version,
        "answer": None if is_bad else item.read().decode(),
    }


def work(
    store: Store,
    source: Inputs,
    rows_per_file: int,
    *,
    shard: tuple[int, int] = (0, 1),
    retry_failed: bool = False,
    failing: Collection[str] = (),
    do: Callable[[FileWriter, Block], bool] | None = None,
) -> Plan:
    """Do what a job would, and return its plan. `do` does a block in its own way, or ends it by False."""
    plan = make_plan(source, Output(store), rows_per_file, shard, retry_failed)
    for block in plan.blocks():
        with FileWriter(store, SCHEMA, block) as writer:
            if do is not None and not do(writer, block):
                break
            if not writer.is_full:
                for position, item in block.items.items():
                    writer.add(position, answer(item, failing))
            writer.finish()
    return plan


def rows(store: Store) -> list[dict[str, Any]]:
    """Return all rows of a folder."""
    output = Output(store)
    found: list[dict[str, Any]] = output.table().to_pylist() if output.files() else []
    return found


def ids(store: Store) -> Counter[str]:
    """Return how many rows each id has in a folder."""
    return Counter(row["id"] for row in rows(store))
