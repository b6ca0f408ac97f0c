import numpy as np
import pytest

from export.demo import scenes
from export.demo.scenes import FONTS, Painter, Plan, draw

SEEDS = range(8)


def painter(seed: int = 0, size: int = 200) -> Painter:
    return Painter(np.random.default_rng(seed), size, size)


def test_masks_do_not_overlap_and_shapes_stay_mostly_visible() -> None:
    crowded = Plan(shapes=(8, 8), words=(0, 0), faces=(0, 0), shape_size=(0.4, 0.5))
    for seed in SEEDS:
        things = draw(seed, 200, 200, crowded).things
        assert len(things) > 1
        assert np.sum([thing.mask for thing in things], axis=0).max() == 1
        for one in things:
            same = [other for other in things if other.colour == one.colour and other is not one]
            # A rim of background parts two of a colour, or they would look like one.
            assert not any((_grown(one.mask) & other.mask).sum() > 2 for other in same)


def _grown(
    mask: np.ndarray[tuple[int, int], np.dtype[np.bool_]],
) -> np.ndarray[tuple[int, int], np.dtype[np.bool_]]:
    padded = np.pad(mask, 1)
    return padded[1:-1, 1:-1] | padded[:-2, 1:-1] | padded[2:, 1:-1] | padded[1:-1, :-2] | padded[1:-1, 2:]


@pytest.mark.parametrize("name", FONTS)
def test_a_words_box_holds_its_ink(name: str) -> None:
    with_word, without = painter(3), painter(3)
    assert with_word.word("Ypqd", name, 0.15, at=(0.5, 0.5))
    drawn = with_word.scene(degraded=False)
    [truth] = drawn.words
    assert truth.text == "Ypqd"
    changed = (drawn.image.astype(int) - without.scene(degraded=False).image) != 0
    rows, columns = np.nonzero(changed.any(-1))
    ink = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    # With a plate the change is larger than the ink; seed 3 has none.
    np.testing.assert_allclose(truth.box, ink, atol=1.5)


def test_what_has_no_room_is_left_out() -> None:
    one = painter()
    assert one.face(0.9, at=(0.5, 0.5))
    assert not one.shape("red", "circle", 0.5, at=(0.5, 0.5))
    assert not one.word("averyveryverylongword", scenes.PILLOW_FONT, 0.5)
    scene = one.scene(degraded=False)
    assert (len(scene.faces), len(scene.things), len(scene.words)) == (1, 0, 0)
