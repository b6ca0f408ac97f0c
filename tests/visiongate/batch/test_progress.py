"""How far a job is, and which stage limits it, by a clock of the test's own."""

import pytest

from visiongate.batch.progress import READING, SERVER, WRITING, Meter, Stages, Stopwatch


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("visiongate.batch.progress.time.monotonic", clock)
    return clock


def test_rate_and_time_left_are_those_of_the_last_seconds(clock: Clock) -> None:
    meter = Meter(clock)
    meter.skipped, meter.total = 50, 1050
    meter.progress()
    for _ in range(60):
        clock.now += 1
        meter.rows += 1
        found = meter.progress()
    assert (found.rate, found.left_s) == (1, 940)
    for _ in range(20):
        clock.now += 1
        meter.rows += 10
        found = meter.progress()
    assert (found.rows, found.rate, found.left_s) == (260, 10, 74)
    assert found.seconds == 80


def test_without_a_total_or_a_rate_there_is_no_time_left(clock: Clock) -> None:
    meter = Meter(clock)
    assert meter.progress().left_s is None
    clock.now += 1
    meter.rows = 1
    assert (meter.progress().rate, meter.progress().left_s) == (1, None)
    meter.total = 10
    clock.now += 100
    meter.progress()
    clock.now += 100
    assert (meter.progress().rate, meter.progress().left_s) == (0, None)


def test_failures_are_counted_by_status() -> None:
    meter = Meter()
    for status in ("OK", "NOT_FOUND", "OK", "INVALID_ARGUMENT", "NOT_FOUND"):
        meter.add(status)
    found = meter.progress()
    assert (found.rows, found.failures) == (5, 3)
    assert found.failed == {"INVALID_ARGUMENT": 1, "NOT_FOUND": 2}
    assert found.as_dict()["failed"] == {"INVALID_ARGUMENT": 1, "NOT_FOUND": 2}


@pytest.mark.parametrize(
    ("starved", "busy", "writing", "limit"),
    [(8, 0, 1, READING), (1, 7, 3, SERVER), (0, 9, 9.5, WRITING), (0, 0, 0, "")],
)
def test_the_stage_that_limits_is_the_one_that_others_wait_for(
    clock: Clock, starved: float, busy: float, writing: float, limit: str
) -> None:
    times = {"starved": 0.0, "busy": 0.0, "writing": 0.0}

    class Fixed(Stopwatch):
        def __init__(self, name: str) -> None:
            super().__init__()
            self._name = name

        @property
        def seconds(self) -> float:
            return times[self._name]

    meter = Meter(clock)
    meter.stages = Stages(Fixed("starved"), Fixed("busy"), Fixed("writing"), 2)
    meter.progress()
    clock.now += 10
    # Both servers wait.
    times |= {"starved": 2 * starved, "busy": busy, "writing": writing}
    assert meter.progress().limit == limit


def test_a_stopwatch_adds_up_all_who_are_inside(clock: Clock) -> None:
    watch = Stopwatch()
    clock.now += 5
    with watch:
        clock.now += 1
        assert watch.seconds == 1
        with watch:
            clock.now += 1
        assert watch.seconds == 3
    clock.now += 9
    assert watch.seconds == 3
