"""Who counts as one caller, and what share of an amount it may have."""

import pytest

from gateway import callers
from gateway.callers import NOBODY, Callers, Portions, network


@pytest.mark.parametrize(
    ("address", "same", "other"),
    [
        ("192.0.2.7", "192.0.2.7", "192.0.2.8"),
        ("127.0.0.1", "127.0.0.1", "127.0.0.2"),
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff::9", "2001:db8:1:3::1"),
        ("::ffff:192.0.2.7", "192.0.2.7", "::ffff:192.0.2.8"),
        ("unix", "unix", "127.0.0.1"),
    ],
)
def test_addresses_of_one_caller(address: str, same: str, other: str) -> None:
    assert network(address) == network(same)
    assert network(address) != network(other)


def test_an_address_that_is_alone_may_have_everything() -> None:
    known = Callers(0.75)
    alone = known.find("", "192.0.2.1")
    for _ in range(3):
        assert known.find("", "192.0.2.1") == alone
        assert Portions(64).most_for(alone) == 64
    other = known.find("", "192.0.2.2")
    assert Portions(64).most_for(alone) == Portions(64).most_for(other) == 48


@pytest.mark.parametrize("nowhere", ["", "unknown"])
def test_a_call_whose_connection_has_broken_is_no_other_caller(nowhere: str) -> None:
    known = Callers(0.75)
    alone = known.find("", "192.0.2.1")
    known.find("", nowhere)
    assert Portions(64).most_for(alone) == 64


def test_an_address_that_called_long_ago_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("gateway.callers.time.monotonic", lambda: now)
    known = Callers(0.5)
    known.find("", "192.0.2.1")
    second = known.find("", "192.0.2.2")
    now = callers.REMEMBERED_S - 1
    assert known.find("", "192.0.2.2") == second
    assert second.callers.share(second) == 0.5
    now += 2
    assert second.callers.share(second) == 1


def test_many_addresses_take_no_memory_and_are_others_all_the_same() -> None:
    known = Callers(0.5)
    first = known.find("", "192.0.2.1")
    for number in range(1000):
        known.find("", f"2001:db8:{number:x}::1")
    assert len(known._last_calls) == 2
    assert known.share(first) == 0.5


def test_each_key_is_a_caller_also_before_it_calls() -> None:
    several = Callers(0.75, keys=["app", "batch"])
    app = several.find("app", "192.0.2.1")
    assert app == several.find("app", "192.0.2.2")
    assert several.share(app) == 0.75
    only = Callers(0.75, keys=["app"])
    assert only.share(only.find("app", "192.0.2.1")) == 1
    assert only.find("unix", "") != only.find("", "unix"), "a key is called like an address"


def test_the_share_is_never_less_than_one() -> None:
    known = Callers(0.75, keys=["app", "batch"])
    app = known.find("app", "")
    assert [Portions(amount).most_for(app) for amount in (1, 2, 3, 14)] == [1, 1, 2, 10]


def test_portions_are_given_back() -> None:
    known = Callers(0.5, keys=["app", "batch"])
    app, batch = known.find("app", ""), known.find("batch", "")
    portions = Portions(10)
    assert portions.has_share(app, 100), "who has nothing may begin"
    portions.take(app, 5)
    assert not portions.has_share(app, 1)
    assert portions.has_share(batch, 1)
    portions.take(batch, 3)
    assert (portions.taken, portions.taken_by(app), portions.taken_by(batch)) == (8, 5, 3)
    portions.take(app, -5)
    assert portions.has_share(app, 5)
    assert portions.taken == 3


def test_work_is_done_for_nobody_unless_somebody_is_named() -> None:
    caller = Callers().find("app", "")
    assert callers.current() is NOBODY
    with callers.working_for(caller):
        assert callers.current() is caller
    assert callers.current() is NOBODY
