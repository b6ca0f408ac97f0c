"""Answers become things to draw."""

import numpy as np

from visiongate import Face, LabelScore, Page, Word
from visiongate.drawn_answers import MAX_DRAWN_LABELS, face_items, label_items, word_items


def face(landmarks: dict[str, np.ndarray[tuple[int], np.dtype[np.float32]]] | None) -> Face:
    direction = np.array([-0.5, 0.1, -0.86], np.float32)
    box = np.array([100, 50, 140, 130], np.float32)
    return Face(box, yaw=0.52, pitch=-0.1, direction=direction, score=0.9, landmarks=landmarks)


def test_an_arrow_starts_in_the_face_and_goes_where_it_looks() -> None:
    mark = np.array([110, 80], np.float32)
    [with_marks, without] = face_items([face({"left_eye": mark}), face(None)])
    assert with_marks.caption == "0: yaw +30° pitch -6°"
    assert with_marks.arrow is not None
    np.testing.assert_allclose(with_marks.arrow, [[120, 90], [120 - 40, 90 + 8]])
    np.testing.assert_array_equal(with_marks.points, [mark])
    assert without.points is None
    assert without.group != with_marks.group


def test_words_of_a_line_share_a_colour() -> None:
    corners = np.array([[0, 0], [10, 0], [10, 5], [0, 5]], np.float32)
    words = [Word(text, 0.9, corners + index, 0.9) for index, text in enumerate("abc")]
    page = Page([[[words[0], words[1]]], [[words[2]]]], "a b\n\nc", 100, 100)
    items = list(word_items(page))
    assert [item.caption for item in items] == ["a", "b", "c"]
    assert [item.group for item in items] == [0, 0, 1]
    np.testing.assert_array_equal(items[1].polygon, corners + 1)


def test_only_the_best_labels_are_drawn() -> None:
    scores = [LabelScore(f"label {index}", index, 0.256, 0.3) for index in range(MAX_DRAWN_LABELS + 1)]
    items = list(label_items(scores))
    assert len(items) == MAX_DRAWN_LABELS
    assert items[0].caption == "label 0 26%"
