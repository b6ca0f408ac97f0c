"""Neighbours among vectors whose places are known."""

import numpy as np
import pytest
from numpy.typing import NDArray

from visiongate.folders import neighbours
from visiongate.folders.neighbours import leaders, nearest


def unit(vectors: NDArray[np.floating]) -> NDArray[np.float32]:
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(vectors / lengths, np.float32)


def at(*degrees: float) -> NDArray[np.float32]:
    angles = np.radians(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32)


def test_the_nearest_come_first_and_equals_in_their_order() -> None:
    vectors = at(90, 10, 20, 0, 10, 180)
    found, scores = nearest(vectors, at(0)[0], 4, -1)
    assert found.tolist() == [3, 1, 4, 2]
    assert scores == pytest.approx(np.cos(np.radians([0, 10, 10, 20])))


def test_of_equals_at_the_limit_the_first_is_taken() -> None:
    found, _ = nearest(at(30, 30, 30, 0), at(0)[0], 2, -1)
    assert found.tolist() == [3, 0]


def test_the_least_score_is_included() -> None:
    found, _ = nearest(at(0, 60, 61), at(0)[0], 10, 0.5)
    assert found.tolist() == [0, 1]


def test_no_vectors_have_no_neighbours() -> None:
    assert not len(nearest(np.zeros((0, 2), np.float32), at(0)[0], 10, -1)[0])
    assert not len(leaders(np.zeros((0, 2), np.float32), 0.9))


def test_no_number_is_near_nothing() -> None:
    vectors = at(0, 0)
    vectors[0] = np.nan
    assert nearest(vectors, at(0)[0], 2, -1)[0].tolist() == [1]
    assert leaders(vectors, 0.5).tolist() == [0, 1]


def test_every_member_is_like_its_leader() -> None:
    """A chain of similar pairs is no group."""
    led_by = leaders(at(0, 8, 16, 24, 90), np.cos(np.radians(10)))
    assert led_by.tolist() == [0, 0, 2, 2, 4]


def test_a_threshold_of_one_finds_equals() -> None:
    random = np.random.default_rng(3)
    vectors = unit(random.normal(size=(50, 512)))
    led_by = leaders(np.concatenate([vectors, vectors[::-1]]), 1.0)
    assert led_by.tolist() == [*range(50), *reversed(range(50))]


def test_an_order_says_who_leads() -> None:
    """Of vectors that are all alike, and of one that is not meant."""
    assert leaders(at(0, 1, 2, 90), 0.9, [3, 2, 0]).tolist() == [0, 1, 1]


def test_leaders_equal_those_found_one_by_one() -> None:
    random = np.random.default_rng(5)
    vectors = unit(np.repeat(random.normal(size=(20, 6)), 6, 0) + random.normal(scale=0.3, size=(120, 6)))
    vectors = vectors[random.permutation(120)]
    expected: list[int] = []
    for index, vector in enumerate(vectors):
        first = [other for other in range(index) if expected[other] == other]
        expected.append(next((other for other in first if vectors[other] @ vector >= 0.9), index))
    assert 20 < len(set(expected)) < 100
    assert leaders(vectors, 0.9).tolist() == expected


def test_of_many_vectors_near_duplicates_are_found_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not all pairs are compared. Copies that differ little are in one cell, or in cells side by side."""
    random = np.random.default_rng(7)
    originals = unit(random.normal(size=(1000, 64)))
    copies = unit(np.repeat(originals, 3, 0) + random.normal(scale=0.005, size=(3000, 64)))
    expected = np.repeat(np.arange(0, 3000, 3), 3).tolist()
    assert leaders(copies, 0.97).tolist() == expected
    monkeypatch.setattr(neighbours, "_MAX_EXACT", 2000)
    assert leaders(copies, 0.97).tolist() == expected
