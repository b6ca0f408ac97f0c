"""Names of fields, and JSON in pieces."""

import json

import numpy as np
import pytest

from gateway.http.translation import renamed, write


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        ("images[1].encoded", "image[1].value"),
        ("images[10].encoded", "image[10].encoded"),
        ("images[1]", "second"),
        ("images", "image"),
        ("imagesize", "imagesize"),
        ("query.phrases.values[3]", "text[3]"),
        ("query", "text"),
        ("the server is full", "the server is full"),
    ],
)
def test_the_longest_name_that_fits_counts(field: str, expected: str) -> None:
    names = {
        "images": "image",
        "images[1]": "second",
        "images[1].encoded": "image[1].value",
        "query": "text",
        "query.phrases.values": "text",
    }
    assert renamed(field, names) == expected


def test_what_iterators_yield_are_lists() -> None:
    tree = {
        "none": iter(()),
        "rows": (np.array([index, 0.5], np.float32) for index in range(2)),
        "inner": {"points": iter([np.array([[1, 2]], np.int32)]), "text": 'é"'},
        "plain": [1, {"a": None}],
    }
    pieces = list(write(tree))
    assert json.loads(b"".join(pieces)) == {
        "none": [],
        "rows": [[0, 0.5], [1, 0.5]],
        "inner": {"points": [[[1, 2]]], "text": 'é"'},
        "plain": [1, {"a": None}],
    }


def test_items_are_made_when_they_are_written() -> None:
    made: list[int] = []
    pieces = write({"items": (made.append(index) or index for index in range(3))})  # type: ignore[func-returns-value]
    assert made == []
    while b"0" not in next(pieces):
        pass
    assert made == [0]
    assert json.loads(b"".join([b"[0", *pieces])[:-1]) == [0, 1, 2]
