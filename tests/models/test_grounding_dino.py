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
from tokenizers import BertWordPieceTokenizer
from transformers import BertTokenizer, GroundingDinoImageProcessorPil, GroundingDinoProcessor
from transformers.image_transforms import get_size_with_aspect_ratio
from transformers.models.grounding_dino.modeling_grounding_dino import (
    SPECIAL_TOKENS,
    generate_masks_with_special_tokens_and_transfer_map,
)

from gateway.models.grounding_dino import (
    Detection,
    GroundingDinoSpec,
    TextTooLongError,
    TokenizedText,
    _blocks,
)

# Untyped, or typed for subclasses of torch.Tensor that do not exist.
reference_masks: Any = generate_masks_with_special_tokens_and_transfer_map
reference_processor: Any = GroundingDinoProcessor

Floats = NDArray[np.float32]
PARAMETERS = {
    "shortest_edge": "800",
    "longest_edge": "1333",
    "canvases": "800x800,800x1088,1088x800,800x1344,1344x800",
    "text_lengths": "16,32,64,128,256",
}
SMALL = {**PARAMETERS, "shortest_edge": "80", "longest_edge": "133", "canvases": "80x80,96x144,144x96"}
TRICKY = [
    ["cat", "dog"],
    ["Dog", "hot dog"],
    ["dog", "dog"],
    ["dog", "Dog"],
    ["  Two  Words\t", "Café au lait", "naïve"],
    ["日本語", "🐕", "Straße", "ΟΔΟΣ", "İstanbul"],
    ["stop sign (red)", "o'clock", "t-shirt", "#hash", "a/b", "50%"],
    ["x" * 200, "antidisestablishmentarianism"],
    ["bell\x07 pepper", "null\x00byte", "[SEP]", "[MASK] [PAD]"],
    ["what?", "who? me"],
]


@pytest.fixture(scope="session")
def tokenizer_path(bert_vocabulary: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    tokenizer = BertWordPieceTokenizer(str(bert_vocabulary), lowercase=True)
    # As a file saved after use may be: neither may have any effect.
    tokenizer.enable_truncation(8)
    tokenizer.enable_padding(length=12)
    path = tmp_path_factory.mktemp("grounding_dino") / "tokenizer.json"
    tokenizer.save(str(path))
    return path


@pytest.fixture(scope="session")
def model(tokenizer_path: Path) -> GroundingDinoSpec:
    return GroundingDinoSpec.from_parameters(PARAMETERS, tokenizer_path)


@pytest.fixture(scope="session")
def small(tokenizer_path: Path) -> GroundingDinoSpec:
    return GroundingDinoSpec.from_parameters(SMALL, tokenizer_path)


@pytest.fixture(scope="session")
def processor(bert_vocabulary: Path) -> Any:
    return reference_processor(GroundingDinoImageProcessorPil(), BertTokenizer(vocab=str(bert_vocabulary)))


# Images


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


# Text


def assert_masks_equal_reference(text: TokenizedText) -> None:
    mask, position_ids = reference_masks(torch.from_numpy(text.input_ids)[None], torch.tensor(SPECIAL_TOKENS))
    np.testing.assert_array_equal(text.position_ids, position_ids[0].numpy())
    np.testing.assert_array_equal(text.text_self_attention_mask, mask[0].numpy())


def own_tokens(model: GroundingDinoSpec, phrase: str) -> list[int]:
    """The tokens of a phrase on its own, without separators."""
    ids = model.tokenizer.encode(phrase.strip().lower(), add_special_tokens=False).ids
    return [token for token in ids if token not in SPECIAL_TOKENS]


@pytest.mark.parametrize("phrases", TRICKY)
def test_phrases_are_encoded_as_the_reference_does(
    model: GroundingDinoSpec, processor: Any, phrases: list[str]
) -> None:
    text = model.encode_phrases(phrases)
    length = len(text.input_ids)
    expected = processor(text=[phrases], padding="max_length", max_length=length, return_tensors="np")
    np.testing.assert_array_equal(text.input_ids, expected["input_ids"][0])
    np.testing.assert_array_equal(text.attention_mask, expected["attention_mask"][0])
    assert length == min(b for b in model.text_lengths if b >= text.attention_mask.sum())
    assert_masks_equal_reference(text)
    assert text.phrases == tuple(phrases)


def test_padding_changes_nothing_for_the_tokens(model: GroundingDinoSpec, processor: Any) -> None:
    text = model.encode_phrases(["a cat", "hot dog", "dog"])
    ids = torch.from_numpy(processor(text=[["a cat", "hot dog", "dog"]], return_tensors="np")["input_ids"])
    mask, position_ids = reference_masks(ids, torch.tensor(SPECIAL_TOKENS))
    count = ids.shape[1]
    assert count < len(text.input_ids)
    np.testing.assert_array_equal(text.text_self_attention_mask[:count, :count], mask[0].numpy())
    np.testing.assert_array_equal(text.position_ids[:count], position_ids[0].numpy())
    assert not text.text_self_attention_mask[:count, count:].any()
    assert text.input_ids.dtype == text.attention_mask.dtype == text.position_ids.dtype == np.int64
    assert text.text_self_attention_mask.dtype == np.bool_


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from([0, 101, 102, 1012, 1029, 4937, 3899]), min_size=1, max_size=20))
def test_masks_of_any_tokens_equal_the_reference(ids: list[int]) -> None:
    position_ids, mask = _blocks(np.isin(ids, SPECIAL_TOKENS))
    expected, expected_ids = reference_masks(torch.tensor([ids]), torch.tensor(SPECIAL_TOKENS))
    np.testing.assert_array_equal(position_ids, expected_ids[0].numpy())
    np.testing.assert_array_equal(mask, expected[0].numpy())


