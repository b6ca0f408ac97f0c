"""Groups of vectors of length 1 that mean the same."""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import HDBSCAN, KMeans, MiniBatchKMeans
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning

from visiongate.folders.neighbours import Vectors

MIN_SIZE = 3
"""How many photos are a group by default, where their number is not given."""

MAX_COUNT_BY_DENSITY = 50_000
"""More vectors would take hours if the number of groups is not given."""

_SEED = 0
# Distances between vectors of many dimensions are all alike. In these few, groups that are dense stand out.
_DIMENSIONS = 32
# Smaller distances mean nothing. Without this, equal vectors would be denser than all else, and split groups.
_BLUR = 0.03
# Vectors at this distance have a cosine of 0.9.
_ALIKE = 0.2**0.5
# How far apart the vectors of a group may be, as a share of how far apart all are.
_DENSER = 0.85
# From here on, k-means learns from samples: the groups are almost the same, and come in a tenth of the time.
_MANY = 20_000


@dataclass(frozen=True, slots=True)
class Cluster:
    """A group. members: indices of vectors, the nearest to the centre first. scores: their cosines to it.

    centre: of length 1, float32 [D].
    """

    members: NDArray[np.intp]
    scores: Vectors
    centre: Vectors


@dataclass(frozen=True, slots=True)
class Clusters:
    """Groups, the largest first, and the indices of the vectors in none."""

    groups: list[Cluster]
    outliers: NDArray[np.intp]


def by_number(vectors: Vectors, count: int) -> Clusters:
    """Share vectors [N,D] out to `count` groups, by k-means; to fewer if fewer are different."""
    count = min(count, len(vectors))
    if not count:
        return _clusters(vectors, np.zeros(0, np.intp))
    kind = MiniBatchKMeans if len(vectors) > _MANY else KMeans
    means = kind(n_clusters=count, n_init=4, random_state=_SEED)
    with warnings.catch_warnings():
        # Of equal vectors there are fewer groups.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return _clusters(vectors, means.fit_predict(vectors))


def by_density(vectors: Vectors, min_size: int) -> Clusters:
    """Find the groups of at least `min_size` that are denser than what is around them, by HDBSCAN.

    Raises ValueError for more than MAX_COUNT_BY_DENSITY vectors.
    """
    count = len(vectors)
    if count > MAX_COUNT_BY_DENSITY:
        raise ValueError(
            f"these are {count:,} photos, and groups whose number is not known are found among "
            f"{MAX_COUNT_BY_DENSITY:,} at most: give their number by --clusters"
        )
    if count < max(min_size, 2):
        return _clusters(vectors, np.full(count, -1, np.intp))
    far = _far(vectors)
    if far.any() and count - far.sum() >= min_size:
        # Most are alike, but for these. They would make any group look dense.
        rest = by_density(vectors[~far], min_size)
        labels = np.full(count, -1, np.intp)
        for label, group in enumerate(rest.groups):
            labels[np.flatnonzero(~far)[group.members]] = label
        return _clusters(vectors, labels)
    labels = _dense(vectors, min_size)
    spread = _spread(vectors)
    for label in range(labels.max() + 1):
        (members,) = np.nonzero(labels == label)
        # HDBSCAN counts what is far away as part of the group it is nearest to, and takes some of what lies
        # scattered for a group.
        far = _far(vectors[members])
        labels[members[far]] = -1
        members = members[~far]
        if len(members) < min_size or _spread(vectors[members]) > _DENSER * spread:
            labels[members] = -1
    if spread <= _ALIKE and (labels < 0).sum() > count / 2:
        # All are one group. HDBSCAN finds no group that is all there is, but grains in it.
        labels[:] = 0
    return _clusters(vectors, labels)


def _dense(vectors: Vectors, min_size: int) -> NDArray[np.intp]:
    few = PCA(min(_DIMENSIONS, *vectors.shape), random_state=_SEED).fit_transform(vectors)
    blur = _BLUR / few.shape[1] ** 0.5
    few = few + np.random.default_rng(_SEED).normal(scale=blur, size=few.shape)
    # A tree: else there would be a matrix of all distances.
    labels: NDArray[np.intp] = HDBSCAN(
        min_cluster_size=min_size, algorithm="ball_tree", copy=True
    ).fit_predict(few)
    return labels


def _far(vectors: Vectors) -> NDArray[np.bool_]:
    """Return which of the vectors are alone, if most lie close to their common centre."""
    distances = np.sqrt(np.maximum(2 - 2 * vectors @ _centre(vectors), 0))
    far: NDArray[np.bool_] = distances > max(_ALIKE, 3 * float(np.median(distances)))
    return far


def _spread(vectors: Vectors) -> float:
    """Return the distance between two of the vectors, as a root mean square: 0 to 2."""
    count = len(vectors)
    total = vectors.sum(0, np.float64)
    mean_cosine = (float(total @ total) - count) / max(count * (count - 1), 1)
    return float(np.sqrt(max(2 - 2 * mean_cosine, 0)))


def _centre(vectors: Vectors) -> Vectors:
    mean: Vectors = vectors.mean(0)
    return mean / np.float32(max(float(np.linalg.norm(mean)), 1e-12))


def _clusters(vectors: Vectors, labels: NDArray[np.intp]) -> Clusters:
    groups = sorted(_groups(vectors, labels), key=lambda group: (-len(group.members), group.members.min()))
    return Clusters(groups, np.flatnonzero(labels < 0))


def _groups(vectors: Vectors, labels: NDArray[np.intp]) -> Iterator[Cluster]:
    order = np.argsort(labels, kind="stable")
    starts = np.flatnonzero(np.diff(labels[order], prepend=-2))
    for members in np.split(order, starts[1:]):
        if len(members) and labels[members[0]] >= 0:
            centre = _centre(vectors[members])
            scores = vectors[members] @ centre
            nearest = np.argsort(-scores, kind="stable")
            yield Cluster(members[nearest], scores[nearest], centre)
