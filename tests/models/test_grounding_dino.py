from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from transformers import GroundingDinoImageProcessorPil
from transformers.image_transforms import get_size_with_aspect_ratio

from gateway.models.grounding_dino import Detection, GroundingDinoSpec
from gateway.models.grounding_dino_text import TokenizedText

Floats = NDArray[np.float32]
PARAMETERS = {
    "shortest_edge": "800",
    "longest_edge": "1333",
    "canvases": "800x800,800x1088,1088x800,800x1344,1344x800",
    "text_lengths": "16,32,64,128,256",
}
SMALL = {**PARAMETERS, "shortest_edge": "80", "longest_edge": "133", "canvases": "80x80,96x144,144x96"}


@pytest.fixture(scope="session")
def model(grounding_dino_folder: Path) -> GroundingDinoSpec:
    return GroundingDinoSpec.from_parameters(PARAMETERS, grounding_dino_folder)


@pytest.fixture(scope="session")
def small(grounding_dino_folder: Path) -> GroundingDinoSpec:
    return GroundingDinoSpec.from_parameters(SMALL, grounding_dino_folder)


def assert_preprocess_equals_reference(model: GroundingDinoSpec, image: NDArray[np.uint8]) -> None:
    canvas, valid_size = model.preprocess(image)
    expected = GroundingDinoImageProcessorPil(
        size={"shortest_edge": model.shortest_edge, "longest_edge": model.longest_edge},
        pad_size={"height": canvas.shape[0], "width": canvas.shape[1]},
        do_rescale=False,
        do_normalize=False,
    )(image, input_data_format="channels_last", return_tensors="np")
    covered = np.argwhere(expected["pixel_mask"][0]).max(axis=0) + 1
    assert valid_size == tuple(covered)
    assert canvas.shape[:2] in model.canvases
    np.testing.assert_array_equal(canvas, expected["pixel_values"][0].transpose(1, 2, 0))


@pytest.mark.parametrize(
    ("name", "canvas"),
    [("truck.jpg", (800, 1344)), ("cat_dog.jpeg", (800, 1088)), ("skimage_astronaut.png", (800, 800))],
)
def test_photos_are_prepared_as_the_reference_does(
    photo: Callable[[str], NDArray[np.uint8]], model: GroundingDinoSpec, name: str, canvas: tuple[int, int]
) -> None:
    image = photo(name)
    assert_preprocess_equals_reference(model, image)
    assert model.preprocess(image)[0].shape == (*canvas, 3)


@pytest.mark.parametrize(
    "size",
    [(37, 53), (53, 37), (1, 1), (80, 80), (80, 133), (79, 300), (40, 80), (1, 140), (140, 1), (3, 140)],
)
def test_odd_sizes_are_prepared_as_the_reference_does(
    small: GroundingDinoSpec, noise: Callable[[int, int], NDArray[np.uint8]], size: tuple[int, int]
) -> None:
    assert_preprocess_equals_reference(small, noise(*size))


@settings(max_examples=500, deadline=None)
@given(st.integers(1, 5000), st.integers(1, 5000))
def test_resized_size_is_that_of_the_reference_where_that_can_be(
    model: GroundingDinoSpec, height: int, width: int
) -> None:
    size = model.resized_size((height, width))
    expected = get_size_with_aspect_ratio((height, width), 800, 1333)
    canvas = next(c for c in model.canvases if size[0] <= c[0] and size[1] <= c[1])
    assert min(size) >= 1
    if min(expected) >= 1 and max(expected) <= max(canvas):
        assert size == expected


@pytest.mark.parametrize(
    ("original", "resized"),
    [((1, 5000), (1, 1333)), ((5000, 1), (1333, 1)), ((1, 2000), (1, 1333)), ((1700, 2), (1333, 2))],
)
def test_slivers(model: GroundingDinoSpec, original: tuple[int, int], resized: tuple[int, int]) -> None:
    height, width = model.resized_size(original)
    assert abs(height - resized[0]) <= 1
    assert abs(width - resized[1]) <= 1
    canvas, valid_size = model.preprocess(np.full((*original, 3), 7, dtype=np.uint8))
    assert valid_size == (height, width)
    assert (canvas[:height, :width] == 7).all()
    assert canvas.sum(dtype=np.int64) == 7 * 3 * height * width


