"""Logits on a coarse grid, cut at a threshold as if they had been resized to the size of an image.

A pixel lies between four cells of the grid, and its logit between theirs. Where the four agree, the pixel
need not be interpolated: only along the outline of a mask they do not.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from gateway.models.masks import PlacedMask

_MAX_MIXED = 1 / 8
"""Part of the image's pixels that may be interpolated one by one. For more, resizing all is quicker."""

# What is between four cells that are all under the threshold, all over it, or neither.
_OUTSIDE, _INSIDE, _MIXED = 0, 1, 2


@dataclass(frozen=True, slots=True, eq=False)
class Axis:
    """The pixels along one axis of a window of the grid.

    A gap is what is between two neighbouring cells. The first is before the first cell and the last behind
    the last: there, at the edges of the grid, a cell is its own neighbour.

    start: place in the image of the first pixel. gaps: int [n], the gap of each pixel. fractions: float32
    [n], how far a pixel is from the cell before it to the next. firsts, counts: int [cells + 1], the first
    pixel of each gap, counted from `start`, and how many there are.
    """

    start: int
    gaps: NDArray[np.intp]
    fractions: NDArray[np.float32]
    firsts: NDArray[np.intp]
    counts: NDArray[np.intp]

    @classmethod
    def of(cls, window: range, cells: int, pixels: int) -> "Axis":
        """Spread pixels over all cells, and keep those that lie between cells of the window."""
        # In double precision, as OpenCV does on x86.
        places = (np.arange(pixels) + 0.5) * (cells / pixels) - 0.5
        before = np.floor(places).astype(np.intp)
        first = window.start if window.start else -1
        last = window.stop - 2 if window.stop < cells else cells - 1
        start, stop = (int(place) for place in np.searchsorted(before, (first, last + 1)))
        gaps = before[start:stop] + 1 - window.start
        counts = np.bincount(gaps, minlength=len(window) + 1)
        fractions = (places[start:stop] - before[start:stop]).astype(np.float32)
        return cls(start, gaps, fractions, np.cumsum(counts) - counts, counts)

    def neighbours(self, gaps: NDArray[np.intp]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Return the cells before and behind gaps."""
        return np.maximum(gaps - 1, 0), np.minimum(gaps, len(self.counts) - 2)

    def pixels(self, gaps: NDArray[np.intp]) -> NDArray[np.intp]:
        """Return the pixels of gaps that have some, int [k,most]. Of fewer the last one is repeated."""
        offsets = np.arange(self.counts.max(initial=0))
        return self.firsts[gaps, None] + np.minimum(offsets, self.counts[gaps, None] - 1)


@dataclass(frozen=True, eq=False)
class Upsampled:
    """Logits of the size of an image, of which few are ever computed.

    window: float32 [n,m], a part of the grid that has all cells over the least threshold that is asked for,
    with a margin of others where the grid goes on. rows, columns: its place in the grid. size: (height,
    width) of the image. resized: returns all logits, float32 [H,W].
    """

    window: NDArray[np.float32]
    rows: range
    columns: range
    grid_size: tuple[int, int]
    size: tuple[int, int]
    resized: Callable[[], NDArray[np.float32]]

    def over(self, threshold: float) -> PlacedMask:
        """Return the pixels whose logits are over a threshold."""
        gaps = self._gaps(threshold)
        mixed = self._mixed(gaps)
        if self._are_many(mixed):
            return PlacedMask.of(self._all > np.float32(threshold))
        pixels = gaps.take(self._x.gaps, axis=1).take(self._y.gaps, axis=0)
        y, x = self._y.pixels(mixed[0]), self._x.pixels(mixed[1])
        pixels[y[:, :, None], x[:, None]] = self._logits(mixed, y, x) > np.float32(threshold)
        return PlacedMask(pixels.view(np.bool_), (self._x.start, self._y.start), self.size)

    def count_over(self, threshold: float) -> int:
        """Return how many logits are over a threshold."""
        gaps = self._gaps(threshold)
        mixed = self._mixed(gaps)
        if self._are_many(mixed):
            return int(np.count_nonzero(self._all > np.float32(threshold)))
        # Not by `@`, which would take threads of its own. Sums of whole numbers below 2 ** 24 are exact.
        inside = np.einsum("ij,j->i", (gaps == _INSIDE).astype(np.float32), self._x.counts.astype(np.float32))
        y, x = self._y.pixels(mixed[0]), self._x.pixels(mixed[1])
        over = self._logits(mixed, y, x) > np.float32(threshold)
        over[:, 1:] &= (y[:, 1:] > y[:, :-1])[:, :, None]
        over[:, :, 1:] &= (x[:, 1:] > x[:, :-1])[:, None]
        return int(self._y.counts @ inside.astype(np.intp)) + int(np.count_nonzero(over))

    @cached_property
    def _y(self) -> Axis:
        return Axis.of(self.rows, self.grid_size[0], self.size[0])

    @cached_property
    def _x(self) -> Axis:
        return Axis.of(self.columns, self.grid_size[1], self.size[1])

    @cached_property
    def _all(self) -> NDArray[np.float32]:
        return self.resized()

    def _gaps(self, threshold: float) -> NDArray[np.uint8]:
        """Return what is between the cells, uint8 [n+1,m+1]."""
        height, width = self.window.shape
        over = np.empty((height + 2, width + 2), np.uint8)
        np.greater(self.window, np.float32(threshold), out=over[1:-1, 1:-1].view(np.bool_))
        over[0, 1:-1], over[-1, 1:-1] = over[1, 1:-1], over[-2, 1:-1]
        over[:, 0], over[:, -1] = over[:, 1], over[:, -2]
        some, every = over[:-1] | over[1:], over[:-1] & over[1:]
        some, every = some[:, :-1] | some[:, 1:], every[:, :-1] & every[:, 1:]
        return some * np.uint8(_MIXED) - every

    def _mixed(self, gaps: NDArray[np.uint8]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Return the rows and columns of the gaps whose pixels have to be interpolated."""
        rows, columns = np.divmod(np.flatnonzero(gaps == _MIXED), gaps.shape[1])
        has_pixels = (self._y.counts[rows] > 0) & (self._x.counts[columns] > 0)
        return rows[has_pixels], columns[has_pixels]

    def _are_many(self, mixed: tuple[NDArray[np.intp], NDArray[np.intp]]) -> bool:
        most = int(self._y.counts.max(initial=0) * self._x.counts.max(initial=0))
        return len(mixed[0]) * most > _MAX_MIXED * self.size[0] * self.size[1]

    def _logits(
        self,
        mixed: tuple[NDArray[np.intp], NDArray[np.intp]],
        y: NDArray[np.intp],
        x: NDArray[np.intp],
    ) -> NDArray[np.float32]:
        """Return the logits of the pixels of gaps, float32 [k,h,w]. They are interpolated along x first."""
        above, below = self._y.neighbours(mixed[0])
        left, right = (cells[:, None] for cells in self._x.neighbours(mixed[1]))
        fractions = self._x.fractions[x]
        top, bottom = (
            _between(self.window[rows[:, None], left], self.window[rows[:, None], right], fractions)
            for rows in (above, below)
        )
        return _between(top[:, None], bottom[:, None], self._y.fractions[y][:, :, None])


def _between(
    first: NDArray[np.float32], second: NDArray[np.float32], fractions: NDArray[np.float32]
) -> NDArray[np.float32]:
    # Product and sum are rounded once together, as OpenCV does on x86.
    exact = (second - first).astype(np.float64) * fractions
    exact += first
    return exact.astype(np.float32)
