"""Pages are drawn in reading order, in pixels, with lines of height 20, then jittered and shuffled."""

import itertools
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from gateway.models.reading_order import xy_cut

Lines = NDArray[np.float64]
Page = Callable[[np.random.Generator], Lines]

HEIGHT = 20.0
PITCH = 26.0


def line(x: float, y: float, width: float, height: float = HEIGHT) -> Lines:
    return np.array([[x, y, x + width, y + height]])


def prose(
    random: np.random.Generator, x: float, y: float, width: float, rows: int, pitch: float = PITCH
) -> Lines:
    """Paragraphs of 3 to 6 lines: the first line is indented, the last is short, the others are ragged."""
    lines: list[list[float]] = []
    while len(lines) < rows:
        length = int(random.integers(3, 7))
        for row in range(length):
            left = x + (HEIGHT if row == 0 else 0)
            share = random.uniform(0.15, 1) if row == length - 1 else random.uniform(0.88, 1)
            lines.append([left, 0, x + max(width * share, 2 * HEIGHT), 0])
    boxes = np.array(lines[:rows])
    boxes[:, 1] = y + pitch * np.arange(rows)
    boxes[:, 3] = boxes[:, 1] + HEIGHT
    return boxes


def table(
    random: np.random.Generator, x: float, y: float, columns: Sequence[tuple[float, float, float]], rows: int
) -> Lines:
    """Draw cells row by row. A column is its offset and the range of its cells' widths."""
    return np.concatenate(
        [
            line(x + offset, y + row * PITCH, random.uniform(narrowest, widest))
            for row in range(rows)
            for offset, narrowest, widest in columns
        ]
    )


def receipt(random: np.random.Generator, x: float, y: float, rows: int) -> Lines:
    return table(random, x, y, [(0, 80, 260), (340, 40, 60)], rows)


def one_column(random: np.random.Generator) -> Lines:
    return np.concatenate([line(60, 20, 200, 40), prose(random, 60, 100, 700, 30)])


def two_columns(random: np.random.Generator) -> Lines:
    return np.concatenate([prose(random, 60, 100, 400, 30), prose(random, 490, 100, 400, 30)])


def two_columns_off_the_grid(random: np.random.Generator) -> Lines:
    return np.concatenate([prose(random, 60, 100, 400, 30), prose(random, 490, 111, 400, 27, pitch=27.5)])


def two_columns_between_the_lines(random: np.random.Generator) -> Lines:
    """Each line of a column stands beside the white between two lines of the other."""
    return np.concatenate([prose(random, 60, 100, 400, 30), prose(random, 490, 100 + PITCH / 2, 400, 30)])


def three_columns_between_title_and_footer(random: np.random.Generator) -> Lines:
    columns = [prose(random, 60 + 290 * column, 200, 260, 25) for column in range(3)]
    return np.concatenate([line(200, 80, 500, 50), *columns, line(60, 880, 830)])


def three_columns_off_the_grid(random: np.random.Generator) -> Lines:
    columns = [
        prose(random, 60 + 290 * column, 200 + 9 * column, 260, 25 - column, 26 + column)
        for column in range(3)
    ]
    return np.concatenate([line(60, 140, 830, 40), *columns, line(60, 900, 830)])


def columns_of_different_length(random: np.random.Generator) -> Lines:
    return np.concatenate(
        [
            prose(random, 60, 100, 260, 30),
            prose(random, 350, 100, 260, 14),
            prose(random, 640, 100, 260, 22),
        ]
    )


def columns_that_start_late(random: np.random.Generator) -> Lines:
    return np.concatenate([prose(random, 60, 360, 400, 20), prose(random, 490, 100, 400, 30)])


def two_columns_then_heading_then_three(random: np.random.Generator) -> Lines:
    above = [prose(random, 60 + 430 * column, 100, 400, 12) for column in range(2)]
    below = [prose(random, 60 + 290 * column, 500, 260, 12) for column in range(3)]
    return np.concatenate([*above, line(60, 440, 820, 30), *below])


