"""The memory that threads share."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from gateway.memory import Memory


def test_no_byte_is_reserved_twice_and_every_thread_gets_its_own() -> None:
    memory = Memory(100)
    lock, reserved, most, done = threading.Lock(), 0, 0, 0

    def work(size: int) -> None:
        nonlocal reserved, most, done
        with memory.reserve(size):
            # More than there is means all of it.
            with lock:
                reserved += min(size, 100)
                most = max(most, reserved)
            time.sleep(0.001)
            with lock:
                reserved -= min(size, 100)
                done += 1

    sizes = [7, 40, 60, 100, 250] * 20
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(work, sizes))
    assert done == len(sizes)
    # Several at once, where there is room.
    assert 60 < most <= 100


def test_memory_is_released_whatever_came_of_the_work() -> None:
    memory = Memory(100)
    for _ in range(3):
        with pytest.raises(ZeroDivisionError), memory.reserve(100):
            raise ZeroDivisionError
