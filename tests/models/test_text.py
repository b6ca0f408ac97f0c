"""What all text models have in common."""

import numpy as np
import pytest

from gateway.models.text import Places, Span, first_steps

CORNERS = np.array([[20, 20], [60, 20], [60, 40], [20, 40]], np.float32)


def test_quadrilaterals_are_pixels_from_the_top_left_clockwise() -> None:
    places = Places(np.array([[0.1, 0.2, 0.3, 0.4]]), np.ones(1), np.zeros(1, np.bool_))
    np.testing.assert_allclose(places.quadrilaterals((100, 200)), [CORNERS], rtol=1e-6)


def test_text_that_runs_down_begins_at_its_top_right() -> None:
    places = Places(CORNERS[None] / [200, 100], np.ones(1), np.ones(1, np.bool_))
    np.testing.assert_allclose(places.quadrilaterals((100, 200)), [np.roll(CORNERS, -1, axis=0)], rtol=1e-6)


def test_a_span_is_a_part_of_its_place() -> None:
    half = Span("b", 1, 0.5, 0.75).quadrilateral(CORNERS)
    np.testing.assert_array_equal(half, [[40, 20], [50, 20], [50, 40], [40, 40]])
    # Of what is tilted, both ends move along.
    tilted = CORNERS + np.array([[0, 0], [0, 8], [0, 8], [0, 0]], np.float32)
    np.testing.assert_array_equal(
        Span("b", 1, 0.5, 1).quadrilateral(tilted), [[40, 24], [60, 28], [60, 48], [40, 44]]
    )


def test_a_span_of_the_whole_place_has_its_very_corners() -> None:
    corners = np.random.default_rng(0).uniform(0, 9999, (4, 2)).astype(np.float32)
    np.testing.assert_array_equal(Span("word", 1).quadrilateral(corners), corners)


@pytest.mark.parametrize("on_side", [False, True])
def test_parts_follow_the_text(on_side: bool) -> None:
    places = Places(CORNERS[None] / [200, 100], np.ones(1), np.array([on_side]))
    part = places.parts(np.array([0.25]), np.array([0.5]))
    (corners,) = places.quadrilaterals((100, 200))
    np.testing.assert_allclose(
        part.quadrilaterals((100, 200))[0], Span("b", 1, 0.25, 0.5).quadrilateral(corners), rtol=1e-6
    )
    assert places.parts(np.zeros(1), np.ones(1)) is places


def test_repeated_classes_write_once() -> None:
    classes = np.array([[9, 1, 1, 9, 1, 2, 2, 9], [3, 3, 3, 9, 9, 9, 9, 3]], np.int32)
    expected = [[0, 1, 0, 0, 1, 1, 0, 0], [1, 0, 0, 0, 0, 0, 0, 1]]
    np.testing.assert_array_equal(first_steps(classes, 9), np.array(expected, np.bool_))