def two_columns_then_text_then_three(random: np.random.Generator) -> Lines:
    """No gap is wider than the usual white between lines."""
    above = [prose(random, 60 + 430 * column, 100, 400, 12) for column in range(2)]
    between = [line(60, 412 + PITCH * row, 830) for row in range(4)]
    below = [prose(random, 60 + 290 * column, 412 + 4 * PITCH, 260, 12) for column in range(3)]
    return np.concatenate([*above, *between, *below])


def picture_between_columns(random: np.random.Generator) -> Lines:
    above = [prose(random, 60 + 430 * column, 100, 400, 12) for column in range(2)]
    below = [prose(random, 60 + 430 * column, 800, 400, 12) for column in range(2)]
    return np.concatenate([*above, *below])


def pictures_in_columns(random: np.random.Generator) -> Lines:
    left = [prose(random, 60, 100, 400, 8), prose(random, 60, 600, 400, 16)]
    right = [prose(random, 490, 100, 400, 20), prose(random, 490, 900, 400, 5)]
    return np.concatenate([*left, *right])


def newspaper(random: np.random.Generator) -> Lines:
    parts = [line(60, 40, 700, 60), line(60, 125, 180)]
    for column in range(3):
        x, y = 60 + 300 * column, 170.0
        for rows in random.integers(5, 12, 3):
            parts += [line(x, y, random.uniform(60, 240), 24), prose(random, x, y + 32, 270, rows)]
            y += 32 + rows * PITCH + 14
    return np.concatenate(parts)


def headline_over_two_of_three_columns(random: np.random.Generator) -> Lines:
    return np.concatenate(
        [
            prose(random, 60, 100, 260, 30),
            line(350, 100, 540, 46),
            prose(random, 350, 178, 260, 27),
            prose(random, 640, 178, 260, 27),
        ]
    )


def blank_rows_across_columns(random: np.random.Generator) -> Lines:
    """White that is wider than the column gap crosses both columns."""
    parts = [
        prose(random, 60 + 430 * column, 100 + 8 * PITCH * part, 400, 7)
        for column in range(2)
        for part in range(4)
    ]
    return np.concatenate(parts)


def numbers_between_columns(random: np.random.Generator) -> Lines:
    """A patent numbers each fifth line between its columns: the number reads with the line right of it."""
    right = prose(random, 520, 100, 400, 30)
    parts = [
        np.concatenate([line(480, 100 + PITCH * row, 20), right[row : row + 1]])
        if row % 5 == 4
        else right[row : row + 1]
        for row in range(30)
    ]
    return np.concatenate([prose(random, 60, 100, 400, 30), *parts])


def receipt_page(random: np.random.Generator) -> Lines:
    address = np.concatenate([line(120, 40 + PITCH * row, 160) for row in range(4)])
    return np.concatenate([address, receipt(random, 60, 180, 14), receipt(random, 60, 580, 1)])


def receipt_with_long_names(random: np.random.Generator) -> Lines:
    return table(random, 60, 60, [(0, 200, 400), (480, 40, 90)], 20)


def receipt_below_columns(random: np.random.Generator) -> Lines:
    """The gap before the prices is the gap between the columns."""
    columns = [prose(random, 60 + 330 * column, 100, 300, 20) for column in range(2)]
    return np.concatenate([*columns, receipt(random, 60, 660, 10)])


def receipt_above_columns(random: np.random.Generator) -> Lines:
    columns = [prose(random, 60 + 330 * column, 500, 300, 20) for column in range(2)]
    return np.concatenate([receipt(random, 60, 200, 10), *columns])


def table_of_short_cells(random: np.random.Generator) -> Lines:
    return table(random, 60, 60, [(130.0 * column, 30, 100) for column in range(6)], 25)


def table_with_descriptions(random: np.random.Generator) -> Lines:
    columns = [(0.0, 20, 40), (60, 200, 300), (400, 30, 60), (500, 200, 300), (840, 40, 80)]
    return table(random, 60, 60, columns, 20)


