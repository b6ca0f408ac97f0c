"""A finished job of a million inputs is started again: how long until it knows that nothing is to do?

    PYTHONPATH=tests python -m soak.resume [--rows N]

Also asked: how long with an input more in front of all others, with one in a thousand files changed, and with
failures to try again, and how much memory it takes. No server is asked: this is about the files.
"""

import argparse
import resource
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from batch_jobs import Inputs
from soak.goals import finish
from visiongate.batch.files import FileWriter, job_schema
from visiongate.batch.output import Output
from visiongate.batch.plan import make_plan
from visiongate.batch.store import Store, open_store

ROWS, ROWS_PER_FILE, DIMENSIONS = 1_000_000, 1000, 128
UNCHANGED_S, CHANGED_S = 10.0, 30.0
UNCHANGED_MIB, CHANGED_MIB = 100, 1000
SCHEMA = job_schema(pa.schema([pa.field("embedding", pa.list_(pa.float32(), DIMENSIONS))]), {"task": "embed"})


def fill(store: Store, source: Inputs) -> None:
    """Write the files of a finished job, where one input in 10,000 has failed."""
    numbers = np.random.default_rng(0)
    for block in make_plan(source, Output(store), ROWS_PER_FILE).blocks():
        vectors = numbers.random((block.length, DIMENSIONS), np.float32)
        with FileWriter(store, SCHEMA, block) as writer:
            for position, item in block.items.items():
                is_bad = (block.number * ROWS_PER_FILE + position) % 10_000 == 0
                writer.add(
                    position,
                    {
                        "id": item.id,
                        "status": "INVALID_ARGUMENT" if is_bad else "OK",
                        "error_message": "the file is no image" if is_bad else "",
                        "width": 640,
                        "height": 480,
                        "sha256": f"{position:064x}",
                        "elapsed_ms": 12.5,
                        "version": item.version,
                        "embedding": None if is_bad else vectors[position],
                    },
                )
            writer.finish()


class Names(Sequence[str]):
    """Paths as photo folders have them, made as they are asked for."""

    def __init__(self, amount: int) -> None:
        self._amount = amount

    def __len__(self) -> int:
        return self._amount

    def __getitem__(self, index: Any) -> Any:
        return f"2026/{index // 5000:04}/IMG_{index:07}.jpg"

    def __iter__(self) -> Iterator[str]:
        return map(self.__getitem__, range(self._amount))


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rows", type=int, default=ROWS)
    amount = parser.parse_args().rows
    names = Names(amount)
    goals = {}
    with tempfile.TemporaryDirectory() as folder:
        store = open_store(str(Path(folder, "out")))
        began = time.monotonic()
        fill(store, Inputs(names))
        print(f"{amount} rows written in {time.monotonic() - began:.0f} s", flush=True)
        changed = {names[index]: "2" for index in range(0, amount, 1000)}
        for what, source, retry_failed, items, seconds, mib in (
            ("unchanged", Inputs(names), False, 0, UNCHANGED_S, UNCHANGED_MIB),
            ("failures again", Inputs(names), True, amount // 10_000, CHANGED_S, UNCHANGED_MIB),
            ("changed files", Inputs(names, changed), False, len(changed), CHANGED_S, UNCHANGED_MIB),
            ("a new input", Inputs(["0.jpg", *names]), False, 1, CHANGED_S, CHANGED_MIB),
        ):
            before, began = peak_mib(), time.monotonic()
            plan = make_plan(source, Output(store), ROWS_PER_FILE, retry_failed=retry_failed)
            found = sum(len(block.items) for block in plan.blocks())
            taken, more = time.monotonic() - began, peak_mib() - before
            print(f"{what}: {found} to do, {taken:.1f} s, {more:.0f} MiB more", flush=True)
            goals[f"{what}: {items} to do, and {amount} rows in all"] = (
                found == items and plan.done + items == source.count()
            )
            goals[f"{what}: in {seconds:.0f} s"] = taken <= seconds
            goals[f"{what}: with {mib} MiB"] = more <= mib
    finish(goals)


if __name__ == "__main__":
    main()
