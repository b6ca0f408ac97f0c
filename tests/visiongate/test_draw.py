"""What is drawn lies where it should and nothing else changes."""

import itertools
import subprocess
import sys
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from visiongate import draw, fonts

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


@pytest.mark.parametrize("mode", ["I", "I;16", "F"])
def test_wide_grey_is_drawn_on_as_it_is_seen(mode: str) -> None:
    ramp = np.tile(np.arange(0, 65_536, 512), (40, 1))
    kinds: dict[str, Any] = {"I": np.int32, "I;16": np.uint16, "F": np.float32}
    image = Image.fromarray(ramp.astype(kinds[mode]))
    assert image.mode == mode
    picture = np.asarray(draw.draw(image, []))
    np.testing.assert_array_equal(picture, np.repeat((ramp >> 8)[..., None], 3, axis=2))


def test_a_photo_is_turned_upright_before_it_is_drawn_on() -> None:
    photo = GREY.copy()
    photo.getexif()[0x0112] = 6
    box = np.array([50.0, 20.0, 90.0, 180.0])
    drawn = np.asarray(draw.draw(photo, [draw.Item(0, box=box)]))
    assert drawn.shape == (200, 100, 3)
    assert tuple(drawn[20, 70]) == draw.PALETTE[0]


def test_draw_is_there_without_an_import_of_its_own() -> None:
    code = "import visiongate, sys; assert 'visiongate.draw' not in sys.modules; visiongate.draw.Item(0)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", ["out.png", "OUT.JPG", "a.b.webp", "out.tif", "out.bmp", "out.pdf"])
def test_names_of_pictures(name: str) -> None:
    draw.check_writable(name)
    draw.check_writable(Path(name))


@pytest.mark.parametrize("name", ["out", "out.", ".png", "out.txt", "out.svg", "out.xbm", "out.psd"])
def test_other_names_are_refused_before_the_work(name: str) -> None:
    with pytest.raises(ValueError, match=f"written to {name}: let its name end in .png, .jpg or .webp"):
        draw.check_writable(name)


def test_a_folder_is_refused_before_the_work(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="it is a folder"):
        draw.check_writable(tmp_path)


@pytest.fixture
def no_installed_fonts(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(fonts, "FOLDERS", ())
    monkeypatch.delenv("VISIONGATE_FONT", raising=False)
    forget_fonts()
    yield
    monkeypatch.undo()
    forget_fonts()


def forget_fonts() -> None:
    for cached in (fonts._installed, fonts._choose, fonts._probe):
        cached.cache_clear()
    fonts._has.clear()
    fonts._misses.clear()


def font_file(font: fonts.Font) -> str:
    path = getattr(font, "path", "")
    return path if isinstance(path, str) else ""


def installed_font_with(text: str) -> str:
    path = font_file(fonts.font_for(text, 20))
    if not path:
        pytest.skip(f"no font with {text!r} is installed")
    return path


def test_english_is_drawn_in_the_same_font_everywhere() -> None:
    assert font_file(fonts.font_for("a red circle, 0.91 (50%)", 20)) == ""


@pytest.mark.parametrize(
    "text", ["réd circlü", "кошка", "Ελλάδα", "שלום", "مرحبا", "हिन्दी", "猫犬", "한국어", "ไทย"]
)
def test_a_caption_has_a_font_with_all_its_letters(text: str) -> None:
    path = installed_font_with(text)
    font = fonts.load(path, 20)
    pictures = {
        bytes(font.getmask(letter, "L")) for letter in set(text) if unicodedata.category(letter)[0] == "L"
    }
    # A font that lacks letters has one picture for all of them, and another for what is no letter.
    assert len(pictures) > 1
    assert bytes(font.getmask("\uffff", "L")) not in pictures


def test_a_caption_is_not_boxes() -> None:
    installed_font_with("кошка")
    wide = Image.new("RGB", (900, 600))

    def tag(caption: str) -> Any:
        return np.asarray(draw.draw(wide, [draw.Item(0, caption, box=np.array([100, 100, 800, 500]))]))

    assert (tag("кошка") != tag("собака")).any()
    assert (tag("кошка") != tag("пешка")).any()
    # An accent of its own is drawn as the letter that has it.
    np.testing.assert_array_equal(tag("re\u0301d"), tag("r\u00e9d"))
    np.testing.assert_array_equal(tag("two\nlines "), tag("two lines"))
    np.testing.assert_array_equal(
        tag(" \n"), draw.draw(wide, [draw.Item(0, box=np.array([100, 100, 800, 500]))])
    )


@pytest.mark.usefixtures("no_installed_fonts")
def test_without_fonts_captions_are_drawn_still() -> None:
    assert font_file(fonts.font_for("кошка", 20)) == ""
    # Looked for a few times, then no more: a page of such words costs nothing.
    for code in range(0x4E00, 0x4E20):
        fonts.font_for(chr(code), 20)
    assert len(fonts._misses[0x4E]) == fonts._MAX_MISSES
    assert changed([draw.Item(0, "кошка", box=np.array([50, 40, 150, 80]))]).any()


def test_a_font_may_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = installed_font_with("кошка")
    assert font_file(fonts.font_for("cat", 20, path)) == path
    monkeypatch.setenv("VISIONGATE_FONT", path)
    assert font_file(fonts.font_for("cat", 20)) == path
    broken = tmp_path / "broken.ttf"
    broken.write_bytes(b"no font")
    for name in (broken, tmp_path / "missing.ttf"):
        with pytest.raises(ValueError, match=r"\.ttf cannot be read as a font: name a \.ttf"):
            draw.draw(GREY, [draw.Item(0, "cat")], font=name)
    monkeypatch.setenv("VISIONGATE_FONT", str(broken))
    with pytest.raises(ValueError, match=r"broken\.ttf cannot be read as a font"):
        draw.draw(GREY, [draw.Item(0, "cat")])


def test_a_large_picture_is_scaled_down_with_its_items() -> None:
    large = Image.new("RGB", (2000, 1000), (90, 90, 90))
    mask = np.zeros((1000, 2000), bool)
    mask[200:600, 500:900] = True
    ends = np.array([[500.0, 800.0], [1500.0, 800.0]])
    items = [
        draw.Item(0, mask=mask),
        draw.Item(1, box=np.array([1000, 200, 1500, 600])),
        draw.Item(2, arrow=ends),
        draw.Item(3, points=ends),
        draw.Item(4, polygon=np.array([[1600, 200], [1900, 200], [1900, 600], [1600, 600]])),
    ]
    small = draw.draw(large, items, max_side=200)
    assert small.size == (200, 100)
    same = [
        draw.Item(0, mask=mask[5::10, 5::10]),
        draw.Item(1, box=np.array([100, 20, 150, 60])),
        draw.Item(2, arrow=ends / 10),
        draw.Item(3, points=ends / 10),
        draw.Item(4, polygon=np.array([[160, 20], [190, 20], [190, 60], [160, 60]])),
    ]
    assert (np.asarray(small) == np.asarray(draw.draw(GREY, same))).all()
    assert draw.draw(GREY, [], max_side=200).size == GREY.size
    assert draw.draw(Image.new("RGB", (5000, 2)), [], max_side=100).size == (100, 1)
