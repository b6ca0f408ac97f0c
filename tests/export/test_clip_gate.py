import numpy as np
import pytest

from export.clip_gate import largest_swap


def test_a_swap_counts_by_how_far_apart_the_two_should_be() -> None:
    expected = np.array([[0.1, 0.2, 0.6], [0.3, 0.3, 0.5]])
    assert largest_swap(expected, expected) == 0
    # Other numbers, the same order.
    assert largest_swap(expected**2, expected) == 0
    first_two = np.array([[0.3, 0.2, 0.6], [0.3, 0.3, 0.5]])
    assert largest_swap(first_two, expected) == pytest.approx(0.1 / 0.5)
    first_last = np.array([[0.1, 0.2, 0.6], [0.6, 0.3, 0.5]])
    assert largest_swap(first_last, expected) == pytest.approx(0.2 / 0.5)
    # What cannot be told apart any more has lost its order, too.
    assert largest_swap(np.zeros((2, 3)), expected) == pytest.approx(1)