phrase_texts = st.text(min_size=0, max_size=10) | st.text(
    alphabet="aDog .?!#[]\t\x00é\u0301日🐕", max_size=10
)


@settings(max_examples=300, deadline=None)
@given(st.lists(phrase_texts, min_size=1, max_size=6))
def test_spans_are_the_phrases_own_tokens(model: GroundingDinoSpec, phrases: list[str]) -> None:
    expected = [own_tokens(model, phrase) for phrase in phrases]
    if not all(expected):
        with pytest.raises(ValueError, match=f"^Phrase {expected.index([])} has no words"):
            model.encode_phrases(phrases)
        return
    text = model.encode_phrases(phrases)
    assert [text.input_ids[list(span)].tolist() for span in text.spans] == expected
    positions = [position for span in text.spans for position in span]
    assert positions == sorted(set(positions))
    assert_masks_equal_reference(text)


@pytest.mark.parametrize("phrase", ["", "   ", ".", "...", " ? . ", "\t\n", "\x00"])
def test_phrase_without_words_is_named(model: GroundingDinoSpec, phrase: str) -> None:
    with pytest.raises(ValueError, match="Phrase 1 has no words"):
        model.encode_phrases(["cat", phrase, "dog"])
    with pytest.raises(ValueError, match="caption has no words"):
        model.encode_caption(phrase)


def test_separators_inside_a_phrase_split_its_attention_but_not_its_span(model: GroundingDinoSpec) -> None:
    text = model.encode_phrases(["St. Bernard? dog", "cat"])
    tokens = [model.tokenizer.id_to_token(token) for token in text.input_ids]
    assert tokens[:10] == ["[CLS]", "st", ".", "bernard", "?", "dog", ".", "cat", ".", "[SEP]"]
    assert text.spans == ((1, 3, 5), (7,))
    assert not text.text_self_attention_mask[1, 3]
    assert text.text_self_attention_mask[3, 4]


def test_no_phrases(model: GroundingDinoSpec) -> None:
    with pytest.raises(ValueError, match="no phrases"):
        model.encode_phrases([])


