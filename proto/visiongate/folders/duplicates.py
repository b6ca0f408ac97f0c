"""Photos that are the same, or nearly."""

from dataclasses import dataclass

from visiongate.folders.index import Index
from visiongate.folders.neighbours import leaders


@dataclass(frozen=True, slots=True)
class Copy:
    """A photo of a group. row: in the index. similarity: its cosine to the one to keep. is_exact: whether it
    has the same bytes.
    """

    row: int
    similarity: float
    is_exact: bool


def duplicates(index: Index, threshold: float) -> list[list[Copy]]:
    """Return groups of photos that are like the first of each, the largest groups first.

    The first is the one to keep: that of most pixels, of these the one with the shortest name. The others of
    a group are as similar to it as the threshold says, the most similar ones first. What is like none is
    in no group.
    """
    order = sorted(range(len(index.ids)), key=lambda row: (-index.pixels[row], len(index.ids[row]), row))
    # Copies of a file are counted once: there may be many.
    first_of: dict[str, int] = {}
    for row in order:
        first_of.setdefault(index.hashes[row], row)
    distinct = list(first_of.values())
    groups: dict[int, list[Copy]] = {}
    keeper_of = {}
    for row, place in zip(distinct, leaders(index.vectors, threshold, distinct).tolist(), strict=True):
        keeper_of[row] = distinct[place]
    for row in order:
        first = first_of[index.hashes[row]]
        keeper = keeper_of[first]
        similarity = min(float(index.vectors[keeper] @ index.vectors[row]), 1.0)
        groups.setdefault(keeper, []).append(
            Copy(row, 1.0 if first == keeper else similarity, first == keeper)
        )
    found = [
        [copies[0], *sorted(copies[1:], key=lambda copy: (not copy.is_exact, -copy.similarity, copy.row))]
        for copies in groups.values()
        if len(copies) > 1
    ]
    return sorted(found, key=lambda copies: (-len(copies), copies[0].row))
