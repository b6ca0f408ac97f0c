"""docTR's pre- and post-processing against python-doctr's own, piece by piece."""

import itertools
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from doctr.models.builder import DocumentBuilder
from doctr.models.detection._utils import _remove_padding
from doctr.models.detection.differentiable_binarization.base import DBPostProcessor
from doctr.models.detection.fast.base import FASTPostProcessor
from doctr.models.detection.linknet.base import LinkNetPostProcessor
from doctr.models.recognition.crnn.pytorch import CTCPostProcessor
from doctr.models.recognition.parseq.pytorch import PARSeqPostProcessor
from doctr.models.recognition.predictor._utils import remap_preds, split_crops
from doctr.models.recognition.utils import merge_strings
from doctr.models.recognition.vitstr.pytorch import ViTSTRPostProcessor
from doctr.transforms import Resize
from doctr.utils import Sample
from doctr.utils.geometry import extract_crops, extract_rcrops
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from gateway.models.doctr import DoctrSpec, Places, fit
from gateway.models.doctr_detection import MapThresholds, find_boxes, find_quadrilaterals, remove_padding
from gateway.models.doctr_layout import arrange
from gateway.models.doctr_recognition import (
    DECODERS,
    OVERLAP,
    PIECE_WIDTH,
    WIDEST_CROP,
    Decoded,
    cut_boxes,
    cut_quadrilaterals,
    merge,
    merge_texts,
    split,
)

Photo = Callable[[str], NDArray[np.uint8]]
Noise = Callable[[int, int], NDArray[np.uint8]]
VOCABULARY = 'abcdefghij"\\é'
PARAMETERS = {
    "image_size": "256",
    "bin_threshold": "0.3",
    "box_threshold": "0.1",
    "unclip_ratio": "1.5",
    "min_box_size": "2",
    "crop_size": "32x128",
    "vocabulary": VOCABULARY,
    "decoder": "ctc",
}
# What the exporter writes of each architecture, and the class that it was taken from.
POSTPROCESSORS = [
    pytest.param(DBPostProcessor, MapThresholds(0.3, 0.1, 1.5, 2), id="db"),
    pytest.param(LinkNetPostProcessor, MapThresholds(0.1, 0.1, 1.5, 0), id="linknet"),
    pytest.param(FASTPostProcessor, MapThresholds(0.1, 0.1, 1.0, 0), id="fast"),
]


def probability_map(seed: int, size: int = 256) -> NDArray[np.float32]:
    """Bars of many sizes and angles, soft edges, specks, and noise across all thresholds."""
    random = np.random.default_rng(seed)
    canvas = np.zeros((size, size), np.float32)
    for _ in range(60):
        center = tuple(map(float, random.uniform(0, size, 2)))
        extent = (float(random.uniform(1, 60)), float(random.uniform(1, 14)))
        bar = cv2.boxPoints((center, extent, float(random.choice([0, 0, 3, 30, 80, -45]))))
        cv2.fillPoly(canvas, [bar.astype(np.int32)], float(random.uniform(0.05, 1)))
    noisy = cv2.GaussianBlur(canvas, (3, 3), 0) + random.normal(0, 0.02, canvas.shape)
    return noisy.clip(0, 1).astype(np.float32)


def text_page(angle: float = 0) -> NDArray[np.uint8]:
    image = Image.new("RGB", (500, 300), "white")
    draw = ImageDraw.Draw(image)
    for line in range(8):
        draw.text((20, 20 + 30 * line), "the quick brown fox jumps", "black", ImageFont.load_default(20))
    return np.asarray(image.rotate(angle, Image.Resampling.BICUBIC, fillcolor="white"))


def torch_fit(image: NDArray[np.uint8], size: tuple[int, int], centred: bool) -> NDArray[np.uint8]:
    resize = Resize(size, preserve_aspect_ratio=True, symmetric_pad=centred)
    tensor = torch.from_numpy(image.copy()).permute(2, 0, 1)
    result: NDArray[np.uint8] = resize(Sample(image=tensor)).image.permute(1, 2, 0).numpy()
    return result


