import colorsys
import math

import numpy as np
import pytest
from PIL import Image

from export.demo import scenes
from export.demo.scenes import COLOURS, FONTS, PHRASES, SHAPES, Painter, Plan, draw, word

SEEDS = range(8)
PLAIN = Plan(words=(0, 0), faces=(0, 0), degraded=False)


def painter(seed: int = 0, size: int = 200) -> Painter:
    return Painter(np.random.default_rng(seed), size, size)


def test_a_seed_is_a_scene() -> None:
    one, same, other = draw(1, 120, 90), draw(1, 120, 90), draw(2, 120, 90)
    np.testing.assert_array_equal(one.image, same.image)
    assert [thing.phrase for thing in one.things] == [thing.phrase for thing in same.things]
    assert one.image.shape == (90, 120, 3)
    assert one.image.dtype == np.uint8
    assert not np.array_equal(one.image, other.image)


@pytest.mark.parametrize("seed", SEEDS)
def test_masks_show_their_colour_and_boxes_are_tight(seed: int) -> None:
    scene = draw(seed, 240, 180, PLAIN)
    assert scene.things
    for thing in scene.things:
        assert thing.phrase in PHRASES
        rows, columns = np.nonzero(thing.mask)
        tight = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        np.testing.assert_array_equal(thing.box, tight)
        pixel = np.median(scene.image[thing.mask], axis=0) / 255
        hue, saturation, _ = colorsys.rgb_to_hsv(*pixel)
        away = abs((hue * 360 - COLOURS[thing.colour][0] + 180) % 360 - 180)
        assert away < 12
        assert saturation > 0.5


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


def test_shapes_differ_by_how_much_of_their_box_they_fill() -> None:
    filled = {}
    for shape in SHAPES:
        one = painter()
        assert one.shape("red", shape, 0.5, at=(0.5, 0.5))
        [thing] = one.scene(degraded=False).things
        x_min, y_min, x_max, y_max = thing.box
        assert 0.35 * 200 < x_max - x_min < 0.6 * 200
        filled[shape] = float(thing.mask.sum() / ((x_max - x_min) * (y_max - y_min)))
    assert filled["circle"] == pytest.approx(math.pi / 4, abs=0.03)
    assert filled["triangle"] < 0.6
    assert filled["star"] < filled["cross"] < filled["circle"]


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


def test_words_are_of_the_alphabet_and_vary() -> None:
    random = np.random.default_rng(0)
    texts = [word(random) for _ in range(500)]
    assert set("".join(texts)) <= set(scenes.ALPHABET)
    assert len(set(texts)) > 400
    assert {text.isupper() for text in texts if text.isalpha()} == {True, False}
    assert any(text.isdigit() for text in texts)


@pytest.mark.parametrize(("yaw", "pitch"), [(35, 0), (-35, 0), (0, 22), (0, -22)])
def test_faces_look_where_they_say(yaw: float, pitch: float) -> None:
    """Positive yaw is to the picture's left, positive pitch upwards: nose and pupils go there."""
    angles = (math.radians(yaw), math.radians(pitch))
    for seed in range(4):
        ahead, turned = painter(seed), painter(seed)
        assert ahead.face(0.8, at=(0.5, 0.5), yaw_pitch=(0, 0))
        assert turned.face(0.8, at=(0.5, 0.5), yaw_pitch=angles)
        [straight], [aside] = (one.scene(degraded=False).faces for one in (ahead, turned))
        np.testing.assert_allclose(aside.yaw_pitch, angles, rtol=1e-6)
        x, y = aside.landmarks[2] - straight.landmarks[2]
        assert np.sign(x) == -np.sign(yaw) or not yaw
        assert np.sign(y) == -np.sign(pitch) or not pitch
        # The person's right eye, in the picture's left, comes first, as in YuNet.
        assert aside.landmarks[0, 0] < aside.landmarks[1, 0]
        assert (aside.landmarks > aside.box[:2]).all()
        assert (aside.landmarks < aside.box[2:]).all()


def test_what_has_no_room_is_left_out() -> None:
    one = painter()
    assert one.face(0.9, at=(0.5, 0.5))
    assert not one.shape("red", "circle", 0.5, at=(0.5, 0.5))
    assert not one.word("averyveryverylongword", scenes.PILLOW_FONT, 0.5)
    scene = one.scene(degraded=False)
    assert (len(scene.faces), len(scene.things), len(scene.words)) == (1, 0, 0)


def test_degrading_changes_pixels_but_not_what_is_seen() -> None:
    clean, degraded = draw(5, 160, 120, PLAIN), draw(5, 160, 120, Plan(words=(0, 0), faces=(0, 0)))
    assert [thing.phrase for thing in clean.things] == [thing.phrase for thing in degraded.things]
    differences = np.abs(clean.image.astype(int) - degraded.image)
    assert 0 < differences.mean() < 12


def test_own_font_needs_no_other_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scenes, "find_spec", lambda _name: None)
    scenes.font.cache_clear()
    assert scenes.font(scenes.PILLOW_FONT, 20).getbbox("A")[2] > 5
    with pytest.raises(ModuleNotFoundError, match="matplotlib"):
        scenes.font("DejaVu Serif", 20)
    scenes.font.cache_clear()


def test_pictures_are_plain_images() -> None:
    assert Image.fromarray(draw(0, 64, 64).image).mode == "RGB"