def table_in_a_column(random: np.random.Generator) -> Lines:
    return np.concatenate(
        [
            prose(random, 60, 100, 400, 10),
            table(random, 60, 400, [(0, 100, 200), (250, 40, 60), (340, 40, 60)], 6),
            prose(random, 60, 600, 400, 10),
            prose(random, 490, 100, 400, 29),
        ]
    )


def form(random: np.random.Generator) -> Lines:
    """Fields that are wide enough for text, but each row stands alone."""
    rows = [[line(60, 60 + 60 * row, 200), line(400, 60 + 60 * row, 180)] for row in range(6)]
    return np.concatenate([part for row in rows for part in row])


def numbered_lines(random: np.random.Generator) -> Lines:
    text = prose(random, 110, 60, 600, 30)
    numbers = np.concatenate([line(60, 60 + PITCH * row, 25) for row in range(30)])
    return np.stack([numbers, text], 1).reshape(-1, 4)


def page_numbers(random: np.random.Generator) -> Lines:
    """A running head of two parts, and a number below the left column."""
    head = [line(60, 30, 220), line(800, 30, 30)]
    columns = [prose(random, 60 + 430 * column, 100, 400, 30) for column in range(2)]
    return np.concatenate([*head, *columns, line(60, 930, 30)])


def centred_page_number(random: np.random.Generator) -> Lines:
    columns = [prose(random, 60 + 430 * column, 100, 400, 30) for column in range(2)]
    return np.concatenate([*columns, line(460, 910, 30)])


def sidebar(random: np.random.Generator) -> Lines:
    return np.concatenate([prose(random, 60, 100, 560, 30), prose(random, 660, 250, 200, 9, pitch=24)])


def columns_beside_sidebar(random: np.random.Generator) -> Lines:
    columns = [prose(random, 60 + 310 * column, 180, 280, 27) for column in range(2)]
    return np.concatenate([line(60, 100, 580, 40), *columns, prose(random, 700, 100, 200, 30)])


def addresses_of_a_letter(random: np.random.Generator) -> Lines:
    sender, recipient = (
        [line(60 + 500 * side, 60 + PITCH * row, random.uniform(130, 220)) for row in range(4)]
        for side in range(2)
    )
    return np.concatenate([*sender, *recipient, line(700, 250, 160), prose(random, 60, 330, 830, 12)])


PAGES: list[Page] = [
    one_column,
    two_columns,
    two_columns_off_the_grid,
    two_columns_between_the_lines,
    three_columns_between_title_and_footer,
    three_columns_off_the_grid,
    columns_of_different_length,
    columns_that_start_late,
    two_columns_then_heading_then_three,
    two_columns_then_text_then_three,
    picture_between_columns,
    pictures_in_columns,
    newspaper,
    headline_over_two_of_three_columns,
    blank_rows_across_columns,
    numbers_between_columns,
    receipt_page,
    receipt_with_long_names,
    receipt_below_columns,
    receipt_above_columns,
    table_of_short_cells,
    table_with_descriptions,
    table_in_a_column,
    form,
    numbered_lines,
    page_numbers,
    centred_page_number,
    sidebar,
    columns_beside_sidebar,
    addresses_of_a_letter,
]


def jitter(random: np.random.Generator, lines: Lines) -> Lines:
    """Move lines by up to a tenth of their height, their ends by a sixth, and vary heights by 30 %."""
    height = (lines[:, 3] - lines[:, 1]) * random.uniform(0.85, 1.15, len(lines))
    centre = lines[:, [1, 3]].mean(1) + random.uniform(-0.1, 0.1, len(lines)) * height
    left, right = lines[:, [0, 2]].T + random.uniform(-0.16, 0.16, (2, len(lines))) * HEIGHT
    return np.stack([left, centre - height / 2, right, centre + height / 2], 1)


def reading_order(lines: Lines) -> list[int]:
    return list(itertools.chain(*xy_cut(lines)))


