"""What is drawn lies where it should and nothing else changes."""

import itertools

import numpy as np
from PIL import Image

from visiongate import draw

GREY = Image.new("RGB", (200, 100), (90, 90, 90))


def changed(items: list[draw.Item]) -> np.ndarray[tuple[int, int], np.dtype[np.bool_]]:
    picture = np.asarray(draw.draw(GREY, items))
    result: np.ndarray[tuple[int, int], np.dtype[np.bool_]] = (picture != np.asarray(GREY)).any(2)
    return result


def test_a_mask_is_tinted_and_only_the_mask() -> None:
    mask = np.zeros((100, 200), bool)
    mask[20:60, 50:90] = True
    assert (changed([draw.Item(0, mask=mask)]) == mask).all()
    inner = np.asarray(draw.draw(GREY, [draw.Item(0, mask=mask)]))[40, 70]
    # Translucent: between the photo's grey and the colour.
    assert 90 < inner[0] < draw.PALETTE[0][0]


def test_a_box_is_an_outline() -> None:
    drawn = changed([draw.Item(1, box=np.array([50, 20, 150, 80]))])
    assert drawn[20, 50:151].all()
    assert drawn[20:81, 150].all()
    assert not drawn[30:70, 60:140].any()


def test_captions_stay_on_the_picture_and_apart() -> None:
    box = np.array([190.0, 0.0, 200.0, 50.0])
    one = changed([draw.Item(0, "a long caption", box)])
    assert one[:20, 110:185].any()
    two = changed([draw.Item(0, "a long caption", box), draw.Item(1, "another caption", box)])
    assert two.sum() > 1.8 * one.sum() - 200


def test_points_off_the_object_look_different() -> None:
    points = np.array([[50, 50], [150, 50]])
    picture = np.asarray(draw.draw(GREY, [draw.Item(0, points=points, labels=np.array([1, 0]))]))
    assert tuple(picture[50, 50]) == draw.PALETTE[0]
    assert tuple(picture[50, 150]) == (0, 0, 0)


def test_colours_repeat_after_the_palette() -> None:
    box = np.array([50, 20, 150, 80])
    first, again = draw.Item(0, box=box), draw.Item(len(draw.PALETTE), box=box)
    assert (np.asarray(draw.draw(GREY, [first])) == np.asarray(draw.draw(GREY, [again]))).all()


def test_an_arrow_runs_from_its_start_to_its_end() -> None:
    drawn = changed([draw.Item(0, arrow=np.array([[50.0, 50.0], [150.0, 50.0]]))])
    assert drawn[50, 50:151].all()
    rows = np.flatnonzero(drawn.any(1))
    assert (rows.min() > 40, rows.max() < 60) == (True, True)
    # The head is at the end: wider there than in the middle.
    assert drawn[:, 145].sum() > drawn[:, 100].sum()
    assert not drawn[:, 160:].any()
    point = changed([draw.Item(0, arrow=np.array([[50.0, 50.0], [50.0, 50.0]]))])
    assert point[50, 50]
    assert point.sum() < 150


def test_an_item_may_have_a_colour_of_its_own_and_many_colours_differ() -> None:
    box = np.array([50, 20, 150, 80])
    drawn = np.asarray(draw.draw(GREY, [draw.Item(0, box=box, color=(1, 2, 3))]))
    assert tuple(drawn[20, 100]) == (1, 2, 3)
    colors = [draw.distinct_color(index) for index in range(200)]
    assert len(set(colors)) == 200
    near = [np.abs(np.subtract(a, b)).sum() for a, b in itertools.pairwise(colors)]
    assert min(near) > 100
