import math

import pytest

from gateway.commands.samples import Change, Samples

TEXT = """
# HELP calls_total Calls.
# TYPE calls_total counter
calls_total{method="a",code="OK"} 3.0
calls_total{method="a",code="INTERNAL"} 1.0
calls_total{method="b",code="OK"} 5.0
# TYPE held gauge
held 7.0
"""


def histogram(time_s: float, *counts: float) -> Samples:
    """Cumulative counts of the buckets up to 0.1, 1 and infinity, for the method a; b has twice as many."""
    return Samples(
        time_s,
        [
            ("seconds_bucket", {"method": method, "le": bound}, factor * count)
            for method, factor in (("a", 1), ("b", 2))
            for bound, count in zip(("0.1", "1.0", "+Inf"), counts, strict=True)
        ],
    )


def test_sums_by_labels() -> None:
    samples = Samples.parse(0, TEXT)
    assert samples.by("calls_total", "method") == {("a",): 4, ("b",): 5}
    assert samples.by("calls_total", "code", "method")["OK", "b"] == 5
    assert samples.value("calls_total") == 9
    assert samples.value("held") == 7
    assert samples.has("call")
    assert samples.labels("held") == [{}]


def test_what_a_server_does_not_have_is_empty() -> None:
    samples = Samples.parse(0, TEXT)
    assert samples.by("missing", "method") == {}
    assert samples.by("calls_total", "server") == {}
    assert samples.value("missing") is None
    assert samples.labels("missing") == []
    assert not samples.has("missing")
    assert math.isnan(Change(samples, samples).quantile("missing", 0.5))


def test_other_texts_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\S"):
        Samples.parse(0, "<html>\n<p>not this</p>\n")


def test_rates_are_per_second_and_survive_a_restart() -> None:
    def samples(time_s: float, **values: float) -> Samples:
        return Samples(time_s, [("calls_total", {"method": name}, value) for name, value in values.items()])

    change = Change(samples(10, a=100, b=50), samples(14, a=108, b=2, c=6))
    assert change.rates("calls_total", "method") == {("a",): 2.0, ("b",): 0.5, ("c",): 1.5}


def test_quantiles_are_of_what_came_between() -> None:
    change = Change(histogram(0, 100, 100, 100), histogram(1, 108, 110, 110))
    # Of ten, eight lie evenly up to 0.1 and two from there to 1.
    assert change.quantile("seconds", 0.5, method="a") == pytest.approx(0.1 * 5 / 8)
    assert change.quantile("seconds", 0.9, method="a") == pytest.approx(0.1 + 0.9 * 1 / 2)
    assert change.quantile("seconds", 0.5, method="b") == pytest.approx(0.1 * 5 / 8)
    assert math.isnan(change.quantile("seconds", 0.5, method="c"))


def test_quantiles_at_the_edges() -> None:
    beyond = Change(histogram(0, 0, 0, 0), histogram(1, 0, 0, 4))
    assert beyond.quantile("seconds", 0.5, method="a") == math.inf
    idle = Change(histogram(0, 1, 2, 3), histogram(1, 1, 2, 3))
    assert math.isnan(idle.quantile("seconds", 0.99, method="a"))
    gap = Change(histogram(0, 0, 0, 0), histogram(1, 0, 4, 4))
    assert gap.quantile("seconds", 1.0, method="a") == 1.0