def assert_same_pixels(actual: NDArray[np.uint8], expected: NDArray[np.uint8]) -> None:
    assert actual.shape == expected.shape
    difference = np.abs(actual.astype(int) - expected)
    assert difference.max(initial=0) <= 1
    assert (difference > 0).mean() < 2e-3


@pytest.mark.parametrize("name", ["skimage_page.png", "groceries.jpg", "skimage_chelsea.png"])
@pytest.mark.parametrize(("size", "centred"), [((1024, 1024), True), ((256, 256), True), ((32, 128), False)])
def test_fit_equals_doctr_on_photos(photo: Photo, name: str, size: tuple[int, int], centred: bool) -> None:
    image = photo(name)
    assert_same_pixels(fit(image, size, centred=centred), torch_fit(image, size, centred))


@pytest.mark.parametrize("height", [1, 2, 31, 32, 100])
@pytest.mark.parametrize("width", [1, 5, 128, 133, 1000])
def test_fit_equals_doctr_on_any_size(noise: Noise, height: int, width: int) -> None:
    image = noise(height, width)
    for size, centred in (((32, 128), False), ((64, 64), True)):
        actual = fit(image, size, centred=centred)
        # torch 2.15 repeats the first row where the result is one pixel wide and several high.
        if height < size[0] / 2 * width:
            assert_same_pixels(actual, torch_fit(image, size, centred))
        else:
            assert np.ptp(actual.max((1, 2)).astype(int)) > 0 or height == 1


@pytest.mark.parametrize(("reference", "detection"), POSTPROCESSORS)
@pytest.mark.parametrize("seed", range(8))
def test_boxes_equal_doctr(reference: Any, detection: MapThresholds, seed: int) -> None:
    probability = probability_map(seed)
    ((expected,),) = reference(assume_straight_pages=True)(probability[None, :, :, None])
    boxes, scores = find_boxes(probability, detection)
    assert len(expected) > 10
    np.testing.assert_allclose(np.c_[boxes, scores], expected, atol=1e-7)


@pytest.mark.parametrize(("reference", "detection"), POSTPROCESSORS)
@pytest.mark.parametrize("seed", range(8))
def test_quadrilaterals_equal_doctr(reference: Any, detection: MapThresholds, seed: int) -> None:
    probability = probability_map(seed)
    ((expected,),) = reference(assume_straight_pages=False)(probability[None, :, :, None])
    corners, scores = find_quadrilaterals(probability, detection)
    assert len(expected) > 10
    np.testing.assert_allclose(corners, expected[:, :4], atol=1e-6)
    np.testing.assert_allclose(scores, expected[:, 4, 1], atol=1e-7)
    assert (np.ptp(corners[:, [0, 1], 1], axis=1) > 0.01).any(), "some words must be turned"


@pytest.mark.parametrize("thresholds", [(0.6, 0.1), (0.3, 0.4)])
def test_thresholds_are_those_of_doctr(thresholds: tuple[float, float]) -> None:
    bin_threshold, box_threshold = thresholds
    probability = probability_map(3)
    reference = DBPostProcessor(box_thresh=box_threshold, bin_thresh=bin_threshold)
    ((expected,),) = reference(probability[None, :, :, None])
    boxes, _ = find_boxes(probability, MapThresholds(bin_threshold, box_threshold, 1.5, 2))
    assert 0 < len(boxes) < len(find_boxes(probability, MapThresholds(0.3, 0.1, 1.5, 2))[0])
    np.testing.assert_allclose(boxes, expected[:, :4], atol=1e-7)


def test_an_empty_map_has_no_words() -> None:
    empty = np.zeros((64, 64), np.float32)
    doctr = DoctrSpec.from_parameters(PARAMETERS)
    for rotated, shape in ((False, (0, 4)), (True, (0, 4, 2))):
        places = doctr.find_words(empty, (30, 50), doctr.detection, rotated=rotated)
        assert places.points.shape == shape
        assert places.quadrilaterals((30, 50)).shape == (0, 4, 2)
        assert arrange(places.points, (30, 50)) == []
        crops = doctr.cut(np.zeros((30, 50, 3), np.uint8), places)
        assert crops.pixels.shape == (0, 32, 128, 3)
        assert doctr.read(crops, []) == []


