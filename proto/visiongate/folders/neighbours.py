"""What lies close together among many vectors of length 1.

All of it is exact, and takes memory for some blocks of vectors beside the vectors themselves.
"""

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]

_BLOCK = 512
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


def leaders(vectors: Vectors, threshold: float) -> NDArray[np.intp]:
    """Return for each vector [N,D] the index of the first one that it is like: its group's first.

    The first vector leads. Each other one is in the group of the first leader to which its cosine is at least
    the threshold, and leads itself if there is none. So every member of a group is like its leader, which
    chains of similar pairs would not ensure.
    """
    count = len(vectors)
    led_by = np.full(count, -1, np.intp)
    start = 0
    while start < count:
        # The next ones that no group has yet.
        end = min(start + _LONG_BLOCK, count)
        block = start + np.flatnonzero(led_by[start:end] < 0)[:_BLOCK]
        if not len(block):
            start = end
            continue
        _lead_block(vectors, block, threshold - _ROUNDING, led_by)
        start = int(block[-1]) + 1
        found = block[led_by[block] == block]
        for place in range(start, count, _LONG_BLOCK):
            part = place + np.flatnonzero(led_by[place : place + _LONG_BLOCK] < 0)
            for some in np.array_split(part, -(-len(part) // (8 * _BLOCK))) if len(part) else []:
                alike = vectors[some] @ vectors[found].T >= threshold - _ROUNDING
                has_one = alike.any(1)
                led_by[some[has_one]] = found[alike[has_one].argmax(1)]
    return led_by


def _lead_block(
    vectors: Vectors, block: NDArray[np.intp], threshold: float, led_by: NDArray[np.intp]
) -> None:
    """Find the leaders among some vectors that have none yet, and whom of these they lead."""
    alike = vectors[block] @ vectors[block].T >= threshold
    for place, index in enumerate(block):
        if led_by[index] < 0:
            led = block[place:][alike[place, place:] & (led_by[block[place:]] < 0)]
            led_by[led] = index
            led_by[index] = index
