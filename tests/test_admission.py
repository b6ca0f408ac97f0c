"""The gate: which calls are admitted, and that places and bytes are released."""

import pytest
from google.rpc import error_details_pb2

from gateway.admission import Gate, release, reserve_more
from gateway.errors import OverloadedError


def test_a_place_is_free_again_whatever_came_of_the_call() -> None:
    gate = Gate(max_calls=1, max_bytes=100)
    for _ in range(3):
        with pytest.raises(ZeroDivisionError), gate.admit():
            raise ZeroDivisionError
    with gate.admit(), pytest.raises(OverloadedError, match="at most 1 calls at a time"), gate.admit():
        pass
    with gate.admit():
        pass


def test_bytes_of_all_calls_together_are_limited() -> None:
    gate = Gate(max_calls=10, max_bytes=100)
    with gate.reserve(60):
        with pytest.raises(OverloadedError, match="100 bytes"), gate.reserve(41):
            pass
        with gate.reserve(40):
            pass
    with gate.reserve(100):
        pass


def test_one_large_request_always_fits() -> None:
    gate = Gate(max_calls=10, max_bytes=100)
    with gate.reserve(101), pytest.raises(OverloadedError), gate.reserve(1):
        pass


def test_refusals_say_when_to_come_again_and_not_all_at_the_same_time() -> None:
    gate = Gate(max_calls=0, max_bytes=1)
    delays = set()
    for _ in range(10):
        with pytest.raises(OverloadedError) as caught, gate.admit():
            pass
        [retry] = [
            detail for detail in caught.value.details if isinstance(detail, error_details_pb2.RetryInfo)
        ]
        delays.add(retry.retry_delay.ToNanoseconds())
    assert len(delays) == 10
    assert all(0 < delay < 5e9 for delay in delays)


def test_what_a_request_turns_into_counts_until_its_call_ends() -> None:
    gate = Gate(max_calls=10, max_bytes=100)
    with gate.reserve(10):
        reserve_more(500)  # alone: whatever one call may bring
        with pytest.raises(OverloadedError), gate.reserve(1):
            pass
        release(460)
        with gate.reserve(40):
            with pytest.raises(OverloadedError):
                reserve_more(11)
            reserve_more(10)
    with gate.reserve(60), gate.reserve(40):
        pass


def test_an_empty_request_always_fits() -> None:
    gate = Gate(max_calls=10, max_bytes=100)
    with gate.reserve(101), gate.reserve(0):
        pass


def test_without_a_call_nothing_is_counted() -> None:
    reserve_more(1 << 60)
    release(1 << 60)