def test_thresholds_are_the_models_where_none_is_asked_for(
    model: GroundingDinoSpec, grounding_dino_folder: Path
) -> None:
    text = model.text.encode_phrases(["cat", "dog"])
    logits, boxes = quiet(text, 4)
    ((cat,), (dog,)) = text.spans
    boxes[1] = boxes[0]  # of one place, exactly
    for query, (token, score) in enumerate([(cat, 0.9), (cat, 0.6), (dog, 0.5), (dog, 0.3)]):
        logits[query, token] = logit(score)

    def scores(model: GroundingDinoSpec, **thresholds: float) -> list[float]:
        found = model.postprocess(logits, boxes, text, (100, 200), max_detections=9, **thresholds)
        return [round(item.score, 2) for item in found]

    own = {"box_threshold": "0.55", "text_threshold": "0.1", "nms_iou_threshold": "0.8"}
    strict = GroundingDinoSpec.from_parameters({**PARAMETERS, **own}, grounding_dino_folder)
    assert (strict.box_threshold, strict.text_threshold, strict.nms_iou_threshold) == (0.55, 0.1, 0.8)
    assert scores(strict) == [0.9]
    assert scores(strict, box_threshold=0.2) == [0.9, 0.5, 0.3]
    # 1 is none, also where boxes are the same.
    assert scores(strict, nms_iou_threshold=1) == [0.9, 0.6]
    assert scores(strict, box_threshold=0, nms_iou_threshold=1) == [0.9, 0.6, 0.5, 0.3]

    assert (model.box_threshold, model.text_threshold, model.nms_iou_threshold) == (0.35, 0.25, None)
    assert scores(model) == [0.9, 0.6, 0.5]


def test_a_captions_words_are_those_over_the_models_threshold(
    model: GroundingDinoSpec, grounding_dino_folder: Path
) -> None:
    text = model.text.encode_caption("black cat.")
    logits, boxes = quiet(text, 1)
    ((black, cat),) = text.spans
    logits[0, [black, cat]] = logit(0.2), logit(0.9)
    for threshold, name in (("0.1", "black cat"), ("0.25", "cat")):
        own = GroundingDinoSpec.from_parameters(
            {**PARAMETERS, "text_threshold": threshold}, grounding_dino_folder
        )
        (found,) = own.postprocess(logits, boxes, text, (100, 200), max_detections=9)
        assert found.phrase == name
        (found,) = own.postprocess(logits, boxes, text, (100, 200), text_threshold=0.5, max_detections=9)
        assert found.phrase == "cat"


def detect(
    model: GroundingDinoSpec, text: TokenizedText, logits: Floats, boxes: Floats, **options: Any
) -> list[Detection]:
    defaults = {
        "box_threshold": 0.3,
        "text_threshold": 0.25,
        "nms_iou_threshold": None,
        "max_detections": 100,
    }
    return model.postprocess(logits, boxes, text, (100, 200), **{**defaults, **options})


def quiet(text: TokenizedText, queries: int) -> tuple[Floats, Floats]:
    """Logits of nothing found, and boxes side by side, 20 pixels wide in the image of 100x200."""
    boxes = np.full((queries, 4), 0.1, dtype=np.float32)
    boxes[:, 0] = 0.05 + 0.1 * np.arange(queries)
    boxes[:, 1] = 0.5
    return np.full((queries, len(text.input_ids)), -8.0, dtype=np.float32), boxes


def logit(probability: float) -> float:
    return float(np.log(probability / (1 - probability)))


