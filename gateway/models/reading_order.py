"""Reading order of a page's lines by columns: a recursive XY-cut.

The XY-cut of Nagy and Seth (1984, "Hierarchical representation of optically scanned documents") splits a page
at the widest white gap, across or down, and repeats this in both parts. This module changes three things:

- Columns come first. If the lines of two columns lie on one grid, each gap between two rows crosses the whole
  page, and a cut there reads left, right, left, right. Here a page is cut across only above and below a run of
  rows that share a column gap.
- A column gap must have text columns on both sides. Tables, receipts and forms have gaps down the page too, but
  they are read row by row.
- Gaps are found between the middles of the lines, not between their edges. Thus lines may overlap a little.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]
Integers = NDArray[np.intp]
Flags = NDArray[np.bool_]

# A line of a text column is at least this wide, in its own heights. Prices and line numbers have 2 to 5 heights.
# The narrowest newspaper columns, of about 25 characters, have 10 to 12.
MIN_TEXT_WIDTH = 6.0
# Fewer lines than this make no column: a footer or a signature may have two parts side by side.
MIN_COLUMN_LINES = 3
# The part of a line's height that is ignored at its top, and again at its bottom: descenders touch the next line.
TRIM_Y = 0.3
# The same at its left and at its right, in median heights: a line may cross a narrow column gap.
TRIM_X = 0.5
# A gap between trimmed lines of a row is at least this wide, in median heights.
MIN_COLUMN_GAP = 0.75
# White between trimmed rows, in median heights. 1.6 is a line and a half to two lines of normal text. Rows of a form
# are usually further apart.
MAX_LEADING = 1.6
# White across all columns that is higher than this, in median heights, holds a picture: columns end there.
MAX_COLUMN_BREAK = 6.0
# White above a paragraph exceeds the usual white between rows by this, in median heights.
MIN_PARAGRAPH_GAP = 0.5
# Gaps that are tried in a region, and nested cuts of a page. Real pages need a few; random boxes would need many.
MAX_GAPS = 32
MAX_DEPTH = 40


def xy_cut(lines: Points) -> list[list[int]]:
    """Group lines into blocks in reading order, column by column.

    lines: [n, 4] xyxy of an upright page, in pixels or in another unit that is the same on both axes. Returns
    blocks of indices of lines. A block is read from top to bottom, and a row of it from left to right.
    """
    blocks: list[list[int]] = []
    regions = [(np.arange(len(lines)), 0)]
    while regions:
        indices, depth = regions.pop()
        parts = _cut(_Region(lines[indices])) if len(indices) and depth < MAX_DEPTH else []
        if parts:
            regions.extend((indices[part], depth + 1) for part in reversed(parts))
        elif len(indices):
            blocks.extend(indices[block].tolist() for block in _blocks(lines[indices]))
    return blocks


class _Region:
    """Lines of a part of the page in bands, and in cells of the bands.

    Bands lie below each other with white between them. If all columns share a grid, a band is a row of lines.
    Otherwise it may be many rows high. The cells of a band lie beside each other with column gaps between them.
    """

    def __init__(self, lines: Points) -> None:
        left, top, right, bottom = lines.T
        width, height = right - left, bottom - top
        self.unit = float(np.median(height))
        trim = np.minimum(TRIM_X * self.unit, width / 4)
        left, right = left + trim, right - trim
        top, bottom = top + TRIM_Y * height, bottom - TRIM_Y * height

        order = top.argsort(kind="stable")
        reach = np.maximum.accumulate(bottom[order])
        is_first = np.append(True, top[order][1:] > reach[:-1])
        self.band_of_line = np.empty(len(lines), np.intp)
        self.band_of_line[order] = is_first.cumsum() - 1
        self.top = top[order][is_first]
        self.bottom = reach[np.append(is_first[1:], True)]
        self.white_above = np.append(0.0, self.top[1:] - self.bottom[:-1])

        order = np.lexsort((left, self.band_of_line))
        band = self.band_of_line[order]
        # The offset sorts all lines of a band after those of the bands above it.
        offset = band * (right.max() - left.min())
        reach = np.maximum.accumulate(right[order] + offset)
        is_gap = (left[order] + offset)[1:] - reach[:-1] > MIN_COLUMN_GAP * self.unit
        first = np.flatnonzero(np.append(True, (band[1:] != band[:-1]) | is_gap))
        self.line_left = left
        self.left = left[order][first]
        self.right = np.maximum.reduceat(right[order], first)
        self.lines = np.diff(first, append=len(lines))
        self.text_lines = np.add.reduceat((width >= MIN_TEXT_WIDTH * height)[order], first, dtype=np.intp)
        self.band = band[first]
        self.first_cell = np.flatnonzero(np.append(True, self.band[1:] != self.band[:-1]))

    def gaps(self) -> list[float]:
        """Return x of gaps between cells of text, those that most lines share first."""
        before = np.flatnonzero(self.band[1:] == self.band[:-1])
        start, end = self.right[before], self.left[before + 1]
        is_text = 2 * self.text_lines >= self.lines
        is_text = is_text[before] & is_text[before + 1]
        # Other gaps only choose among equals: numbers between two columns of text then join one of them.
        votes = np.where(
            is_text, np.minimum(self.lines[before], self.lines[before + 1]), 1 / (len(before) + 1)
        )
        positions: list[float] = []
        while is_text.any() and len(positions) < MAX_GAPS:
            # An end sorts before a start at the same place.
            order = np.lexsort((np.repeat([1, 0], len(start)), np.concatenate([start, end])))
            edges = np.concatenate([start, end])[order]
            best = int(np.concatenate([votes, -votes])[order].cumsum().argmax())
            x = float(edges[best] + edges[best + 1]) / 2
            positions.append(x)
            others = (start >= x) | (end <= x)
            start, end, votes, is_text = start[others], end[others], votes[others], is_text[others]
        return positions


@dataclass(frozen=True)
class _Run:
    """Bands from `first` to before `end` that have columns left and right of `x`."""

    x: float
    first: int
    end: int


def _cut(region: _Region) -> list[Integers]:
    """Return the parts of a region in reading order, as indices of its lines: none if it has one column."""
    runs = [run for x in region.gaps() for run in _column_runs(region, x)]
    if not runs:
        return []
    # The highest first: the columns of the page before those inside one of its columns.
    runs.sort(key=lambda run: region.top[run.first] - region.bottom[run.end - 1])
    # Each run adds three parts: the bands above it, its left side and its right side.
    part_of_band = np.zeros(len(region.top), np.intp)
    x_of_band = np.full(len(region.top), np.inf)
    for run in runs:
        bands = slice(run.first, run.end)
        if np.isinf(x_of_band[bands]).all():
            x_of_band[bands] = run.x
            part_of_band[bands] += 1
            part_of_band[run.end :] += 3
    band = region.band_of_line
    part_of_line = part_of_band[band] + (region.line_left > x_of_band[band])
    order = part_of_line.argsort(kind="stable")
    return np.split(order, np.flatnonzero(np.diff(part_of_line[order])) + 1)


def _column_runs(region: _Region, x: float) -> list[_Run]:
    """Return the runs of bands in which `x` lies between columns of text."""
    cells = np.diff(region.first_cell, append=len(region.left))
    cells_before = np.add.reduceat(region.right < x, region.first_cell, dtype=np.intp)
    right = np.minimum(region.first_cell + cells_before, len(region.left) - 1)
    has_left, has_right = cells_before > 0, cells_before < cells
    is_free = ~has_right | (region.left[right] > x)
    # [lines, lines of text] x [left, right] x bands. Only the cells next to the gap count.
    counts = np.array([region.lines, region.text_lines])[:, [right - 1, right]] * [has_left, has_right]

    # Sections of a run: bands without much white between them.
    is_first = region.white_above > MAX_LEADING * region.unit
    is_first[1:] |= is_free[1:] != is_free[:-1]
    is_first[0] = True
    first = np.flatnonzero(is_first)
    end = np.append(first[1:], len(is_first))
    lines, text_lines = np.add.reduceat(counts, first, axis=-1)
    has_columns = (lines >= MIN_COLUMN_LINES).all(0)
    is_text = (2 * text_lines >= lines).all(0)
    is_table = has_columns & ~is_text

    is_barrier = is_table | ~is_free[first]
    is_start = is_barrier | (region.white_above[first] > MAX_COLUMN_BREAK * region.unit)
    is_start[1:] |= is_barrier[:-1]
    # At the ends of a run, sections of few lines are titles, footers and page numbers, which the page reads first
    # and last. In its middle they are short paragraphs.
    usable = np.flatnonzero(~is_barrier & (lines >= MIN_COLUMN_LINES).any(0))
    run_of_section = is_start.cumsum()[usable]
    return [
        _Run(x, int(first[sections[0]]), int(end[sections[-1]]))
        for sections in np.split(usable, np.flatnonzero(np.diff(run_of_section)) + 1)
        if (has_columns & is_text)[sections].any()
    ]


def _blocks(lines: Points) -> list[list[int]]:
    """Return the blocks of a single column, as indices of its lines: rows with little white between them."""
    unit = float(np.median(lines[:, 3] - lines[:, 1]))
    centres = lines[:, [1, 3]].mean(1)
    order = np.lexsort((lines[:, 0], centres)).tolist()
    rows = [[order[0]]]
    total = centres[order[0]]
    for line in order[1:]:
        if abs(centres[line] - total / len(rows[-1])) <= unit / 2:
            rows[-1].append(line)
            total += centres[line]
        else:
            rows.append([line])
            total = centres[line]
    first = np.cumsum([0, *map(len, rows[:-1])])
    trim = TRIM_Y * (lines[:, 3] - lines[:, 1])
    top = np.minimum.reduceat((lines[:, 1] + trim)[order], first)
    bottom = np.maximum.reduceat((lines[:, 3] - trim)[order], first)
    white = top[1:] - bottom[:-1]
    usual = min(float(np.median(white)), MAX_LEADING * unit) if len(white) else 0.0
    blocks: list[list[int]] = [[]]
    for row, white_above in zip(rows, [0.0, *white.tolist()], strict=True):
        if white_above > usual + MIN_PARAGRAPH_GAP * unit:
            blocks.append([])
        blocks[-1].extend(sorted(row, key=lambda line: float(lines[line, 0])))
    return blocks
