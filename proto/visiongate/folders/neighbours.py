"""What lies close together among many vectors of length 1.

All of it is exact, and takes memory for some blocks of vectors beside the vectors themselves.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]

_BLOCK = 512
_BLOCK_OF_REST = 4096
_LONG_BLOCK = 65_536
# Sums of products in another order differ by less.
_ROUNDING = 1e-6


def nearest(
    vectors: Vectors, question: Vectors, top: int, min_score: float
) -> tuple[NDArray[np.intp], Vectors]:
    """Return the vectors [N,D] most similar to one of [D], best first: their indices, and their cosines.

    At most `top`, of a cosine of at least `min_score`; of equals the first ones.
    """
    scores = vectors @ question
    # A vector that is no number is similar to none.
    (found,) = np.nonzero(scores >= min_score - _ROUNDING)
    if len(found) > top:
        least = np.partition(scores[found], len(found) - top)[len(found) - top]
        found = found[scores[found] >= least]
    found = found[np.argsort(-scores[found], kind="stable")][:top]
    return found, scores[found]


def leaders(vectors: Vectors, threshold: float, order: Sequence[int] | None = None) -> NDArray[np.intp]:
    """Return for each vector [N,D] the place of the first one that it is like: its group's first.

    The first vector leads. Each other one is in the group of the first leader to which its cosine is at least
    the threshold, and leads itself if there is none. So every member of a group is like its leader, which
    chains of similar pairs would not ensure.

    `order` names the vectors that are meant, by their indices, and in which order; places are those in it.
    """
    rows = np.arange(len(vectors)) if order is None else np.asarray(order, np.intp)
    count = len(rows)
    led_by = np.full(count, -1, np.intp)
    start = 0
    while start < count:
        # The next ones that no group has yet.
        end = min(start + _LONG_BLOCK, count)
        block = start + np.flatnonzero(led_by[start:end] < 0)[:_BLOCK]
        if not len(block):
            start = end
            continue
        alike = vectors[rows[block]] @ vectors[rows[block]].T >= threshold - _ROUNDING
        for place, index in enumerate(block):
            if led_by[index] < 0:
                led = alike[place, place:] & (led_by[block[place:]] < 0)
                led_by[block[place:][led]] = index
                led_by[index] = index
        found = block[led_by[block] == block]
        leading = vectors[rows[found]]
        start = int(block[-1]) + 1
        for begin in range(start, count, _LONG_BLOCK):
            rest = begin + np.flatnonzero(led_by[begin : begin + _LONG_BLOCK] < 0)
            for some in np.split(rest, range(_BLOCK_OF_REST, len(rest), _BLOCK_OF_REST)):
                alike = vectors[rows[some]] @ leading.T >= threshold - _ROUNDING
                has_leader = alike.any(1)
                led_by[some[has_leader]] = found[alike[has_leader].argmax(1)]
    return led_by