@pytest.mark.parametrize(
    "caption", ["a cat. a remote control.", "A Cat. Café?  two dogs. x" + " y" * 30 + ".", "what? who? me."]
)
def test_captions_are_encoded_as_the_reference_does(
    model: GroundingDinoSpec, processor: Any, caption: str
) -> None:
    text = model.encode_caption(caption)
    expected = processor(
        text=caption, padding="max_length", max_length=len(text.input_ids), return_tensors="np"
    )
    np.testing.assert_array_equal(text.input_ids, expected["input_ids"][0])
    np.testing.assert_array_equal(text.attention_mask, expected["attention_mask"][0])
    assert_masks_equal_reference(text)
    assert text.phrases == ()


def test_caption_is_closed_with_a_full_stop(model: GroundingDinoSpec) -> None:
    closed, text = model.encode_caption("a cat. a dog."), model.encode_caption(" a cat. A dog ")
    np.testing.assert_array_equal(closed.input_ids, text.input_ids)
    assert text.spans == ((1, 2), (4, 5))


def test_longest_text(model: GroundingDinoSpec) -> None:
    # [CLS], 253 words, a full stop and [SEP] are 256.
    text = model.encode_caption("cat " * 253)
    assert len(text.input_ids) == text.attention_mask.sum() == 256
    assert_masks_equal_reference(text)
    with pytest.raises(TextTooLongError, match=r"257 tokens.*limit is 256"):
        model.encode_caption("cat " * 254)
    with pytest.raises(TextTooLongError, match=r"302 tokens.*limit is 256"):
        model.encode_phrases(["cat"] * 150)


@pytest.mark.parametrize("count", [13, 14])
def test_text_takes_the_smallest_length(model: GroundingDinoSpec, count: int) -> None:
    assert len(model.encode_caption("cat " * count).input_ids) == (16 if count == 13 else 32)


# Detections


def test_thresholds_are_the_models_where_none_is_asked_for(
    model: GroundingDinoSpec, tokenizer_path: Path
) -> None:
    text = model.encode_phrases(["cat", "dog"])
    logits, boxes = quiet(text, 4)
    ((cat,), (dog,)) = text.spans
    boxes[1] = boxes[0]  # of one place, exactly
    for query, (token, score) in enumerate([(cat, 0.9), (cat, 0.6), (dog, 0.5), (dog, 0.3)]):
        logits[query, token] = logit(score)

    def scores(model: GroundingDinoSpec, **asked: float) -> list[float]:
        found = model.postprocess(logits, boxes, text, (100, 200), max_detections=9, **asked)
        return [round(item.score, 2) for item in found]

    own = {"box_threshold": "0.55", "text_threshold": "0.1", "nms_iou_threshold": "0.8"}
    strict = GroundingDinoSpec.from_parameters({**PARAMETERS, **own}, tokenizer_path)
    assert (strict.box_threshold, strict.text_threshold, strict.nms_iou_threshold) == (0.55, 0.1, 0.8)
    assert scores(strict) == [0.9]
    assert scores(strict, box_threshold=0.2) == [0.9, 0.5, 0.3]
    # 1 is none, also where boxes are the same.
    assert scores(strict, nms_iou_threshold=1) == [0.9, 0.6]
    assert scores(strict, box_threshold=0, nms_iou_threshold=1) == [0.9, 0.6, 0.5, 0.3]

    assert (model.box_threshold, model.text_threshold, model.nms_iou_threshold) == (0.35, 0.25, None)
    assert scores(model) == [0.9, 0.6, 0.5]


def test_a_captions_words_are_those_over_the_models_threshold(
    model: GroundingDinoSpec, tokenizer_path: Path
) -> None:
    text = model.encode_caption("black cat.")
    logits, boxes = quiet(text, 1)
    ((black, cat),) = text.spans
    logits[0, [black, cat]] = logit(0.2), logit(0.9)
    for threshold, name in (("0.1", "black cat"), ("0.25", "cat")):
        own = GroundingDinoSpec.from_parameters({**PARAMETERS, "text_threshold": threshold}, tokenizer_path)
        (found,) = own.postprocess(logits, boxes, text, (100, 200), max_detections=9)
        assert found.phrase == name
        (found,) = own.postprocess(logits, boxes, text, (100, 200), text_threshold=0.5, max_detections=9)
        assert found.phrase == "cat"


