"""Reading order of a page's lines by columns: a recursive XY-cut.

The XY-cut of Nagy and Seth (1984, "Hierarchical representation of optically scanned documents") splits a page
at white gaps, across or down, and repeats this in each part. This module changes three things:

- Columns come first. If the lines of two columns share a grid, the white between two rows crosses the page.
  Cuts there read left, right, left, right. Here cuts across only free the rows that share a column gap.
- A column gap has columns of text on both sides. Tables, receipts and forms have gaps down the page too, but
  they are read row by row.
- White is measured between the cores of lines, without their edges. Thus lines may overlap a little.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]

# The unit is the median height of lines, if none is named. The core of a line is the line without its trims.

# A line of text is at least this wide, in its own heights. Prices and line numbers have 1 to 5 heights. The
# lines of the narrowest newspaper columns, of 25 characters, have 10 to 12.
MIN_TEXT_WIDTH = 6.0
# Lines that make a column. Fewer, side by side, are the parts of a header, a footer or a row of a form.
MIN_COLUMN_LINES = 3
# Pairs of lines of text beside each other that make a gap worth a try.
MIN_VOTES = 2
# Trims at a line's top and bottom, in its own heights, and at its left and right: descenders reach the next
# line, and a line may cross a narrow column gap.
TRIM_Y, TRIM_X = 0.3, 0.5
# Cores on both sides of a column gap are at least this far apart.
MIN_COLUMN_GAP = 0.75
# White between the cores of rows that belong together. Double line spacing has 1.6. Rows of a form have more.
MAX_LEADING = 1.75
# The white above a paragraph exceeds the usual white between rows by at least this.
MIN_PARAGRAPH_GAP = 0.5
# More white than this across all columns holds a picture: all that is above it is read before all below it.
MAX_COLUMN_BREAK = 6.0
# Gaps that are tried in one region, and levels of cuts. Pages have few, and random boxes must not take long.
MAX_GAPS = 8
MAX_DEPTH = 32


def xy_cut(lines: Points) -> list[list[int]]:
    """Group lines into blocks in reading order, column by column.

    lines: [n, 4] xyxy of an upright page, in pixels or another unit that is the same on both axes. Returns
    blocks of indices of lines: rows from top to bottom, and each row from left to right.
    """
    blocks: list[list[int]] = []
    regions = [(np.arange(len(lines)), 0)] if len(lines) else []
    while regions:
        indices, depth = regions.pop()
        is_final = depth == MAX_DEPTH or len(indices) < 2 * MIN_COLUMN_LINES
        parts = [] if is_final else _cut(_Region(lines[indices]))
        regions.extend((indices[part], depth + 1) for part in reversed(parts))
        if not parts:
            blocks.extend(indices[block].tolist() for block in _blocks(lines[indices]))
    return blocks


class _Region:
    """Lines of a part of the page, sorted into bands and their cells.

    Bands lie below each other, with white between them. If the columns share a grid, a band is one row of
    lines. Otherwise it may be many rows high. Cells lie beside each other in a band, with gaps between them.
    """

    def __init__(self, lines: Points) -> None:
        left, top, right, bottom = lines.T
        width, height = right - left, bottom - top
        self.unit = float(np.median(height))
        trim = np.minimum(TRIM_X * self.unit, width / 4)
        left, right = left + trim, right - trim
        top, bottom = top + TRIM_Y * height, bottom - TRIM_Y * height
        self.line_left = left

        order = top.argsort()
        reach = np.maximum.accumulate(bottom[order])
        is_first = np.append(True, top[order][1:] > reach[:-1])
        self.band_of_line = np.empty(len(lines), np.intp)
        self.band_of_line[order] = is_first.cumsum() - 1
        self.top, self.bottom = top[order][is_first], reach[np.append(is_first[1:], True)]
        self.white_above = np.append(0.0, self.top[1:] - self.bottom[:-1])
        order = np.lexsort((left, self.band_of_line))
        band = self.band_of_line[order]
        # Moves each band to the right of the band above it, so that the maximum starts anew.
        offset = band * (right.max() - left.min())
        reach = np.maximum.accumulate(right[order] + offset)
        is_gap = (left[order] + offset)[1:] - reach[:-1] > MIN_COLUMN_GAP * self.unit
        first = np.flatnonzero(np.append(True, (band[1:] != band[:-1]) | is_gap))
        self.left, self.right = left[order][first], np.maximum.reduceat(right[order], first)
        self.lines = np.diff(first, append=len(lines))
        self.text_lines = np.add.reduceat((width >= MIN_TEXT_WIDTH * height)[order], first, dtype=np.intp)
        self.first_cell = np.flatnonzero(np.diff(band[first], prepend=-1))
        self.cells = np.diff(self.first_cell, append=len(first))

    def gaps(self) -> Iterator[float]:
        """Yield x of gaps between cells of text: the gap that most lines share comes first."""
        first_cell, last_cell = self.first_cell, self.first_cell + self.cells - 1
        # Cells are beside each other in one band, or in two bands whose untrimmed lines overlap: without a
        # shared grid, each line may have a band of its own.
        inner = np.delete(np.arange(len(self.left)), last_cell)
        lower = np.flatnonzero(self.white_above[1:] < 2 * TRIM_Y * self.unit) + 1
        before = np.concatenate([inner, last_cell[lower - 1], last_cell[lower]])
        after = np.concatenate([inner + 1, first_cell[lower], first_cell[lower - 1]])
        is_gap = self.left[after] - self.right[before] > MIN_COLUMN_GAP * self.unit
        before, after = before[is_gap], after[is_gap]
        # Gaps beside short cells and the margins of bands only choose among equals: together under one vote.
        margins = np.zeros(len(first_cell))
        start = np.concatenate([self.right[before], self.right[last_cell], margins + self.left.min()])
        end = np.concatenate([self.left[after], margins + self.right.max(), self.left[first_cell]])
        has_text = 2 * self.text_lines >= self.lines
        lines = np.minimum(self.lines[before], self.lines[after]) * (has_text[before] & has_text[after])
        votes = np.concatenate([lines, margins, margins]) + 1 / (len(start) + 1)
        for _ in range(MAX_GAPS):
            edges = np.concatenate([end, start])
            order = edges.argsort(kind="stable")
            votes_at_edge = np.concatenate([-votes, votes])[order].cumsum()
            best = int(votes_at_edge.argmax())
            if votes_at_edge[best] < MIN_VOTES:
                return
            x = float(edges[order[best : best + 2]].mean())
            yield x
            is_other = (votes < 1) | (start >= x) | (end <= x)
            start, end, votes = start[is_other], end[is_other], votes[is_other]


def _cut(region: _Region) -> list[NDArray[np.intp]]:
    """Return the parts of a region in reading order, as indices of its lines: none if it has one column."""
    runs = [(bands, x) for x in region.gaps() for bands in _column_runs(region, x)]
    # The highest first: the columns of the page come before those inside one of its columns.
    runs.sort(key=lambda run: region.top[run[0].start] - region.bottom[run[0].stop - 1])
    x_of_band = np.full(len(region.top), np.inf)
    part_of_band = np.zeros(len(region.top), np.intp)
    for bands, x in runs:
        if np.isinf(x_of_band[bands]).all():
            x_of_band[bands] = x
            part_of_band[bands] += 1  # After the part above it. The right side adds 1 again.
            part_of_band[bands.stop :] += 3
    part = part_of_band[region.band_of_line] + (region.line_left > x_of_band[region.band_of_line])
    order = part.argsort(kind="stable")
    return _split(order, part[order]) if runs else []


def _column_runs(region: _Region, x: float) -> list[slice]:
    """Return the runs of bands with columns of text on both sides of `x`, as long as possible."""
    cells_before = np.add.reduceat(region.right < x, region.first_cell, dtype=np.intp)
    has_left, has_right = cells_before > 0, cells_before < region.cells
    left = region.first_cell + cells_before - 1
    right = np.minimum(left + 1, len(region.left) - 1)
    is_free = ~has_right | (region.left[right] > x)
    # Only the cells next to the gap count: [lines, lines of text] x [left, right] x bands.
    counts = np.stack([region.lines, region.text_lines])[:, [left, right]] * [has_left, has_right]
    # A section is a group of bands with little white between them.
    is_first = (region.white_above > MAX_LEADING * region.unit) | np.diff(is_free, prepend=~is_free[:1])
    first = np.flatnonzero(is_first)
    end = np.append(first[1:], len(is_first))
    lines, text_lines = np.add.reduceat(counts, first, axis=-1)
    has_columns = (lines >= MIN_COLUMN_LINES).all(0)
    has_text = (2 * text_lines >= lines).all(0)
    # A table below two columns may have white at the same x.
    is_barrier = ~is_free[first] | (has_columns & ~has_text)
    is_start = is_barrier | (region.white_above[first] > MAX_COLUMN_BREAK * region.unit)
    is_start[1:] |= is_barrier[:-1]
    # Sections of few lines are titles or page numbers at the ends of a run, but paragraphs inside it.
    usable = np.flatnonzero(~is_barrier & (lines >= MIN_COLUMN_LINES).any(0))
    return [
        slice(first[sections[0]], end[sections[-1]])
        for sections in _split(usable, is_start.cumsum()[usable])
        if (has_columns & has_text)[sections].any()
    ]


def _blocks(lines: Points) -> list[NDArray[np.intp]]:
    """Return the blocks of one column, as indices of its lines: rows with the usual white between them."""
    left, top, _, bottom = lines.T
    height, unit = bottom - top, float(np.median(bottom - top))
    order = (top + bottom).argsort(kind="stable")
    row_of_line: list[int] = []
    row, count, total = 0, 0, 0.0
    for centre in ((top + bottom)[order] / 2).tolist():
        if count and centre - total / count > unit / 2:
            row, count, total = row + 1, 0, 0.0
        row_of_line.append(row)
        count, total = count + 1, total + centre
    order = order[np.lexsort((left[order], row_of_line))]
    first = np.flatnonzero(np.diff(row_of_line, prepend=-1))
    row_top = np.minimum.reduceat((top + TRIM_Y * height)[order], first)
    row_bottom = np.maximum.reduceat((bottom - TRIM_Y * height)[order], first)
    white = row_top[1:] - row_bottom[:-1]
    usual = min(float(np.median(white)), MAX_LEADING * unit) if len(white) else 0.0
    return np.split(order, first[1:][white > usual + MIN_PARAGRAPH_GAP * unit])


def _split(values: NDArray[np.intp], keys: NDArray[np.intp]) -> list[NDArray[np.intp]]:
    """Split values where their keys change."""
    return np.split(values, np.flatnonzero(np.diff(keys)) + 1)