def shuffled_reading_order(random: np.random.Generator, lines: Lines) -> list[int]:
    """Return the reading order of lines that the algorithm sees in another order."""
    order = random.permutation(len(lines))
    return [int(order[index]) for index in reading_order(lines[order])]


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("seed", range(5))
def test_reading_order_of_a_page(page: Page, seed: int) -> None:
    random = np.random.default_rng(seed)
    lines = page(random)
    assert shuffled_reading_order(random, lines) == list(range(len(lines)))


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("seed", range(10))
def test_reading_order_of_a_photographed_page(page: Page, seed: int) -> None:
    random = np.random.default_rng(seed)
    lines = jitter(random, page(random))
    assert shuffled_reading_order(random, lines) == list(range(len(lines)))


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize(("scale", "shift"), [(1 / 1024, 0), (64, 0), (1, -512), (4, 4096)])
def test_unit_and_origin_do_not_matter(page: Page, scale: float, shift: float) -> None:
    random = np.random.default_rng(3)
    lines = jitter(random, page(random)).round()
    assert xy_cut(lines * scale + shift) == xy_cut(lines)


@pytest.mark.parametrize("pitch", [20, 23, 30, 36])
@pytest.mark.parametrize("offset", [0, 0.25, 0.5, 0.75])
def test_offset_between_columns_does_not_matter(pitch: float, offset: float) -> None:
    random = np.random.default_rng(5)
    columns = [prose(random, 60 + 280 * n, 100 + n * offset * pitch, 250, 30, pitch) for n in range(3)]
    lines = jitter(random, np.concatenate([line(60, 40, 800, 30), *columns]))
    assert shuffled_reading_order(random, lines) == list(range(len(lines)))


@pytest.mark.parametrize("page", [two_columns, two_columns_off_the_grid, pictures_in_columns])
@pytest.mark.parametrize("share", [0.05, 0.3])
@pytest.mark.parametrize("seed", range(3))
def test_lines_cross_the_column_gap(page: Page, share: float, seed: int) -> None:
    random = np.random.default_rng(seed)
    lines = page(random)
    is_long = (lines[:, 2] > 400) & (lines[:, 2] <= 460) & (random.random(len(lines)) < share)
    assert is_long.any()
    lines[is_long, 2] = 492
    assert shuffled_reading_order(random, lines) == list(range(len(lines)))


def test_lines_overlap_the_next_line() -> None:
    random = np.random.default_rng(2)
    lines = two_columns(random)
    lines[:, 1] -= 5
    lines[:, 3] += 5
    assert (lines[0, 3] > lines[1, 1]).all()
    assert shuffled_reading_order(random, lines) == list(range(len(lines)))


def test_headings_and_paragraphs_are_blocks() -> None:
    heading = line(60, 20, 200, 40)
    paragraphs = [line(60, y + PITCH * row, 700) for y in (100, 250) for row in range(4)]
    blocks = xy_cut(np.concatenate([heading, *paragraphs]))
    assert blocks == [[0], [1, 2, 3, 4], [5, 6, 7, 8]]


def test_columns_are_blocks() -> None:
    random = np.random.default_rng(0)
    columns = [prose(random, 60 + 290 * column, 200, 260, 5) for column in range(3)]
    blocks = xy_cut(np.concatenate([line(60, 80, 830, 50), *columns, line(60, 500, 830)]))
    assert blocks == [[0], [*range(1, 6)], [*range(6, 11)], [*range(11, 16)], [16]]


def test_evenly_spaced_lines_are_one_block() -> None:
    for pitch in (20, 26, 40):
        lines = np.concatenate([line(60, pitch * row, 700) for row in range(10)])
        assert xy_cut(lines) == [[*range(10)]]


def test_a_receipt_is_read_row_by_row() -> None:
    lines = receipt(np.random.default_rng(0), 60, 60, 8)
    assert xy_cut(lines) == [[*range(16)]]


def test_no_line_and_one_line() -> None:
    assert xy_cut(np.zeros((0, 4))) == []
    assert xy_cut(line(1, 2, 3)) == [[0]]


