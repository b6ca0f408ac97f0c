"""Groups of vectors whose truth is known."""

import numpy as np
import pytest
from numpy.typing import NDArray

from visiongate.folders import clusters
from visiongate.folders.clusters import by_density, by_number


def heaps(sizes: list[int], alone: int = 0) -> tuple[NDArray[np.float32], NDArray[np.int_]]:
    """Return vectors [N,64] in heaps of known sizes and some that are alone, and the heap of each or -1."""
    random = np.random.default_rng(7)
    centres = random.normal(size=(len(sizes) + alone, 64))
    truth = np.repeat(np.arange(len(centres)), [*sizes, *[1] * alone])
    vectors = centres[truth] + random.normal(scale=0.1, size=(len(truth), 64))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors.astype(np.float32), np.where(truth < len(sizes), truth, -1)


def test_density_finds_the_groups_and_who_is_alone() -> None:
    vectors, truth = heaps([10, 40, 20], alone=5)
    found = by_density(vectors, 3)
    groups = [set(group.members.tolist()) for group in found.groups]
    assert groups == [set(np.flatnonzero(truth == heap)) for heap in (1, 2, 0)]
    assert found.outliers.tolist() == np.flatnonzero(truth == -1).tolist()


def test_k_means_shares_all_out() -> None:
    vectors, truth = heaps([10, 40, 20])
    found = by_number(vectors, 3)
    assert [set(group.members.tolist()) for group in found.groups] == [
        set(np.flatnonzero(truth == heap)) for heap in (1, 2, 0)
    ]
    assert not len(found.outliers)


def test_many_vectors_are_shared_out_by_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clusters, "_MANY", 10)
    vectors, _ = heaps([10, 40, 20])
    assert [len(group.members) for group in by_number(vectors, 3).groups] == [40, 20, 10]


def test_the_nearest_to_the_centre_comes_first() -> None:
    [group] = by_number(heaps([30])[0], 1).groups
    assert (np.diff(group.scores) <= 0).all()
    assert np.linalg.norm(group.centre) == pytest.approx(1)


def test_answers_are_the_same_each_time() -> None:
    vectors, _ = heaps([6] * 12, alone=20)
    numbered: list[list[list[int]]] = []
    dense: list[list[list[int]]] = []
    for _ in range(2):
        numbered.append([group.members.tolist() for group in by_number(vectors, 9).groups])
        dense.append([group.members.tolist() for group in by_density(vectors, 3).groups])
    assert numbered[0] == numbered[1]
    assert dense[0] == dense[1]


@pytest.mark.parametrize("count", [0, 1, 2])
def test_few_vectors(count: int) -> None:
    vectors = heaps([count])[0]
    assert by_density(vectors, 3).outliers.tolist() == list(range(count))
    assert sum(len(group.members) for group in by_number(vectors, 5).groups) == count


def test_equal_vectors_are_one_group() -> None:
    vectors = np.repeat(heaps([1])[0], 8, 0)
    [group] = by_number(vectors, 3).groups
    assert group.members.tolist() == list(range(8))
    [group] = by_density(vectors, 3).groups
    assert len(group.members) == 8


@pytest.mark.parametrize("size", [3, 40, 300])
def test_all_alike_are_one_group(size: int) -> None:
    vectors, _ = heaps([size], alone=3 if size > 3 else 0)
    found = by_density(vectors, 3)
    assert [sorted(group.members) for group in found.groups] == [list(range(size))]
    assert found.outliers.tolist() == list(range(size, len(vectors)))


def test_groups_of_a_model_to_which_all_is_much_alike() -> None:
    vectors, truth = heaps([30, 40, 50])
    vectors[:, 0] += 4
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    assert (vectors @ vectors.T).min() > 0.9
    found = by_density(vectors, 3)
    assert [sorted(group.members) for group in found.groups] == [
        np.flatnonzero(truth == heap).tolist() for heap in (2, 1, 0)
    ]


def test_equal_vectors_do_not_split_a_group() -> None:
    vectors, truth = heaps([30, 40, 50], alone=5)
    vectors[:30] = vectors[0]
    vectors[30:40] = vectors[30]
    vectors[70:120:2] = vectors[71:120:2]
    found = by_density(vectors, 3)
    assert [sorted(group.members) for group in found.groups] == [
        np.flatnonzero(truth == heap).tolist() for heap in (2, 1, 0)
    ]


def test_what_lies_scattered_is_no_group() -> None:
    found = by_density(heaps([], alone=300)[0], 3)
    assert sum(len(group.members) for group in found.groups) < 15


def test_too_many_for_density_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clusters, "MAX_COUNT_BY_DENSITY", 5)
    with pytest.raises(ValueError, match=r"6 photos.* 5 at most: give their number by --clusters"):
        by_density(heaps([6])[0], 3)