def test_captions_are_decoded_as_the_reference_does(
    model: GroundingDinoSpec, grounding_dino_processor: Any
) -> None:
    rng = np.random.default_rng(2)
    text = model.text.encode_caption("a snowy owl. unbelievable skateboards? remote control (black).")
    last = int(text.attention_mask.sum()) - 1
    logits = rng.normal(-1.5, 1.2, (200, len(text.input_ids))).astype(np.float32)
    logits[:, last:] = -np.inf
    logits[:, 0] = -np.inf
    # The reference names nothing where only separators are over the text threshold: not compared here.
    words = [position for span in text.spans for position in span]
    logits[:, [p for p in range(1, last) if p not in words]] -= 1.0
    boxes = rng.uniform(0.2, 0.8, (200, 4)).astype(np.float32)
    (expected,) = grounding_dino_processor.post_process_grounded_object_detection(
        SimpleNamespace(logits=torch.from_numpy(logits)[None], pred_boxes=torch.from_numpy(boxes)[None]),
        torch.from_numpy(text.input_ids)[None],
        threshold=0.3,
        text_threshold=0.3,
        target_sizes=[(100, 200)],
    )
    order = np.argsort(-expected["scores"].numpy(), kind="stable")
    found = detect(model, text, logits, boxes, text_threshold=0.3, max_detections=200)
    assert len(found) == len(order) > 50
    names = [expected["text_labels"][i] for i in order]
    same = [d.phrase == name for d, name in zip(found, names, strict=True) if name not in (".", "?", ".?")]
    assert all(same)
    assert len(same) > 50
    np.testing.assert_allclose([d.score for d in found], expected["scores"].numpy()[order], rtol=1e-5)
    expected_boxes = expected["boxes"].numpy()[order].clip(0, [200, 100, 200, 100])
    np.testing.assert_allclose([d.box for d in found], expected_boxes, rtol=1e-5, atol=1e-4)
    assert {d.phrase_index for d in found} == {None}


def test_caption_detection_always_has_a_name(model: GroundingDinoSpec) -> None:
    text = model.text.encode_caption("a snowy owl. cat.")
    logits, boxes = quiet(text, 3)
    logits[0, 1:4] = logit(0.4), logit(0.45), logit(0.42)  # no word over the text threshold
    logits[1, text.attention_mask.sum() - 1] = logit(0.9)  # [SEP] alone
    logits[1, 5] = logit(0.2)
    logits[2, [2, 4, 0]] = logit(0.8)  # a word, its full stop and [CLS]
    found = detect(model, text, logits, boxes, text_threshold=0.6)
    assert [d.phrase for d in found] == ["cat", "snowy.", "a snowy owl"]


def test_phrase_is_the_one_whose_tokens_scored(model: GroundingDinoSpec) -> None:
    text = model.text.encode_phrases(["Dog", "hot dog", "dog", "Café"])
    assert text.spans == ((1,), (3, 4), (6,), (8,))
    logits, boxes = quiet(text, 6)
    for query, (position, probability) in enumerate([(4, 0.7), (1, 0.9), (6, 0.8), (3, 0.6), (8, 0.5)]):
        logits[query, position] = logit(probability)
    # Separators and special tokens count for nothing, whatever their score.
    logits[5, [0, 2, 5, 7, 9, 10]] = logit(0.99)
    found = detect(model, text, logits, boxes)
    assert [(d.phrase, d.phrase_index) for d in found] == [
        ("Dog", 0),
        ("dog", 2),
        ("hot dog", 1),
        ("hot dog", 1),
        ("Café", 3),
    ]
    np.testing.assert_allclose([d.score for d in found], [0.9, 0.8, 0.7, 0.6, 0.5], rtol=1e-5)
    np.testing.assert_allclose(found[0].box, [20, 45, 40, 55], atol=1e-4)
    assert found[0].box.dtype == np.float32


def test_text_threshold_has_no_part_with_phrases(model: GroundingDinoSpec) -> None:
    text = model.text.encode_phrases(["cat", "dog"])
    logits, boxes = quiet(text, 1)
    logits[0, 3] = logit(0.5)
    (found,) = detect(model, text, logits, boxes, text_threshold=0.99)
    assert found.phrase == "dog"