def test_a_full_map_is_one_word() -> None:
    boxes, _ = find_boxes(np.ones((64, 64), np.float32), MapThresholds(0.3, 0.1, 1.5, 2))
    assert boxes.tolist() == [[0, 0, 1, 1]]


@pytest.mark.parametrize("size", [(300, 200), (200, 300), (100, 100), (1, 50), (50, 1)])
def test_padding_is_removed_as_in_doctr(size: tuple[int, int]) -> None:
    random = np.random.default_rng(0)
    page = np.zeros((*size, 3), np.uint8)
    boxes = random.uniform(0, 1, (20, 4))
    (expected,) = _remove_padding([page], [{"words": np.c_[boxes, np.ones(20)]}], True, True, True)
    actual = remove_padding(boxes.reshape(-1, 2, 2), size).reshape(-1, 4)
    np.testing.assert_array_equal(actual, expected["words"][:, :4])
    corners = random.uniform(0, 1, (20, 5, 2))
    (expected,) = _remove_padding([page], [{"words": corners}], True, True, False)
    np.testing.assert_array_equal(remove_padding(corners[:, :4], size), expected["words"][:, :4])


def test_boxes_are_cut_as_in_doctr(photo: Photo) -> None:
    image = photo("groceries.jpg")
    low = np.random.default_rng(1).uniform(0, 1, (50, 2))
    boxes = np.clip(np.c_[low, low + np.random.default_rng(2).uniform(0, 0.3, (50, 2))], 0, 1)
    boxes[:3] = [[0, 0, 1, 1], [1, 1, 1, 1], [0.5, 0.5, 0.5, 0.5]]
    for actual, expected in zip(cut_boxes(image, boxes), extract_crops(image, boxes), strict=True):
        np.testing.assert_array_equal(actual, expected)


def test_quadrilaterals_are_cut_as_in_doctr(photo: Photo) -> None:
    image = photo("groceries.jpg")
    random = np.random.default_rng(1)
    corners = np.array(
        [
            cv2.boxPoints(
                (tuple(random.uniform(0, 1200, 2)), tuple(random.uniform(2, 400, 2)), random.uniform(0, 90))
            )
            for _ in range(60)
        ]
    )
    quadrilaterals = np.clip(corners / [1800, 1200], 0, 1).astype(np.float64)
    # docTR fails where all corners are one above the other.
    quadrilaterals = quadrilaterals[np.ptp(quadrilaterals[..., 0], axis=1) > 0]
    expected = extract_rcrops(image, quadrilaterals, assume_horizontal=True)
    for actual, crop in zip(cut_quadrilaterals(image, quadrilaterals), expected, strict=True):
        assert actual.shape[:2] == crop.shape[:2]
        np.testing.assert_array_equal(actual, crop)


def test_quadrilaterals_without_area_give_no_pixels() -> None:
    line = np.array([[[0.5, 0.1], [0.5, 0.2], [0.5, 0.7], [0.5, 0.3]], [[0.5, 0.5]] * 4])
    assert [crop.size for crop in cut_quadrilaterals(text_page(), line)] == [0, 0]


def test_quadrilaterals_of_a_very_long_image() -> None:
    image = np.zeros((40, 40_000, 3), np.uint8)
    image[10:20, 39_000:39_100] = 255
    corner = np.array([[39_000, 10], [39_099, 10], [39_099, 19], [39_000, 19]]) / [40_000, 40]
    (crop,) = cut_quadrilaterals(image, corner[None])
    assert crop.shape == (9, 99, 3)
    assert crop.min() == 255