@pytest.mark.parametrize("box", [(0, 0, 0, 0), (1, 2, 30, 2), (1, 2, 1, 30), (1, 2, 300, 30)])
def test_equal_boxes_are_one_block(box: tuple[float, float, float, float]) -> None:
    assert xy_cut(np.tile(np.array([box], np.float64), (50, 1))) == [[*range(50)]]


def test_twenty_columns() -> None:
    random = np.random.default_rng(1)
    lines = np.concatenate([prose(random, 300 * column, 0, 260, 250) for column in range(20)])
    assert reading_order(lines) == list(range(5000))


def test_dense_table() -> None:
    random = np.random.default_rng(1)
    lines = table(random, 0, 0, [(130 * column, 30, 100) for column in range(20)], 250)
    assert reading_order(lines) == list(range(5000))


def steps(random: np.random.Generator) -> Lines:
    """Sections of two columns, each with a gap of its own, between lines across the page."""
    sections = []
    for y in 7 * PITCH * np.arange(700):
        x = random.uniform(200, 5000)
        columns = [
            line(left, y + PITCH * row, width) for row in (1, 2, 3) for left, width in ((0, x), (x + 40, 900))
        ]
        sections += [line(0, y, 6000), *columns]
    return np.concatenate(sections)


def diagonal(random: np.random.Generator) -> Lines:
    """Each cut frees one column only."""
    return np.concatenate(
        [
            line(300 * (step + part), (3 * step + row) * PITCH, 240 + 300 * 800 * part)
            for step in range(800)
            for row in range(3)
            for part in range(2)
        ]
    )


def scattered(random: np.random.Generator) -> Lines:
    corners = random.uniform(0, 20000, (5000, 2))
    return np.concatenate([corners, corners + random.uniform(5, [300, 30], (5000, 2))], 1)


def crowded(random: np.random.Generator) -> Lines:
    corners = random.uniform(0, 1000, (5000, 2))
    return np.concatenate([corners, corners + random.uniform(0, [300, 30], (5000, 2))], 1)


@pytest.mark.parametrize("page", [steps, diagonal, scattered, crowded])
def test_each_line_of_a_hostile_page_is_read_once(page: Page) -> None:
    lines = page(np.random.default_rng(0))
    assert sorted(reading_order(lines)) == list(range(len(lines)))


@settings(max_examples=150, deadline=None)
@given(
    arrays.arrays(
        np.float64,
        st.tuples(st.integers(0, 40), st.just(4)),
        elements=st.one_of(st.integers(0, 20).map(float), st.floats(-1e6, 1e6)),
    ),
    st.sampled_from([1, 10, 100]),
)
def test_each_line_is_read_once(numbers: Lines, stretch: int) -> None:
    corners, sizes = numbers[:, :2], np.abs(numbers[:, 2:]) * [stretch, 1]
    lines = np.concatenate([corners, corners + sizes], 1)
    blocks = xy_cut(lines)
    assert sorted(itertools.chain(*blocks)) == list(range(len(lines)))
    assert all(blocks)


@settings(max_examples=100, deadline=None)
@given(st.data(), st.integers(1, 4), st.integers(3, 12))
def test_any_columns_of_text_are_read_one_after_another(data: st.DataObject, columns: int, rows: int) -> None:
    width = data.draw(st.floats(8 * HEIGHT, 40 * HEIGHT), "width of a column")
    gap = data.draw(st.floats(1.5 * HEIGHT, 5 * HEIGHT), "gap between columns")
    pitch = data.draw(st.floats(1.05 * HEIGHT, 1.9 * HEIGHT), "pitch")
    # At most one short line in three: fewer lines of a column are short than long.
    short = st.lists(st.booleans(), min_size=rows, max_size=rows)
    lines = []
    for column in range(columns):
        is_short = data.draw(short, "short lines")
        for row in range(rows):
            share = 0.3 if is_short[row] and row % 3 == 2 else 1
            lines.append(line(column * (width + gap), row * pitch, width * share))
    assert reading_order(np.concatenate(lines)) == list(range(columns * rows))
