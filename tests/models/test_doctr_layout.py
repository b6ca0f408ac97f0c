import itertools

import numpy as np
import pytest
from doctr.models.builder import DocumentBuilder
from numpy.typing import NDArray

from gateway.models.doctr_layout import arrange


def words_of_a_page(seed: int, rows: int = 12, columns: int = 2) -> NDArray[np.float64]:
    """Rows of words in columns with uneven gaps and heights, shuffled, some alone."""
    random = np.random.default_rng(seed)
    words = []
    for row, column in itertools.product(range(rows), range(columns)):
        x = column / columns + 0.02
        y = 0.05 + row * 0.9 / rows + (0.04 if row > rows / 2 else 0)
        for _ in range(random.integers(0, 7)):
            width = random.uniform(0.01, 0.08)
            height = random.uniform(0.015, 0.03)
            top = y + random.normal(0, 0.003)
            words.append([x, top, x + width, top + height])
            x += width + random.exponential(0.01)
    boxes: NDArray[np.float64] = np.clip(np.array(words), 0, 1)
    random.shuffle(boxes)
    return boxes


def reference_layout(
    words: NDArray[np.float64], size: tuple[int, int], lines: bool, blocks: bool
) -> list[list[list[int]]]:
    builder = DocumentBuilder(resolve_lines=lines, resolve_blocks=blocks)
    texts = [(str(index), 1.0) for index in range(len(words))]
    found = builder._build_blocks(words, np.ones(len(words)), texts, [{}] * len(words), size)
    return [[[int(word.value) for word in line.words] for line in block.lines] for block in found]


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize(("lines", "blocks"), [(True, False), (True, True), (False, False)])
@pytest.mark.parametrize("size", [(1000, 700), (300, 900)])
def test_layout_equals_doctr(seed: int, lines: bool, blocks: bool, size: tuple[int, int]) -> None:
    boxes = words_of_a_page(seed, rows=3 + 2 * seed, columns=1 + seed % 3)
    actual = arrange(boxes, size, lines=lines, blocks=blocks)
    assert actual == reference_layout(boxes, size, lines, blocks)
    assert sorted(itertools.chain(*itertools.chain(*actual))) == list(range(len(boxes)))


@pytest.mark.parametrize("angle", [0, 0.5, 7, -20, 44, 80, 89.5])
@pytest.mark.parametrize(("lines", "blocks"), [(True, False), (True, True), (False, False)])
def test_layout_of_turned_words_equals_doctr(angle: float, lines: bool, blocks: bool) -> None:
    size = (1000, 700)
    boxes = words_of_a_page(4)
    corners = boxes[:, [[0, 1], [2, 1], [2, 3], [0, 3]]] * [700, 1000]
    radians = np.deg2rad(angle)
    turn = np.array([[np.cos(radians), -np.sin(radians)], [np.sin(radians), np.cos(radians)]])
    turned = ((corners - [350, 500]) @ turn * 0.7 + [350, 500]) / [700, 1000]
    # Short words come out of detection upright.
    turned[::9] = boxes[::9][:, [[0, 1], [2, 1], [2, 3], [0, 3]]] * 0.7 + 0.1
    actual = arrange(turned, size, lines=lines, blocks=blocks)
    assert actual == reference_layout(turned, size, lines, blocks)


def test_lines_read_left_to_right_and_down() -> None:
    boxes = np.array([[0.3, 0.1, 0.4, 0.14], [0.1, 0.2, 0.2, 0.24], [0.28, 0.103, 0.29, 0.14]])
    assert arrange(boxes, (100, 100)) == [[[2, 0], [1]]]


def test_one_word() -> None:
    for blocks in (False, True):
        assert arrange(np.array([[0.1, 0.1, 0.2, 0.2]]), (10, 10), blocks=blocks) == [[[0]]]
        line = np.array([[[0.1, 0.1], [0.1, 0.1], [0.1, 0.1], [0.1, 0.1]]])
        assert arrange(line, (10, 10), blocks=blocks) == [[[0]]]


def columns_of_lines(gap: float) -> NDArray[np.float64]:
    """Two columns of six lines, the left one first, on a page of 1000 x 1000 pixels."""
    rows = np.arange(6) * 0.03 + 0.1
    lefts, rights = (0.1, 0.1 + 0.4 + gap), (0.5, 0.5 + gap + 0.3)
    return np.array(
        [[left, row, right, row + 0.02] for left, right in zip(lefts, rights, strict=True) for row in rows]
    )


def test_columns_are_read_one_after_the_other_if_that_is_wanted() -> None:
    lines = columns_of_lines(0.05)
    one_by_one = [[[index] for index in range(6)], [[index] for index in range(6, 12)]]
    by_columns = arrange(lines, (1000, 1000), blocks=True, by_columns=True, places_are_lines=True)
    assert by_columns == one_by_one
    joined = arrange(lines, (1000, 1000), by_columns=True, places_are_lines=True)
    assert joined == [list(itertools.chain(*one_by_one))]
    alternating = [[[row + column] for row in range(6) for column in (0, 6)]]
    assert arrange(lines, (1000, 1000), places_are_lines=True) == alternating
    # Turned as a whole, it is read in the same order.
    corners = lines[:, [[0, 1], [2, 1], [2, 3], [0, 3]]] - 0.5
    turn = np.exp(-1j * np.deg2rad(3))
    turned = (corners @ [[1], [1j]])[..., 0] * turn + 0.5 + 0.5j
    points = np.stack([turned.real, turned.imag], axis=-1)
    assert arrange(points, (1000, 1000), blocks=True, by_columns=True, places_are_lines=True) == one_by_one


def test_words_of_columns_become_lines_first() -> None:
    """Of docTR, too, whose places are words."""
    words = columns_of_lines(0.05)
    halves = np.concatenate([words, words])
    middle = words[:, [0, 2]].mean(1)
    halves[:12, 2], halves[12:, 0] = middle - 0.003, middle + 0.003
    blocks = arrange(halves, (1000, 1000), blocks=True, by_columns=True)
    assert blocks == [
        [[index, index + 12] for index in range(6)],
        [[index, index + 12] for index in range(6, 12)],
    ]


@pytest.mark.parametrize(("gap", "count"), [(0.008, 6), (0.012, 12)])
def test_runs_of_words_join_if_they_are_close(gap: float, count: int) -> None:
    """Up to half their height, which is 0.02."""
    (lines,) = arrange(columns_of_lines(gap), (1000, 1000), places_are_lines=True)
    assert len(lines) == count
