"""Whatever befalls a job, in the end every input has a row, once, in the order of the inputs."""

import secrets
from collections import Counter
from collections.abc import Iterator
from itertools import count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batch_jobs import Inputs, answer, ids, rows, work
from visiongate.batch.files import Block, FileWriter, part_name
from visiongate.batch.item import Item
from visiongate.batch.output import Output
from visiongate.batch.plan import make_plan
from visiongate.batch.store import Store, open_store
from visiongate.command_error import CommandError

# Few names: ids that are there twice, and inputs that come back, are likely.
IDS = st.lists(
    st.sampled_from([f"{letter}{number}.jpg" for letter in "abc" for number in range(6)]), max_size=14
)


def new_store() -> Store:
    return open_store(f"memory://plans/{secrets.token_hex(8)}")


@pytest.fixture
def store() -> Store:
    return new_store()


def numbered(amount: int) -> list[str]:
    return [f"{number:03}.jpg" for number in range(amount)]


class Ending:
    """Ends a job in its n-th block: dead, or by a signal that lets it keep some of the block's rows."""

    def __init__(self, blocks: int, kept: set[int] | None) -> None:
        self._left = blocks
        self._kept = kept

    def __call__(self, writer: FileWriter, block: Block) -> bool:
        self._left -= 1
        if self._left >= 0:
            return True
        if self._kept is not None:
            for position in sorted(self._kept & block.items.keys(), reverse=True):
                writer.add(position, answer(block.items[position]))
            writer.keep()
        return False


ENDINGS = st.builds(Ending, st.integers(0, 4), st.none() | st.sets(st.integers(0, 4)))


@settings(max_examples=25, deadline=None)
@given(IDS, st.integers(1, 5), st.integers(1, 4), st.data())
def test_kills_and_shards_leave_what_one_undisturbed_run_does(
    names: list[str], rows_per_file: int, shards: int, data: st.DataObject
) -> None:
    source = Inputs(names)
    undisturbed, disturbed = new_store(), new_store()
    work(undisturbed, source, rows_per_file)
    for shard, ending in data.draw(st.lists(st.tuples(st.integers(0, shards - 1), ENDINGS), max_size=6)):
        work(disturbed, source, rows_per_file, shard=(shard, shards), do=ending)
    for shard in data.draw(st.permutations(range(shards))):
        work(disturbed, source, rows_per_file, shard=(shard, shards))
    assert disturbed.names() == undisturbed.names()
    for number in Output(undisturbed).files():
        expected = Output(undisturbed).table(files=[number])
        assert Output(disturbed).table(files=[number]).equals(expected)
    assert [row["id"] for row in rows(disturbed)] == names


@settings(max_examples=25, deadline=None)
@given(IDS, st.integers(1, 5), st.data())
def test_inputs_that_come_go_and_change_are_done_once(
    names: list[str], rows_per_file: int, data: st.DataObject
) -> None:
    store = new_store()
    # Of all that were ever among the inputs.
    seen: Counter[str] = Counter()
    versions: dict[str, str] = {}
    numbers = count(2)
    for ending in data.draw(st.lists(ENDINGS, max_size=4)):
        work(store, Inputs(names, versions), rows_per_file, do=ending)
        seen |= Counter(names)
        names = data.draw(IDS | st.just(names))
        changed = data.draw(st.sets(st.sampled_from(names), max_size=3)) if names else set()
        versions = versions | {name: str(next(numbers)) for name in changed}
    source = Inputs(names, versions)
    work(store, source, rows_per_file)
    seen |= Counter(names)
    current = Counter(row["id"] for row in rows(store) if row["version"] == source.item(row["id"]).version)
    assert Counter(names) <= current
    assert ids(store) <= seen
    assert all(row["answer"] == f"{row['id']} {row['version']}" for row in rows(store))
    again = make_plan(source, Output(store), rows_per_file)
    assert [block for block in again.blocks() if block.items] == []
    assert (again.done, again.gone) == (len(names), len(rows(store)) - len(names))
    assert again.pending(source.count()) == 0


@settings(max_examples=15, deadline=None)
@given(IDS, st.integers(1, 5), st.integers(1, 3), st.data())
def test_failures_are_tried_again_where_they_are(
    names: list[str], rows_per_file: int, shards: int, data: st.DataObject
) -> None:
    failing = data.draw(st.sets(st.sampled_from(names))) if names else set()
    store, untroubled = new_store(), new_store()
    work(untroubled, Inputs(names), rows_per_file)
    work(store, Inputs(names), rows_per_file, failing=failing)
    first = rows(store)
    assert [row["status"] == "OK" for row in first] == [name not in failing for name in names]
    plan = work(store, Inputs(names), rows_per_file)
    assert rows(store) == first
    assert plan.statuses == Counter(row["status"] for row in first)
    renewed = sum(
        work(store, Inputs(names), rows_per_file, shard=(shard, shards), retry_failed=True).renewed
        for shard in range(shards)
    )
    assert rows(store) == rows(untroubled)
    assert renewed == sum(name in failing for name in names)


