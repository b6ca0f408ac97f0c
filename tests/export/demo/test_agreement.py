import math

import numpy as np
import pytest

from export.demo.agreement import angles_between, matches, pairs


def test_pairs_are_the_best_ones() -> None:
    assert pairs(np.array([[0.9, 0.8], [0.85, 0.0]])) == [(0, 0)]
    assert pairs(np.array([[0.6, 0.9], [0.7, 0.8]])) == [(0, 1), (1, 0)]
    assert pairs(np.zeros((0, 3))) == []


def test_each_box_is_found_by_a_box_of_its_own() -> None:
    truth = [np.array(box, np.float32) for box in ([0, 0, 10, 10], [20, 0, 30, 10])]
    assert matches(truth, truth) == 2
    assert matches(truth, [truth[0], truth[0]]) == 1
    assert matches(truth, []) == matches([], truth) == 0
    # An IoU of a third is another object.
    assert matches(truth, [truth[0] + np.array([5, 0, 5, 0], np.float32)]) == 0


def test_angles_are_on_the_sphere() -> None:
    assert angles_between(np.array([0.0, 0.0]), np.array([math.pi / 2, 0])) == pytest.approx(90)
    assert angles_between(np.array([0.3, 0.2]), np.array([0.3, 0.2])) == pytest.approx(0, abs=1e-5)
    # Near the zenith, yaw hardly matters.
    assert angles_between(np.array([0.0, 1.5]), np.array([1.0, 1.5])) < 5


def test_how_far_directions_are_off() -> None:
    truth = np.radians([[0, 0], [0, 0], [10, 0], [20, -20]]).astype(np.float32)
    guess = np.radians([[7, 0], [0, -12], [-10, 0], [20, -20]]).astype(np.float32)
    np.testing.assert_allclose(angles_between(guess, truth), [7, 12, 20, 0], atol=0.05)
