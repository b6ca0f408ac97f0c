"""Groups of photos that are nearly the same, and which of them is to be kept."""

import numpy as np
import pytest

from visiongate.batch.inputs import open_source
from visiongate.folders.duplicates import duplicates
from visiongate.folders.index import Index

Photo = tuple[str, float, tuple[int, int], str]
"""Name, direction in degrees, size, hash."""


def index_of(*photos: Photo) -> Index:
    angles = np.radians([angle for _, angle, _, _ in photos])
    return Index(
        source=open_source(["."]),
        ids=[name for name, _, _, _ in photos],
        vectors=np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32),
        pixels=np.array([width * height for _, _, (width, height), _ in photos], np.int64),
        sizes=[size for _, _, size, _ in photos],
        hashes=[digest for _, _, _, digest in photos],
        failed=[],
    )


def named(index: Index, threshold: float) -> list[list[str]]:
    return [[index.ids[copy.row] for copy in group] for group in duplicates(index, threshold)]


def test_the_largest_is_kept_and_the_most_similar_follow() -> None:
    index = index_of(
        ("a", 0, (10, 10), "a"), ("b", 8, (20, 10), "b"), ("c", 4, (10, 10), "c"), ("d", 90, (99, 99), "d")
    )
    assert named(index, np.cos(np.radians(10))) == [["b", "c", "a"]]


def test_of_equals_the_shortest_name_is_kept() -> None:
    index = index_of(("photo (1).jpg", 0, (4, 3), "x"), ("photo.jpg", 0, (4, 3), "x"))
    assert named(index, 0.97) == [["photo.jpg", "photo (1).jpg"]]


def test_copies_come_before_near_ones() -> None:
    """Embeddings of copies can differ by rounding."""
    index = index_of(("a", 0, (9, 9), "x"), ("b", 0.0001, (8, 8), "y"), ("copy of a", 0.01, (9, 9), "x"))
    [[kept, copy, near]] = duplicates(index, 0.97)
    assert (kept.row, copy.row, near.row) == (0, 2, 1)
    assert (kept.is_exact, copy.is_exact, near.is_exact) == (True, True, False)
    assert copy.similarity == 1


def test_copies_of_a_near_one_are_in_its_group() -> None:
    index = index_of(("a", 0, (9, 9), "x"), ("b", 1, (3, 3), "y"), ("b again", 1, (3, 3), "y"))
    [group] = duplicates(index, 0.97)
    assert [copy.is_exact for copy in group] == [True, False, False]


def test_each_is_like_the_one_that_is_kept() -> None:
    random = np.random.default_rng(2)
    photos = [(str(i), float(random.uniform(0, 180)), (i % 7 + 1, 1), str(i)) for i in range(200)]
    index = index_of(*photos)
    groups = duplicates(index, 0.999)
    assert len(groups) > 10
    for group in groups:
        kept = index.vectors[group[0].row]
        assert all(index.vectors[copy.row] @ kept >= 0.999 - 1e-5 for copy in group)
        assert all(index.pixels[copy.row] <= index.pixels[group[0].row] for copy in group)
    rows = [copy.row for group in groups for copy in group]
    assert len(rows) == len(set(rows))


def test_large_groups_come_first() -> None:
    index = index_of(
        *[(f"a{i}", 0.0, (1, 1), "a") for i in range(2)], *[(f"b{i}", 90.0, (1, 1), "b") for i in range(3)]
    )
    assert [len(group) for group in named(index, 0.9)] == [3, 2]


@pytest.mark.parametrize("count", [0, 1])
def test_few(count: int) -> None:
    assert duplicates(index_of(*[("a", 0.0, (1, 1), "a")] * count), 0.9) == []