def test_box_threshold_limit_and_order_of_ties(model: GroundingDinoSpec) -> None:
    text = model.text.encode_phrases(["cat"])
    logits, boxes = quiet(text, 5)
    logits[:, 1] = [logit(p) for p in (0.5, 0.8, 0.5, 0.29, 0.8)]
    found = detect(model, text, logits, boxes)
    np.testing.assert_allclose([d.box[0] for d in found], [20, 80, 0, 40], atol=1e-4)
    assert len(detect(model, text, logits, boxes, max_detections=3)) == 3
    assert detect(model, text, logits, boxes, box_threshold=0.9) == []
    assert detect(model, text, logits[:0], boxes[:0]) == []
    assert detect(model, text, logits[:0], boxes[:0], nms_iou_threshold=0.5) == []


def test_many_ties_keep_the_order_of_queries(model: GroundingDinoSpec) -> None:
    text = model.text.encode_phrases(["cat"])
    logits = np.full((500, len(text.input_ids)), logit(0.5), dtype=np.float32)
    boxes = np.full((500, 4), 0.1, dtype=np.float32)
    boxes[:, 0] = np.linspace(0.1, 0.9, 500)
    logits[::3] = logit(0.6)
    found = detect(model, text, logits, boxes, max_detections=500)
    assert (np.diff([d.box[0] for d in found[:167]]) > 0).all()
    assert (np.diff([d.box[0] for d in found[167:]]) > 0).all()


@pytest.mark.parametrize("as_caption", [True, False])
def test_nms_is_by_phrase(model: GroundingDinoSpec, as_caption: bool) -> None:
    text = model.text.encode_caption("cat. dog.") if as_caption else model.text.encode_phrases(["cat", "dog"])
    logits, boxes = quiet(text, 4)
    boxes[1:3] = boxes[0]
    logits[0, 1], logits[1, 1], logits[2, 3], logits[3, 1] = (logit(p) for p in (0.5, 0.9, 0.7, 0.6))
    found = detect(model, text, logits, boxes, nms_iou_threshold=0.5)
    assert [(d.phrase, round(d.score, 3)) for d in found] == [("cat", 0.9), ("dog", 0.7), ("cat", 0.6)]
    first = detect(model, text, logits, boxes, nms_iou_threshold=0.5, max_detections=1)
    assert [d.phrase for d in first] == ["cat"]


@pytest.mark.parametrize("as_caption", [True, False])
def test_numbers_that_are_none(model: GroundingDinoSpec, as_caption: bool) -> None:
    text = model.text.encode_caption("cat. dog.") if as_caption else model.text.encode_phrases(["cat", "dog"])
    logits, boxes = quiet(text, 5)
    logits[0] = np.nan
    logits[1, 1] = np.inf
    logits[2] = -np.inf
    logits[3, 3] = logits[4, 3] = 4.0
    boxes[3, 2] = np.nan
    boxes[4, 0] = np.inf
    (found,) = detect(model, text, logits, boxes, nms_iou_threshold=0.5)
    assert (found.phrase, found.score) == ("cat", 1.0)


def test_boxes_are_clipped_to_the_image(model: GroundingDinoSpec) -> None:
    text = model.text.encode_phrases(["cat"])
    logits, boxes = quiet(text, 1)
    logits[0, 1] = 5
    boxes[0] = [0.0, 0.9, 0.5, 0.6]
    (found,) = detect(model, text, logits, boxes)
    np.testing.assert_allclose(found.box, [0, 60, 50, 100], atol=1e-4)


def test_logits_of_another_text_length_are_refused(model: GroundingDinoSpec) -> None:
    text = model.text.encode_phrases(["cat"])
    logits, boxes = quiet(text, 1)
    with pytest.raises(ValueError, match="logits are for 15 tokens, the text has 16"):
        detect(model, text, logits[:, :-1], boxes)