@pytest.mark.parametrize("width", [1, 40, 80, 81, 89, 90, 100, 119, 120, 121, 333])
def test_wide_crops_are_split_as_in_doctr(noise: Noise, width: int) -> None:
    crop = noise(10, width)
    expected, (mapping,), _ = split_crops([crop], WIDEST_CROP, PIECE_WIDTH, OVERLAP)
    pieces, last_overlap = split(crop)
    assert len(pieces) == len(expected)
    assert all((a == b).all() for a, b in zip(pieces, expected, strict=True))
    assert last_overlap == (0 if isinstance(mapping, int) else mapping[2])
    texts = ["".join(chr(97 + (index * 3 + k) % 7) for k in range(6)) for index in range(len(pieces))]
    decoded = [Decoded(text, 1 / (index + 1)) for index, text in enumerate(texts)]
    ((text, confidence),) = remap_preds([(one.text, one.confidence) for one in decoded], [mapping], OVERLAP)
    merged = merge(decoded, last_overlap)
    assert merged.text == text
    assert merged.confidence == pytest.approx(confidence)


@given(
    st.text("abc", max_size=9),
    st.text("abc", max_size=9),
    st.floats(0.01, 0.99),
)
def test_texts_are_merged_as_in_doctr(left: str, right: str, overlap: float) -> None:
    assert merge_texts(left, right, overlap) == merge_strings(left, right, overlap)


def random_logits(seed: int, end_bias: float) -> NDArray[np.float32]:
    logits = np.random.default_rng(seed).normal(0, 3, (40, 12, len(VOCABULARY) + 1)).astype(np.float32)
    logits[..., -1] += end_bias
    # Runs of one character, and words of nothing at all.
    logits[::3] = logits[::3, [0, 0, 1, 2, 2, 2, 3, 4, 4, 5, 6, 6]]
    logits[::7, :, -1] += 99
    return logits


@pytest.mark.parametrize("end_bias", [-9, 0, 3, 6])
@pytest.mark.parametrize(
    ("decoder", "reference"),
    [("ctc", CTCPostProcessor), ("attention", ViTSTRPostProcessor), ("attention", PARSeqPostProcessor)],
)
def test_characters_equal_doctr(decoder: str, reference: Any, end_bias: float) -> None:
    logits = random_logits(5, end_bias)
    expected = reference(VOCABULARY)(torch.from_numpy(logits))
    actual = DECODERS[decoder](logits, VOCABULARY)
    assert [word.text for word in actual] == [text for text, _ in expected]
    np.testing.assert_allclose(
        [word.confidence for word in actual], [confidence for _, confidence in expected], rtol=1e-5
    )


def test_no_logits_are_no_words() -> None:
    for decode in DECODERS.values():
        assert decode(np.zeros((0, 12, len(VOCABULARY) + 1), np.float32), VOCABULARY) == []


def words_of_a_page(seed: int, rows: int = 12, columns: int = 2) -> NDArray[np.float64]:
    """Rows of words in columns with uneven gaps and heights, shuffled, some alone."""
    random = np.random.default_rng(seed)
    words = []
    for row, column in itertools.product(range(rows), range(columns)):
        x = column / columns + 0.02
        y = 0.05 + row * 0.9 / rows + (0.04 if row > rows / 2 else 0)
        for _ in range(random.integers(0, 7)):
            width = random.uniform(0.01, 0.08)
            height = random.uniform(0.015, 0.03)
            top = y + random.normal(0, 0.003)
            words.append([x, top, x + width, top + height])
            x += width + random.exponential(0.01)
    boxes: NDArray[np.float64] = np.clip(np.array(words), 0, 1)
    random.shuffle(boxes)
    return boxes


def reference_layout(
    words: NDArray[np.float64], size: tuple[int, int], lines: bool, blocks: bool
) -> list[list[list[int]]]:
    builder = DocumentBuilder(resolve_lines=lines, resolve_blocks=blocks)
    texts = [(str(index), 1.0) for index in range(len(words))]
    found = builder._build_blocks(words, np.ones(len(words)), texts, [{}] * len(words), size)
    return [[[int(word.value) for word in line.words] for line in block.lines] for block in found]


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize(("lines", "blocks"), [(True, False), (True, True), (False, False)])
@pytest.mark.parametrize("size", [(1000, 700), (300, 900)])
def test_layout_equals_doctr(seed: int, lines: bool, blocks: bool, size: tuple[int, int]) -> None:
    boxes = words_of_a_page(seed, rows=3 + 2 * seed, columns=1 + seed % 3)
    actual = arrange(boxes, size, lines=lines, blocks=blocks)
    assert actual == reference_layout(boxes, size, lines, blocks)
    assert sorted(itertools.chain(*itertools.chain(*actual))) == list(range(len(boxes)))