@pytest.mark.parametrize("value", ["1.5", "-0.1", "nan", "much", ""])
@pytest.mark.parametrize("name", ["box_threshold", "text_threshold", "nms_iou_threshold"])
def test_thresholds_are_fractions(tokenizer_path: Path, name: str, value: str) -> None:
    with pytest.raises(ValueError, match=f"Parameter {name} is not a number from 0 to 1: '{value}'"):
        GroundingDinoSpec.from_parameters({**PARAMETERS, name: value}, tokenizer_path)


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


def test_captions_are_decoded_as_the_reference_does(model: GroundingDinoSpec, processor: Any) -> None:
    rng = np.random.default_rng(2)
    text = model.encode_caption("a snowy owl. unbelievable skateboards? remote control (black).")
    last = int(text.attention_mask.sum()) - 1
    logits = rng.normal(-1.5, 1.2, (200, len(text.input_ids))).astype(np.float32)
    logits[:, last:] = -np.inf
    logits[:, 0] = -np.inf
    # The reference names nothing where only separators are over the text threshold: not compared here.
    words = [position for span in text.spans for position in span]
    logits[:, [p for p in range(1, last) if p not in words]] -= 1.0
    boxes = rng.uniform(0.2, 0.8, (200, 4)).astype(np.float32)
    (expected,) = processor.post_process_grounded_object_detection(
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
    text = model.encode_caption("a snowy owl. cat.")
    logits, boxes = quiet(text, 3)
    logits[0, 1:4] = logit(0.4), logit(0.45), logit(0.42)  # no word over the text threshold
    logits[1, text.attention_mask.sum() - 1] = logit(0.9)  # [SEP] alone
    logits[1, 5] = logit(0.2)
    logits[2, [2, 4, 0]] = logit(0.8)  # a word, its full stop and [CLS]
    found = detect(model, text, logits, boxes, text_threshold=0.6)
    assert [d.phrase for d in found] == ["cat", "snowy.", "a snowy owl"]


def test_phrase_is_the_one_whose_tokens_scored(model: GroundingDinoSpec) -> None:
    text = model.encode_phrases(["Dog", "hot dog", "dog", "Café"])
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
    text = model.encode_phrases(["cat", "dog"])
    logits, boxes = quiet(text, 1)
    logits[0, 3] = logit(0.5)
    (found,) = detect(model, text, logits, boxes, text_threshold=0.99)
    assert found.phrase == "dog"


def test_box_threshold_limit_and_order_of_ties(model: GroundingDinoSpec) -> None:
    text = model.encode_phrases(["cat"])
    logits, boxes = quiet(text, 5)
    logits[:, 1] = [logit(p) for p in (0.5, 0.8, 0.5, 0.29, 0.8)]
    found = detect(model, text, logits, boxes)
    np.testing.assert_allclose([d.box[0] for d in found], [20, 80, 0, 40], atol=1e-4)
    assert len(detect(model, text, logits, boxes, max_detections=3)) == 3
    assert detect(model, text, logits, boxes, box_threshold=0.9) == []
    assert detect(model, text, logits[:0], boxes[:0]) == []
    assert detect(model, text, logits[:0], boxes[:0], nms_iou_threshold=0.5) == []


def test_many_ties_keep_the_order_of_queries(model: GroundingDinoSpec) -> None:
    text = model.encode_phrases(["cat"])
    logits = np.full((500, len(text.input_ids)), logit(0.5), dtype=np.float32)
    boxes = np.full((500, 4), 0.1, dtype=np.float32)
    boxes[:, 0] = np.linspace(0.1, 0.9, 500)
    logits[::3] = logit(0.6)
    found = detect(model, text, logits, boxes, max_detections=500)
    assert (np.diff([d.box[0] for d in found[:167]]) > 0).all()
    assert (np.diff([d.box[0] for d in found[167:]]) > 0).all()


@pytest.mark.parametrize("as_caption", [True, False])
def test_nms_is_by_phrase(model: GroundingDinoSpec, as_caption: bool) -> None:
    text = model.encode_caption("cat. dog.") if as_caption else model.encode_phrases(["cat", "dog"])
    logits, boxes = quiet(text, 4)
    boxes[1:3] = boxes[0]
    logits[0, 1], logits[1, 1], logits[2, 3], logits[3, 1] = (logit(p) for p in (0.5, 0.9, 0.7, 0.6))
    found = detect(model, text, logits, boxes, nms_iou_threshold=0.5)
    assert [(d.phrase, round(d.score, 3)) for d in found] == [("cat", 0.9), ("dog", 0.7), ("cat", 0.6)]
    first = detect(model, text, logits, boxes, nms_iou_threshold=0.5, max_detections=1)
    assert [d.phrase for d in first] == ["cat"]


@pytest.mark.parametrize("as_caption", [True, False])
def test_numbers_that_are_none(model: GroundingDinoSpec, as_caption: bool) -> None:
    text = model.encode_caption("cat. dog.") if as_caption else model.encode_phrases(["cat", "dog"])
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
    text = model.encode_phrases(["cat"])
    logits, boxes = quiet(text, 1)
    logits[0, 1] = 5
    boxes[0] = [0.0, 0.9, 0.5, 0.6]
    (found,) = detect(model, text, logits, boxes)
    np.testing.assert_allclose(found.box, [0, 60, 50, 100], atol=1e-4)


def test_logits_of_another_text_length_are_refused(model: GroundingDinoSpec) -> None:
    text = model.encode_phrases(["cat"])
    logits, boxes = quiet(text, 1)
    with pytest.raises(ValueError, match="logits are for 15 tokens, the text has 16"):
        detect(model, text, logits[:, :-1], boxes)


# Parameters


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shortest_edge": "eight"}, "shortest_edge is not made of integers: 'eight'"),
        ({"longest_edge": "0"}, "longest_edge is wrong"),
        ({"longest_edge": "1333,1334"}, "longest_edge is wrong"),
        ({"canvases": "800x800"}, "canvases has none that holds 800x1333"),
        ({"canvases": "800x1344"}, "canvases has none that holds 1333x800"),
        ({"canvases": "800*800"}, "not HEIGHTxWIDTH: '800\\*800'"),
        ({"text_lengths": "32,16"}, "text_lengths must be rising"),
        ({"text_lengths": ""}, "text_lengths is not made of integers"),
    ],
)
def test_wrong_parameters_are_named(tokenizer_path: Path, change: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GroundingDinoSpec.from_parameters({**PARAMETERS, **change}, tokenizer_path)


@pytest.mark.parametrize("name", PARAMETERS)
def test_missing_parameters_are_named(tokenizer_path: Path, name: str) -> None:
    parameters = {key: value for key, value in PARAMETERS.items() if key != name}
    with pytest.raises(ValueError, match=f"no parameter {name}"):
        GroundingDinoSpec.from_parameters(parameters, tokenizer_path)


def test_wrong_tokenizers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no tokenizer\.json"):
        GroundingDinoSpec.from_parameters(PARAMETERS, tmp_path / "tokenizer.json")
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ValueError, match="cannot be read"):
        GroundingDinoSpec.from_parameters(PARAMETERS, tmp_path / "tokenizer.json")
    BertWordPieceTokenizer({"[UNK]": 0, "[SEP]": 1, "[CLS]": 2, "[PAD]": 3, ".": 4}).save(
        str(tmp_path / "tokenizer.json")
    )
    with pytest.raises(ValueError, match=r"no token \?"):
        GroundingDinoSpec.from_parameters(PARAMETERS, tmp_path / "tokenizer.json")