def test_a_finished_job_is_read_once_and_asks_nothing(store: Store) -> None:
    source = Inputs(numbered(10))
    work(store, source, 4)
    source.reads = 0
    plan = make_plan(source, Output(store), 4)
    assert list(plan.blocks()) == []
    assert (plan.done, plan.pending(10), source.reads) == (10, 0, 1)


def test_a_new_job_reads_its_inputs_as_they_are_asked_for(store: Store) -> None:
    taken = []

    class Endless(Inputs):
        def __iter__(self) -> Iterator[Item]:
            for number in count():
                taken.append(number)
                yield self.item(str(number))

    blocks = make_plan(Endless([]), Output(store), 5).blocks()
    assert list(next(blocks).items) == [0, 1, 2, 3, 4]
    assert len(taken) == 5


def test_what_is_pending_counts_the_inputs_of_the_shard(store: Store) -> None:
    source = Inputs(numbered(25))
    for shards in range(1, 5):
        plans = [make_plan(source, Output(store), 4, (shard, shards)) for shard in range(shards)]
        asked = [sum(len(block.items) for block in plan.blocks()) for plan in plans]
        assert [plan.pending(25) for plan in plans] == asked
        assert sum(asked) == 25
        assert plans[0].pending(None) is None


def test_new_inputs_go_to_new_files_and_the_rows_of_old_ones_stay(store: Store) -> None:
    work(store, Inputs(["b", "c", "d"]), 2)
    plan = work(store, Inputs(["a", "c", "d", "e"]), 2)
    assert [row["id"] for row in rows(store)] == ["b", "c", "d", "a", "e"]
    assert (plan.done, plan.gone, plan.pending(4)) == (2, 1, 2)
    assert Output(store).table(files=[2])["id"].to_pylist() == ["a", "e"]


def test_a_changed_file_is_done_anew_in_its_place(store: Store) -> None:
    names = numbered(6)
    work(store, Inputs(names), 4)
    plan = work(store, Inputs(names, {"002.jpg": "2"}), 4)
    assert (plan.done, plan.renewed, plan.pending(6)) == (5, 1, 1)
    assert [row["answer"] for row in rows(store)][1:4] == ["001.jpg 1", "002.jpg 2", "003.jpg 1"]


def test_shards_refuse_inputs_that_have_changed(store: Store) -> None:
    work(store, Inputs(numbered(8)), 2)
    with pytest.raises(CommandError, match=r"have changed since .* once without --shard"):
        make_plan(Inputs(["new", *numbered(8)]), Output(store), 2, (1, 2))


def test_inputs_that_change_while_the_job_runs_end_it(store: Store) -> None:
    source = Inputs(numbered(8))
    work(store, source, 2, failing={"005.jpg"})
    plan = make_plan(source, Output(store), 2, retry_failed=True)
    source.ids = ["new", *source.ids]
    with pytest.raises(CommandError, match="change while the job runs"):
        list(plan.blocks())
    assert ids(store) == Counter(numbered(8))


def test_a_damaged_file_is_named_and_once_removed_is_done_again(store: Store) -> None:
    source = Inputs(numbered(10))
    work(store, source, 4)
    before = rows(store)
    store.write_bytes(part_name(1), store.read_bytes(part_name(1))[:-7])
    with pytest.raises(CommandError, match=r"part-000001\.parquet is damaged .* remove it") as raised:
        make_plan(source, Output(store), 4)
    assert "\n" not in str(raised.value)
    store.remove(part_name(1))
    plan = work(store, source, 4)
    assert (plan.done, plan.pending(10)) == (6, 4)
    assert rows(store) == before


def test_finished_files_are_not_written_again(store: Store) -> None:
    source = Inputs(numbered(10))
    work(store, source, 2, failing={"005.jpg"})
    store.remove(part_name(3))
    plan = make_plan(source, Output(store), 2, retry_failed=True)
    assert [(block.number, list(block.items)) for block in plan.blocks()] == [(2, [1]), (3, [0, 1])]


def test_what_a_second_try_has_mended_is_kept_when_it_is_ended(store: Store) -> None:
    source = Inputs(numbered(4))
    work(store, source, 4, failing=numbered(4))
    work(store, source, 4, retry_failed=True, do=Ending(0, {1, 3}))
    plan = work(store, source, 4)
    assert [row["status"] == "OK" for row in rows(store)] == [False, True, False, True]
    assert store.names() == [part_name(0)]
    assert plan.pending(4) == 0
