"""What lies close together among many vectors of length 1."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]

# Comparing each with each takes half a minute for as many, and four times as long for twice as many.
_MAX_EXACT = 50_000
# Of a larger number: cells of vectors that lie close to each other, of which so many are looked into.
_CELLS_PER_ROOT, _PROBES = 2, 8
# So many questions at a time: where all vectors are alike, each has all as its answer.
_BLOCK = 256
# Sums of products in another order differ by less.
_ROUNDING = 1e-6


def nearest(
    vectors: Vectors, question: Vectors, top: int, min_score: float
) -> tuple[NDArray[np.intp], Vectors]:
    """Return the vectors [N,D] most similar to one of [D], best first: their indices, and their cosines.

    At most `top`, of a cosine of at least `min_score`; of equals the first ones. It is exact.
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
    chains of similar pairs would not ensure. Of more than 50,000 vectors a few pairs may be missed: those
    that lie at the edges of cells, into which faiss sorts them so that not all have to be compared.

    `order` names the vectors that are meant, by their indices, and in which order; places are those in it.
    """
    rows = np.arange(len(vectors)) if order is None else np.asarray(order, np.intp)
    led_by = np.full(len(rows), -1, np.intp)
    if not len(rows):
        return led_by
    near = _finder(vectors[rows], threshold - _ROUNDING)
    while len(free := np.flatnonzero(led_by < 0)[:_BLOCK]):
        for place, alike in zip(free, near(free), strict=True):
            if led_by[place] < 0:
                led_by[alike[led_by[alike] < 0]] = place
                # A vector that is no number is not even like itself.
                led_by[place] = place
    return led_by


_Places = NDArray[np.integer]


def _finder(vectors: Vectors, least: float) -> Callable[[_Places], Sequence[_Places]]:
    """Return what finds for some vectors of [N,D] the places of all of at least this cosine to each."""
    count, dimensions = vectors.shape
    if count <= _MAX_EXACT:
        return lambda some: [np.flatnonzero(scores >= least) for scores in vectors[some] @ vectors.T]
    cells = int(_CELLS_PER_ROOT * count**0.5)
    index: Any = faiss.index_factory(dimensions, f"IVF{cells},Flat", faiss.METRIC_INNER_PRODUCT)
    index.nprobe = _PROBES
    index.train(vectors)
    index.add(vectors)

    def find(some: _Places) -> Sequence[_Places]:
        starts, _, found = index.range_search(vectors[some], least)
        return [found[start:end] for start, end in itertools.pairwise(starts)]

    return find
