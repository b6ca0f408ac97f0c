"""Lines: cutting, batching, reading. With real networks: tests/e2e/test_pp_ocr.py."""

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from rapidocr.ch_ppocr_rec.utils import CTCLabelDecode

from gateway.models.text import Places, Steps
from gateway.models.text_lines import MIN_LINE_HEIGHT, PIECE_OVERLAP, LineSpec

VOCABULARY = "abcdefghij "
BLANK = len(VOCABULARY)
PARAMETERS = {
    "min_side": "736",
    "max_side": "2016",
    "bin_threshold": "0.3",
    "box_threshold": "0.5",
    "unclip_ratio": "1.6",
    "min_box_size": "3",
    "crop_height": "48",
    "crop_widths": "320,640,1280",
    "padding": "128",
    "vocabulary": VOCABULARY,
    "min_confidence": "0.5",
}
SPEC = LineSpec.from_parameters(PARAMETERS, Path())
PIXELS_PER_STEP = 8


def places(boxes: list[list[float]], size: tuple[int, int]) -> Places:
    """Upright lines by their boxes xyxy in pixels; on their side where they are high."""
    pixels = np.array(boxes, np.float64).reshape(-1, 4)
    corners = pixels[:, [[0, 1], [2, 1], [2, 3], [0, 3]]]
    sides = corners[:, 2] - corners[:, 0]
    return Places(corners / [size[1], size[0]], np.ones(len(corners)), sides[:, 1] > sides[:, 0])


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((191, 384), (736, 1472)),
        ((800, 1000), (800, 992)),
        ((3000, 4000), (1504, 2016)),
        ((100, 10_000), (32, 2016)),
        ((1, 1), (736, 736)),
        ((1, 20_000), (32, 2016)),
    ],
)
def test_pages_are_stretched_to_multiples_of_32(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert SPEC.preprocess(np.zeros((*size, 3), np.uint8)).shape == (*expected, 3)


def test_lines_are_found_at_any_angle_and_unreadable_ones_left_out() -> None:
    probability = np.zeros((400, 800), np.float32)
    rows, columns = np.mgrid[:400, :800]
    probability[np.abs(rows - 100 - 0.05 * columns) < 8] = 0.9
    probability[:, :40] = probability[:, 700:] = 0
    probability[200:380, 750:770] = 0.9
    found = SPEC.find(probability, (400, 800), SPEC.thresholds, rotated=False)
    assert found.points.shape == (2, 4, 2)
    assert sorted(found.on_side) == [False, True]
    (tilted,) = found[~found.on_side].quadrilaterals((400, 800))
    slope = (tilted[1] - tilted[0])[1] / (tilted[1] - tilted[0])[0]
    assert slope == pytest.approx(0.05, abs=0.005)
    # What runs down begins at its top right.
    (down,) = found[found.on_side].quadrilaterals((400, 800))
    assert down[0, 0] > down[3, 0]
    assert down[1, 1] > down[0, 1]
    # The same map of an image so small that the tilted line is hardly a pixel high.
    small = SPEC.find(probability, (20, 40), SPEC.thresholds, rotated=False)
    assert len(small) == 0


def test_an_empty_map_has_no_lines() -> None:
    found = SPEC.find(np.zeros((64, 64), np.float32), (30, 50), SPEC.thresholds, rotated=True)
    assert len(found) == 0
    assert SPEC.batches(found, (30, 50), 16) == []
    assert SPEC.arrange(found, (30, 50), lines=True, blocks=False, by_columns=True) == []


def test_batches_hold_lines_of_one_size_and_are_bounded() -> None:
    random = np.random.default_rng(0)
    size = (4000, 3000)
    boxes = [
        [0, y, width, y + 20]
        for y, width in zip(range(0, 4000, 8), random.integers(30, 2999, 500), strict=True)
    ]
    lines = places(boxes, size)
    image = np.zeros((*size, 3), np.uint8)
    batches = SPEC.batches(lines, size, 16)
    assert sorted(itertools.chain(*(batch.tolist() for batch in batches))) == list(range(500))
    widths = set()
    for batch in batches:
        crops = SPEC.cut(image, lines[batch])
        width = crops.pixels.shape[2]
        widths.add(width)
        assert SPEC.crop_limit(crops, 16) * width <= 16 * 320
        assert len(batch) <= SPEC.crop_limit(crops, 16)
    assert widths == {320, 640, 1280}


def test_a_line_is_cut_the_same_whatever_its_neighbours() -> None:
    size = (200, 900)
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    lines = places([[10, 10, 200, 40], [10, 60, 210, 90], [10, 120, 860, 150]], size)
    together = SPEC.cut(image, lines[:2])
    for index in range(2):
        alone = SPEC.cut(image, lines[index : index + 1])
        np.testing.assert_array_equal(alone.pixels[0], together.pixels[index])
    assert SPEC.cut(image, lines[2:]).pixels.shape == (2, 48, 1280, 3)


def test_text_that_runs_down_is_cut_level() -> None:
    """A quarter turn counter-clockwise makes it level."""
    rows, columns = np.mgrid[:60, :400]
    image = np.stack([columns * 0.6, rows * 4, 255 - columns * 0.5], axis=-1).astype(np.uint8)
    level = SPEC.cut(image, places([[0, 0, 400, 60]], (60, 400)))
    down = SPEC.cut(np.rot90(image, -1).copy(), places([[0, 0, 60, 400]], (400, 60)))
    assert level.extents == down.extents
    np.testing.assert_allclose(down.pixels.astype(int), level.pixels, atol=6)


def test_lines_are_padded_with_grey() -> None:
    image = np.full((48, 100, 3), 200, np.uint8)
    (crop,) = SPEC.cut(image, places([[0, 0, 100, 48]], (48, 100))).pixels
    assert (crop[:, :100] == 200).all()
    assert (crop[:, 100:] == 128).all()


@pytest.mark.parametrize("height", [MIN_LINE_HEIGHT, 20, 48, 100, 700])
def test_a_line_of_any_height_keeps_its_picture(height: int) -> None:
    """Its left third is dark: so is that of the crop, at whatever scale."""
    image = np.full((height, 6 * height, 3), 220, np.uint8)
    image[:, : 2 * height] = 30
    crops = SPEC.cut(image, places([[0, 0, 6 * height, height]], image.shape[:2]))
    assert crops.extents == (288,)
    assert crops.pixels[0, :, :80].max() < 60
    assert crops.pixels[0, :, 112:288].min() > 190


def test_a_very_wide_line_is_cut_into_overlapping_pieces() -> None:
    width = 5_000
    image = np.random.default_rng(0).integers(0, 256, (48, width, 3), np.uint8)
    crops = SPEC.cut(image, places([[0, 0, width, 48]], (48, width)))
    step = 1280 - PIECE_OVERLAP * 48
    assert crops.counts == (-(-(width - 1280) // step) + 1,)
    for piece, following in itertools.pairwise(crops.pixels):
        np.testing.assert_array_equal(piece[:, step:][:, : 1280 - step], following[:, : 1280 - step])
    assert (crops.pixels[-1][:, -1] == 128).all()


def test_an_endless_line_is_squeezed() -> None:
    """More than OpenCV can warp: 4 pixels high, 60,000 wide."""
    image = np.zeros((4, 60_000, 3), np.uint8)
    crops = SPEC.cut(image, places([[0, 0, 60_000, 4]], (4, 60_000)))
    assert crops.pixels.nbytes < 10_000_000


def steps(classes: NDArray[np.int32], probabilities: NDArray[np.float32] | None = None) -> Steps:
    certain = np.ones(classes.shape, np.float32)
    return Steps(classes.astype(np.int32), certain if probabilities is None else probabilities)


def one_line(text: str, width: int) -> NDArray[np.int32]:
    """The classes of a line whose characters stand at equal distances, a step each, with blanks between."""
    length = width // PIXELS_PER_STEP
    classes = np.full(length, BLANK, np.int32)
    at = ((np.arange(len(text)) + 0.5) * length / len(text)).astype(int)
    classes[at] = [VOCABULARY.index(character) for character in text]
    return classes


def read(
    text: str, width: int, certainty: float = 1.0, minimum: float = 0.5
) -> list[tuple[str, float, float, float]]:
    image = np.zeros((48, width, 3), np.uint8)
    crops = SPEC.cut(image, places([[0, 0, width, 48]], image.shape[:2]))
    classes = one_line(text, width)
    padded = np.full((1, crops.pixels.shape[2] // PIXELS_PER_STEP), BLANK, np.int32)
    padded[0, : len(classes)] = classes
    answer = steps(padded, np.full(padded.shape, certainty, np.float32))
    (words,) = SPEC.read(crops, [answer], minimum)
    return [(word.text, word.confidence, word.start, word.end) for word in words]


def test_words_and_their_places() -> None:
    words = read("abc de fghij", 600)
    assert [word[0] for word in words] == ["abc", "de", "fghij"]
    edges = [edge for word in words for edge in word[2:]]
    np.testing.assert_allclose(edges, [0, 3 / 12, 4 / 12, 6 / 12, 7 / 12, 1], atol=0.03)
    assert edges == sorted(edges)


def test_neighbours_never_overlap() -> None:
    for text in ("a b c d e f", "ab c", "a  b", "abcdefghij a"):
        words = read(text, 320)
        assert [word[0] for word in words] == text.split()
        edges = [edge for word in words for edge in word[2:]]
        assert edges == sorted(edges)
        assert (edges[0], edges[-1]) == (0, 1)


def test_a_line_that_was_found_too_long_ends_with_its_text() -> None:
    """The detection network may let a line reach into the gap before the next column."""
    words = read("abcdefghij abcdefghij            ", 640)
    assert words[0][2] == 0
    assert words[-1][3] == pytest.approx(21 / 33, abs=0.03)


def test_uncertain_and_empty_lines_have_no_words() -> None:
    assert read("abc", 320, certainty=0.4) == []
    assert [word[0] for word in read("abc", 320, certainty=0.4, minimum=0)] == ["abc"]
    assert read("   ", 320) == []
    image = np.zeros((48, 320, 3), np.uint8)
    crops = SPEC.cut(image, places([[0, 0, 320, 48]], (48, 320)))
    assert SPEC.read(crops, [steps(np.full((1, 40), BLANK))], 0) == [[]]


@given(st.data())
def test_characters_and_confidence_equal_the_package(data: st.DataObject) -> None:
    """Of a whole line: its words joined, and the mean of their characters and of the spaces between."""
    seed = data.draw(st.integers(0, 2**31))
    random = np.random.default_rng(seed)
    scores = random.dirichlet(np.full(BLANK + 1, 0.2), (3, 40)).astype(np.float32)
    reference = CTCLabelDecode(list(VOCABULARY[:-1]))(np.roll(scores, 1, -1))[0]
    image = np.zeros((48, 320, 3), np.uint8)
    crops = SPEC.cut(image, places([[0, 0, 320, 48]] * 3, (48, 320)))
    answer = steps(scores.argmax(-1), scores.max(-1))
    for minimum in (0.0, 0.6):
        read = SPEC.read(crops, [answer], minimum)
        for words, (text, confidence) in zip(read, reference, strict=True):
            if abs(confidence - minimum) > 1e-4:
                assert [word.text for word in words] == (text.split() if confidence >= minimum else [])


@given(
    st.lists(st.sampled_from(VOCABULARY), min_size=60, max_size=400).map("".join),
    st.integers(1, 3),
    st.booleans(),
)
def test_pieces_say_what_the_whole_line_says(text: str, spread: int, is_cut_short: bool) -> None:
    """Also if a character lasts several steps, and if pieces lose what their edges cut."""
    width = 5_000
    image = np.zeros((48, width, 3), np.uint8)
    crops = SPEC.cut(image, places([[0, 0, width, 48]], (48, width)))
    length = 1280 // PIXELS_PER_STEP
    step = length - PIECE_OVERLAP * 48 // PIXELS_PER_STEP
    whole = np.full(step * crops.counts[0] + length, BLANK, np.int32)
    classes = one_line(text, width)
    if len(text) * 2 * spread < len(classes):
        for shift in range(spread):
            written = classes != BLANK
            whole[: len(classes)][np.roll(written, shift)] = np.roll(classes, shift)[np.roll(written, shift)]
    else:
        whole[: len(classes)] = classes
    pieces = np.stack([whole[index * step : index * step + length] for index in range(crops.counts[0])])
    if is_cut_short:
        pieces[1:, :4] = BLANK
        pieces[:-1, -4:] = BLANK
    (words,) = SPEC.read(crops, [steps(pieces[:2]), steps(pieces[2:])], 0)
    kept = whole != BLANK
    kept[1:] &= whole[1:] != whole[:-1]
    assert [word.text for word in words] == "".join(VOCABULARY[index] for index in whole[kept]).split()


@pytest.mark.parametrize(
    ("parameter", "value", "says"),
    [
        ("min_side", "700", "a positive multiple of 32"),
        ("max_side", "", "a positive multiple of 32"),
        ("crop_widths", "640,320", "rising"),
        ("crop_widths", "320,512", "768"),
        ("padding", "256", "0 to 255"),
        ("min_confidence", "2", "0 to 1"),
        ("vocabulary", "", "not empty"),
        ("box_threshold", "low", "0 to 1"),
    ],
)
def test_wrong_parameters_are_named(parameter: str, value: str, says: str) -> None:
    with pytest.raises(ValueError, match=f"{parameter}.*{says}"):
        LineSpec.from_parameters({**PARAMETERS, parameter: value}, Path())
    lacking = {name: text for name, text in PARAMETERS.items() if name != parameter}
    with pytest.raises(ValueError, match=f"no parameter {parameter}"):
        LineSpec.from_parameters(lacking, Path())
