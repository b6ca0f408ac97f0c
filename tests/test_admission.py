"""The gate: who gets in, and that places are given back; and the memory that threads share."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from google.rpc import error_details_pb2

from gateway.admission import Gate, Memory, hold_more
from gateway.errors import OverloadedError


def test_a_place_is_free_again_whatever_came_of_the_call() -> None:
    gate = Gate(max_calls=1, max_bytes=100)
    for _ in range(3):
        with pytest.raises(ZeroDivisionError), gate.enter():
            raise ZeroDivisionError
    with gate.enter(), pytest.raises(OverloadedError, match="answers 1 calls at once"), gate.enter():
        pass
    with gate.enter():
        pass


def test_bytes_of_all_calls_together_are_limited() -> None:
    gate = Gate(max_calls=10, max_bytes=100)
    with gate.hold(60):
        with pytest.raises(OverloadedError, match="100 bytes"), gate.hold(41):
            pass
        with gate.hold(40):
            pass
    with gate.hold(100):
        pass


def test_one_large_request_always_fits() -> None:
    gate = Gate(max_calls=10, max_bytes=100)
    with gate.hold(101), pytest.raises(OverloadedError), gate.hold(1):
        pass


def test_refusals_say_when_to_come_again_and_not_all_at_the_same_time() -> None:
    gate = Gate(max_calls=0, max_bytes=1)
    delays = set()
    for _ in range(10):
        with pytest.raises(OverloadedError) as caught, gate.enter():
            pass
        [retry] = [
            detail for detail in caught.value.details if isinstance(detail, error_details_pb2.RetryInfo)
        ]
        delays.add(retry.retry_delay.ToNanoseconds())
    assert len(delays) == 10
    assert all(0 < delay < 5e9 for delay in delays)


def test_what_a_request_turns_into_counts_until_its_call_ends() -> None:
    gate = Gate(max_calls=10, max_bytes=100)
    with gate.hold(10):
        hold_more(500)  # alone: whatever one call may bring
        with pytest.raises(OverloadedError), gate.hold(1):
            pass
        hold_more(-460)
        with gate.hold(40):
            with pytest.raises(OverloadedError):
                hold_more(11)
            hold_more(10)
    with gate.hold(60), gate.hold(40):
        pass


def test_without_a_call_nothing_is_counted() -> None:
    hold_more(1 << 60)


def test_memory_is_never_taken_twice_and_everyone_gets_it() -> None:
    memory = Memory(100)
    lock, taken, most, done = threading.Lock(), 0, 0, 0

    def work(size: int) -> None:
        nonlocal taken, most, done
        with memory.take(size):
            # More than there is means all of it.
            with lock:
                taken += min(size, 100)
                most = max(most, taken)
            time.sleep(0.001)
            with lock:
                taken -= min(size, 100)
                done += 1

    sizes = [7, 40, 60, 100, 250] * 20
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(work, sizes))
    assert done == len(sizes)
    # Several at once, where there is room.
    assert 60 < most <= 100


def test_memory_comes_back_whatever_came_of_the_work() -> None:
    memory = Memory(100)
    for _ in range(3):
        with pytest.raises(ZeroDivisionError), memory.take(100):
            raise ZeroDivisionError
