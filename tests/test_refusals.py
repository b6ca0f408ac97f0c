"""Refusals: what they say, and what they are counted under."""

import pytest
from google.rpc import error_details_pb2
from prometheus_client import REGISTRY

from gateway.callers import Callers, Portions
from gateway.errors import OverloadedError
from gateway.refusals import check_share, refuse


def refused(reason: str) -> float:
    return REGISTRY.get_sample_value("visiongate_refusals_total", {"reason": reason}) or 0


def test_a_refusal_is_counted_and_says_when_to_come_again() -> None:
    before = refused("bytes")
    with pytest.raises(OverloadedError, match="too much: try again later") as caught:
        refuse("too much", "bytes")
    assert refused("bytes") == before + 1
    assert any(isinstance(detail, error_details_pb2.RetryInfo) for detail in caught.value.details)


@pytest.mark.parametrize(
    ("key", "address", "words"), [("greedy", "", "your API key"), ("", "192.0.2.1", "your address")]
)
def test_who_is_over_its_share_is_told_all_numbers(key: str, address: str, words: str) -> None:
    known = Callers(0.75, keys=["greedy", "modest"] if key else None)
    caller = known.find(key, address)
    known.find("", "192.0.2.2")
    portions, before = Portions(8), refused("caller")
    portions.take(caller, 5)
    check_share(portions, caller, 1, "calls")
    with pytest.raises(OverloadedError) as caught:
        check_share(portions, caller, 2, "calls")
    assert str(caught.value).startswith(
        f"{words} has 5 of the server's 8 calls, and the limit of one caller is 6"
    )
    assert refused("caller") == before + 1
