"""Reading what a job wrote."""

import re
from pathlib import Path

import pytest

from batch_jobs import SCHEMA, Inputs, work
from visiongate.batch.files import part_name
from visiongate.batch.output import Output
from visiongate.batch.store import open_store
from visiongate.command_error import CommandError


@pytest.fixture(params=["folder", "memory"])
def output(request: pytest.FixtureRequest, tmp_path: Path) -> Output:
    """Files of 40 rows, the last of 20, one of them missing: as a shard that is not done leaves it."""
    store = open_store(str(tmp_path) if request.param == "folder" else f"memory://{tmp_path.name}")
    work(store, Inputs([str(number) for number in range(500)]), 40)
    store.remove(part_name(2))
    return Output(store)


def test_tables_have_the_files_and_columns_that_are_asked_for(output: Output) -> None:
    assert output.files() == [0, 1, *range(3, 13)]
    assert output.schema().equals(SCHEMA, check_metadata=True)
    assert output.table().num_rows == 460
    table = output.table(["answer"], [1, 12])
    assert table.column_names == ["answer"]
    assert table["answer"].to_pylist() == [f"{number} 1" for number in [*range(40, 80), *range(480, 500)]]
    assert output.table(["id"], []).num_rows == 0
    assert sum(batch.num_rows for batch in output.batches(["id"])) == 460


def test_heads_come_in_the_order_of_the_names(output: Output) -> None:
    heads = list(output.heads(map(part_name, output.files())))
    assert [int(head.ids[0]) // 40 for head in heads] == output.files()
    assert list(heads[-1].positions) == list(range(20))
    # One that is not read to its end reads no more.
    assert next(output.heads(map(part_name, output.files()))).ids[0] == "0"


def test_what_is_missing_or_damaged_is_a_sentence(output: Output) -> None:
    with pytest.raises(CommandError, match="has no column embedding"):
        output.table(["id", "embedding"])
    with pytest.raises(CommandError, match=r"part-000002\.parquet cannot be read: No such file"):
        output.table(files=[2])
    output.store.write_bytes(part_name(1), b"PAR1 half of i")
    for read in (output.table, lambda: list(output.heads([part_name(1)]))):
        with pytest.raises(CommandError, match=r"part-000001\.parquet is damaged") as raised:
            read()
        assert re.search(r"\n", str(raised.value)) is None


def test_a_folder_without_files_is_a_sentence(tmp_path: Path) -> None:
    for out in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(CommandError, match=r"has no Parquet files of `visiongate batch`"):
            Output(open_store(str(out))).table()
