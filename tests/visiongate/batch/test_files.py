"""The files of blocks: rows that come in any order, and rows that are taken over from other files."""

import errno
import json
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from batch_jobs import SCHEMA, Inputs, answer
from visiongate.batch.columns import COLUMNS
from visiongate.batch.files import (
    Block,
    FileWriter,
    is_job_file,
    job_schema,
    open_name,
    open_numbers,
    part_name,
    part_numbers,
)
from visiongate.batch.item import Item
from visiongate.batch.output import Output
from visiongate.batch.store import Store, open_store
from visiongate.command_error import CommandError

ITEMS = list(Inputs([f"{number:03}.jpg" for number in range(350)]))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path))


def write(store: Store, block: Block, order: Iterable[int]) -> None:
    with FileWriter(store, SCHEMA, block) as writer:
        for position in order:
            writer.add(position, answer(block.items[position]))
        if writer.is_full:
            writer.finish()
        else:
            writer.keep()


def block(items: dict[int, Item], **keywords: Any) -> Block:
    return Block(0, len(ITEMS), items, **keywords)


@pytest.mark.parametrize("order", ["as asked", "backwards", "mixed"])
def test_rows_are_in_the_order_of_the_inputs(store: Store, order: str) -> None:
    positions = list(range(len(ITEMS)))
    if order == "backwards":
        positions.reverse()
    elif order == "mixed":
        np.random.default_rng(0).shuffle(positions)
    write(store, block(dict(enumerate(ITEMS))), positions)
    table = Output(store).table()
    assert table["id"].to_pylist() == [item.id for item in ITEMS]
    assert table["answer"].to_pylist() == [item.read().decode() for item in ITEMS]


def test_files_are_written_in_groups_of_rows_that_any_reader_takes(store: Store, tmp_path: Path) -> None:
    write(store, block(dict(enumerate(ITEMS))), range(len(ITEMS)))
    file = parquet.ParquetFile(tmp_path / part_name(0))
    assert [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)] == [
        100,
        100,
        100,
        50,
    ]
    # Readers of folders leave out what begins with `_` or `.`.
    (tmp_path / "_summary.json").write_text("{}")
    assert parquet.read_table(tmp_path).num_rows == len(ITEMS)


def test_a_file_has_the_columns_of_every_job_then_the_tasks_and_says_of_which_job_it_is(store: Store) -> None:
    write(store, block(dict(enumerate(ITEMS))), range(len(ITEMS)))
    schema = Output(store).schema()
    assert schema.names == [*COLUMNS.names, "answer"]
    assert json.loads(schema.metadata[b"visiongate"]) == {"task": "say"}


def test_what_a_job_kept_is_taken_over_with_its_gaps(store: Store) -> None:
    done = [*range(120), 200, 349]
    write(store, block(dict(enumerate(ITEMS))), done)
    assert store.names() == [open_name(0)]
    head = Output(store).head(open_name(0))
    assert (head.positions, head.ids) == (done, [ITEMS[position].id for position in done])
    kept = {position: (open_name(0), row) for row, position in enumerate(done)}
    left = {position: item for position, item in enumerate(ITEMS) if position not in kept}
    # It is ended a second time, before the rows that were kept last.
    again = block(left, kept=kept, is_open=True)
    write(store, again, range(120, 150))
    done = [*range(150), 200, 349]
    assert Output(store).head(open_name(0)).positions == done
    kept = {position: (open_name(0), row) for row, position in enumerate(done)}
    left = {position: item for position, item in left.items() if position not in kept}
    last = block(left, kept=kept, is_open=True)
    assert last.resumed == 152
    write(store, last, reversed(left))
    assert store.names() == [part_name(0)]
    assert Output(store).table()["answer"].to_pylist() == [item.read().decode() for item in ITEMS]


def test_rows_done_anew_replace_theirs_alone(store: Store) -> None:
    write(store, block(dict(enumerate(ITEMS))), range(len(ITEMS)))
    changed = {
        position: Inputs([ITEMS[position].id], {ITEMS[position].id: "2"}) for position in (0, 199, 349)
    }
    items = {position: next(iter(inputs)) for position, inputs in changed.items()}
    kept = {row: (part_name(0), row) for row in range(len(ITEMS)) if row not in items}
    write(store, block(items, kept=kept), items)
    expected = [f"{item.id} {2 if position in items else 1}" for position, item in enumerate(ITEMS)]
    assert Output(store).table()["answer"].to_pylist() == expected


def test_a_file_that_is_dropped_leaves_nothing(store: Store, tmp_path: Path) -> None:
    writer = FileWriter(store, SCHEMA, block(dict(enumerate(ITEMS))))
    for position in range(150):
        writer.add(position, answer(ITEMS[position]))
    assert len(os.listdir(tmp_path)) == 1
    writer.close()
    assert os.listdir(tmp_path) == []
    with FileWriter(store, SCHEMA, block(dict(enumerate(ITEMS)))) as writer:
        writer.keep()
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("full", [100, len(ITEMS)])
def test_nothing_is_kept_after_an_error_of_writing(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, full: int
) -> None:
    """Half of a group may be in the file: rows would be taken for those of other inputs."""

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "")

    writer = FileWriter(store, SCHEMA, block(dict(enumerate(ITEMS))))

    def fill() -> None:
        for position in range(full):
            writer.add(position, answer(ITEMS[position]))
        writer.finish()

    with monkeypatch.context() as patch:
        patch.setattr(parquet.ParquetWriter, "write_table" if full == 100 else "close", fail)
        with pytest.raises(CommandError, match="No space left"):
            fill()
    writer.keep()
    writer.close()
    assert os.listdir(tmp_path) == []


def test_rows_of_another_versions_columns_are_refused(store: Store) -> None:
    write(store, block(dict(enumerate(ITEMS))), range(len(ITEMS)))
    kept = {row: (part_name(0), row) for row in range(1, len(ITEMS))}
    other = job_schema(pa.schema([pa.field("answer", pa.int32())]), {})
    with (
        FileWriter(store, other, block({0: ITEMS[0]}, kept=kept)) as writer,
        pytest.raises(CommandError, match=r"part-000000\.parquet has other columns"),
    ):
        writer.add(0, answer(ITEMS[0]) | {"answer": 1})


def test_a_flipped_bit_is_noticed(store: Store, tmp_path: Path) -> None:
    write(store, block(dict(enumerate(ITEMS))), range(len(ITEMS)))
    path = tmp_path / part_name(0)
    metadata = parquet.ParquetFile(path).metadata
    column = metadata.row_group(2).column(COLUMNS.get_field_index("id"))
    data = bytearray(path.read_bytes())
    data[column.data_page_offset + column.total_compressed_size - 3] ^= 1
    path.write_bytes(data)
    with pytest.raises(CommandError, match=r"part-000000\.parquet is damaged .* remove it") as raised:
        Output(store).head(part_name(0))
    assert re.search(r"\n", str(raised.value)) is None


def test_names_tell_what_a_file_is() -> None:
    names = [part_name(3), part_name(1_000_000), open_name(2), "part-1.parquet", "part-000001.parquet.bak"]
    assert part_numbers(names) == [3, 1_000_000]
    assert open_numbers(names) == [2]
    others = ["_job.json", "_summary.json", "_summary-1-of-4.json", "notes.txt"]
    assert [is_job_file(name) for name in [*names, *others]] == [True] * 3 + [False] * 2 + [True] * 3 + [
        False
    ]
