"""Access in any order to what can only be read from start to end."""

import threading
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor

import pytest

from visiongate.batch.inputs.in_order import InOrder


class Tape:
    """Even numbers below 100, whose values are their names. It counts what it does."""

    def __init__(self) -> None:
        self.begun: list[int] = []
        self.closed = 0
        self.read = 0

    def begin(self, first: int) -> Generator[tuple[int, str], None, None]:
        self.begun.append(first)
        try:
            for number in range(first - first % 20, 100, 2):
                self.read += 1
                yield number, str(number)
        finally:
            self.closed += 1


def test_in_order_it_is_read_once() -> None:
    tape = Tape()
    values = InOrder(tape.begin, kept=8)
    assert [values.get(number) for number in range(0, 100, 2)] == [str(n) for n in range(0, 100, 2)]
    assert (tape.begun, tape.read) == ([0], 50)


def test_in_about_that_order_too() -> None:
    tape = Tape()
    values = InOrder(tape.begin, kept=8)
    order = [n for pair in zip(range(2, 100, 4), range(0, 100, 4), strict=True) for n in pair]
    assert [values.get(number) for number in order] == [str(number) for number in order]
    assert (tape.begun, tape.read) == ([2], 50)


def test_what_was_passed_is_begun_for_anew() -> None:
    tape = Tape()
    values = InOrder(tape.begin, kept=2)
    assert [values.get(number) for number in (90, 30, 32, 30, 4)] == ["90", "30", "32", "30", "4"]
    assert tape.begun == [90, 30, 4]
    assert tape.closed == 2


def test_what_is_far_is_begun_for_anew() -> None:
    tape = Tape()
    values = InOrder(tape.begin, kept=2, is_far=lambda next, number: number - next > 20)
    assert [values.get(number) for number in (0, 10, 80)] == ["0", "10", "80"]
    assert tape.begun == [0, 80]
    assert tape.read == 7


@pytest.mark.parametrize("number", [7, 100, 1000])
def test_what_is_not_there(number: int) -> None:
    values = InOrder(Tape().begin, kept=8)
    with pytest.raises(LookupError):
        values.get(number)
    assert values.get(8) == "8"


def test_an_error_is_not_the_end() -> None:
    errors = [OSError("first"), OSError("second")]

    def begin(first: int) -> Generator[tuple[int, str], None, None]:
        if errors:
            raise errors.pop(0)
        yield from Tape().begin(first)

    values = InOrder(begin, kept=8)
    for sentence in ("first", "second"):
        with pytest.raises(OSError, match=sentence):
            values.get(4)
    assert values.get(4) == "4"


def test_few_are_open() -> None:
    tapes = [Tape() for _ in range(20)]
    readers = [InOrder(tape.begin, kept=8) for tape in tapes]
    for number in (0, 2):
        for reader in readers:
            assert reader.get(number) == str(number)
    assert sum(len(tape.begun) - tape.closed for tape in tapes) == 4


def test_many_threads_and_readers() -> None:
    """None waits for another for ever, whoever closes whom."""
    readers = [InOrder(Tape().begin, kept=8) for _ in range(9)]
    start = threading.Barrier(8)

    def work(worker: int) -> bool:
        start.wait()
        return all(
            readers[(number + worker) % 9].get(number % 100) == str(number % 100)
            for number in range(0, 2000, 2)
        )

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(work, range(8)))