@pytest.mark.parametrize("angle", [0, 0.5, 7, -20, 44, 80, 89.5])
@pytest.mark.parametrize(("lines", "blocks"), [(True, False), (True, True), (False, False)])
def test_layout_of_turned_words_equals_doctr(angle: float, lines: bool, blocks: bool) -> None:
    size = (1000, 700)
    boxes = words_of_a_page(4)
    corners = boxes[:, [[0, 1], [2, 1], [2, 3], [0, 3]]] * [700, 1000]
    radians = np.deg2rad(angle)
    turn = np.array([[np.cos(radians), -np.sin(radians)], [np.sin(radians), np.cos(radians)]])
    turned = ((corners - [350, 500]) @ turn * 0.7 + [350, 500]) / [700, 1000]
    # Short words come out of detection upright.
    turned[::9] = boxes[::9][:, [[0, 1], [2, 1], [2, 3], [0, 3]]] * 0.7 + 0.1
    actual = arrange(turned, size, lines=lines, blocks=blocks)
    assert actual == reference_layout(turned, size, lines, blocks)


def test_lines_read_left_to_right_and_down() -> None:
    boxes = np.array([[0.3, 0.1, 0.4, 0.14], [0.1, 0.2, 0.2, 0.24], [0.28, 0.103, 0.29, 0.14]])
    assert arrange(boxes, (100, 100)) == [[[2, 0], [1]]]


def test_one_word() -> None:
    for blocks in (False, True):
        assert arrange(np.array([[0.1, 0.1, 0.2, 0.2]]), (10, 10), blocks=blocks) == [[[0]]]
        line = np.array([[[0.1, 0.1], [0.1, 0.1], [0.1, 0.1], [0.1, 0.1]]])
        assert arrange(line, (10, 10), blocks=blocks) == [[[0]]]


def test_crops_of_every_word_find_their_way_back() -> None:
    doctr = DoctrSpec.from_parameters(PARAMETERS)
    image = text_page()
    boxes = np.array([[0.05, 0.05, 0.1, 0.15], [0.05, 0.1, 0.9, 0.14], [1, 1, 1, 1], [0.1, 0.2, 0.2, 0.3]])
    crops = doctr.cut(image, Places(boxes, np.ones(4)))
    assert crops.counts[0] == crops.counts[3] == 1
    assert crops.counts[1] > 1
    assert crops.counts[2] == 0
    assert len(crops.pixels) == sum(crops.counts)
    # Each crop says its own number, so that mixing them up would show.
    logits = np.zeros((len(crops.pixels), 3, len(VOCABULARY) + 1), np.float32)
    logits[:, 1:, -1] = 50
    logits[np.arange(len(logits)), 0, np.arange(len(logits)) % 10] = 50
    read = doctr.read(crops, [logits[:2], logits[2:]])
    assert read[2] is None
    assert [word.text[0] if word else None for word in read] == [
        VOCABULARY[0],
        VOCABULARY[1],
        None,
        VOCABULARY[(len(logits) - 1) % 10],
    ]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"decoder": "beam"}, "beam"),
        ({"vocabulary": ""}, "vocabulary"),
        ({"crop_size": "32"}, "values to unpack"),
        ({"image_size": "0"}, "positive"),
        ({"unclip_ratio": None}, "unclip_ratio"),
    ],
)
def test_bad_parameters_are_refused(change: dict[str, str | None], says: str) -> None:
    parameters = {name: value for name, value in (PARAMETERS | change).items() if value is not None}
    with pytest.raises(ValueError, match=says):
        DoctrSpec.from_parameters(parameters)


def test_quadrilaterals_are_pixels_from_the_top_left_clockwise() -> None:
    places = Places(np.array([[0.1, 0.2, 0.3, 0.4]]), np.ones(1))
    expected = [[[20, 20], [60, 20], [60, 40], [20, 40]]]
    np.testing.assert_allclose(places.quadrilaterals((100, 200)), expected, rtol=1e-6)
