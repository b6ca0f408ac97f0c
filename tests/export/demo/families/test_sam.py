import numpy as np
import pytest

from export.demo.families.sam import middle


def test_the_middle_of_a_ring_is_on_it() -> None:
    y, x = np.mgrid[:41, :41] - 20
    ring = (np.hypot(x, y) < 18) & (np.hypot(x, y) > 8)
    column, row = middle(ring)
    assert ring[int(row), int(column)]
    assert np.hypot(column - 20, row - 20) == pytest.approx(13, abs=1.5)
