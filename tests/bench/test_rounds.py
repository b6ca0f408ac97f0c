import asyncio
import math
import time

import pytest

from gateway.bench.generator import closed_loop
from gateway.bench.rounds import Round, Summary, percentile
from gateway.bench.run import ratio


def a_round(items: int = 100, seconds: float = 2.0, client_cpu_s: float = 0.5, errors: int = 0) -> Round:
    return Round(items, items, errors, seconds, client_cpu_s, 0.01, 0.02, 0.03, "no" * (errors > 0))


def test_percentiles_are_values_that_were_measured() -> None:
    values = [float(value) for value in range(1, 101)]
    assert [percentile(values, share) for share in (0.5, 0.95, 0.99)] == [50, 95, 99]
    assert percentile([7.0], 0.99) == percentile([7.0], 0.5) == 7
    assert math.isnan(percentile([], 0.5))


def test_a_round_counts_answers_alone() -> None:
    done = Round.of([0.3, 0.1, 0.2], 16, 2.0, 0.1, ["INTERNAL: no", "again"])
    assert (done.calls, done.items, done.errors, done.first_error) == (3, 48, 2, "INTERNAL: no")
    assert done.items_a_second == 24
    assert (done.p50_s, done.p99_s) == (0.2, 0.3)
    assert Round.from_dict(done.as_dict()) == done


def test_a_round_without_an_answer_has_no_rate() -> None:
    done = Round.of([], 1, 0.0, 0.1, ["no"])
    assert done.items_a_second == 0
    assert math.isnan(done.p50_s)


def test_a_summary_has_medians_and_cpu_seconds_an_item() -> None:
    rounds = [a_round(100), a_round(200, errors=1), a_round(400)]
    summary = Summary.of(rounds, [{"gateway": 1.0}, {"gateway": 1.0}, {"gateway": 1.0}])
    assert summary.items_a_second == 100
    assert summary.cpu_s_an_item == {"client": 0.0025, "gateway": 0.005}
    assert (summary.errors, summary.first_error) == (1, "no")


def test_a_round_without_items_does_not_count_in_the_split() -> None:
    empty = a_round(0)
    assert Summary.of([empty, a_round(100)]).cpu_s_an_item == {"client": 0.005}
    assert math.isnan(Summary.of([empty]).cpu_s_an_item["client"])


def test_a_ratio_is_the_median_of_the_turns() -> None:
    ours = [a_round(100), a_round(300), a_round(100)]
    others = [a_round(200), a_round(100), a_round(100)]
    assert ratio(ours, others) == 1
    assert ratio(ours[:2], [a_round(0), a_round(100)]) == 3
    assert math.isnan(ratio(ours[:1], [a_round(0)]))


async def test_a_closed_loop_keeps_so_many_calls_in_flight_and_waits_for_the_last() -> None:
    now, most, ended = 0, 0, 0

    async def send(index: int) -> None:
        nonlocal now, most, ended
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.02)
        now -= 1
        ended += 1

    start = time.perf_counter()
    done = await closed_loop(send, 4, 3, 0.1)
    assert most == 3
    assert now == 0
    assert done.calls == ended >= 6
    assert done.items == 4 * ended
    assert 0.1 <= done.seconds <= time.perf_counter() - start
    assert done.p50_s >= 0.02


async def test_errors_are_counted_and_calls_go_on() -> None:
    async def send(index: int) -> None:
        await asyncio.sleep(0.001)
        if index % 2:
            raise RuntimeError("no")

    done = await closed_loop(send, 1, 2, 0.1)
    assert done.calls > 0
    assert done.errors > 0
    assert done.first_error == "RuntimeError: no"


@pytest.mark.parametrize("seconds", [0.05])
async def test_a_server_that_only_fails_ends_the_round(seconds: float) -> None:
    async def send(index: int) -> None:
        raise RuntimeError("no")

    done = await closed_loop(send, 1, 2, seconds)
    assert (done.calls, done.items_a_second) == (0, 0)
