import numpy as np

from export.demo import scenes
from export.demo.grounding_dino_examples import FACE, Example, draw, mirrored, phrases_for


def example(seed: int = 0) -> Example:
    return draw(seed, 160, 120)


def test_examples_are_what_can_be_found() -> None:
    names = {name for seed in range(20) for name in example(seed).names}
    assert FACE in names
    assert names <= {*scenes.PHRASES, FACE}
    boxes = np.concatenate([example(seed).boxes for seed in range(20)])
    assert ((boxes >= 0) & (boxes <= 1)).all()
    assert (boxes[:, 2:] > boxes[:, :2]).all()


def test_in_a_mirror_boxes_stay_on_their_objects() -> None:
    one = example(3)
    other = mirrored(one, True)
    assert mirrored(one, False) is one
    for before, after in zip(one.boxes, other.boxes, strict=True):
        x_min, y_min, x_max, y_max = np.round(before * [160, 120, 160, 120]).astype(int)
        part = one.image[y_min:y_max, x_min:x_max]
        x_min, y_min, x_max, y_max = np.round(after * [160, 120, 160, 120]).astype(int)
        np.testing.assert_array_equal(part[:, ::-1], other.image[y_min:y_max, x_min:x_max])


def test_phrases_are_present_and_absent_ones() -> None:
    random = np.random.default_rng(0)
    asked = [phrases_for(["red star", "blue circle", "red star"], random) for _ in range(200)]
    assert all(len(set(phrases)) == len(phrases) >= 1 for phrases in asked)
    present = [sum(phrase in {"red star", "blue circle"} for phrase in phrases) for phrases in asked]
    assert set(present) == {0, 1, 2}
    assert any(len(phrases) > count for phrases, count in zip(asked, present, strict=True))
