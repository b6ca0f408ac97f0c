"""Every argument of every operation: what cannot be meant is refused by name, before anything is sent."""

import inspect
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from client_operations import OPERATIONS
from visiongate import Text
from visiongate.operations import detection, embedding, everything, segmentation

PIXELS = np.zeros((2, 4, 3), np.uint8)
BOX = [1, 2, 3, 4]
POINTS = [[1, 2], [3, 4]]
NAN = math.nan

# Arguments with which each operation is good.
GOOD: dict[str, dict[str, Any]] = {
    "detect": {"image": PIXELS, "phrases": ["dog"]},
    "segment_phrases": {"image": PIXELS, "phrases": ["dog"]},
    "segment": {"image": PIXELS, "boxes": [BOX]},
    "segment_everything": {"image": PIXELS},
    "encode_image": {"image": PIXELS},
    "embed_images": {"images": [PIXELS]},
    "embed_texts": {"texts": ["dog"]},
    "compare": {"subject": PIXELS, "candidates": [Text("dog")]},
    "classify": {"images": [PIXELS], "labels": ["dog"]},
    "estimate_gaze": {"image": PIXELS},
    "recognize_text": {"images": [PIXELS]},
    "list_models": {},
    **{f"{name}_batch": {"images": [PIXELS], "phrases": ["dog"]} for name in ("detect", "segment_phrases")},
    **{f"{name}_batch": {"images": [PIXELS]} for name in ("segment_everything", "estimate_gaze")},
}

STRING = [
    (None, "must be a string"),
    (1, "1: it must be a string"),
    (b"a", "string"),
    ("\ud800", "surrogate"),
]
FLAG = [("yes", "'yes': it must be True or False"), (1, "True or False"), (None, "True or False")]
FRACTION = [
    (-0.1, "-0.1: it must be 0 to 1"),
    (1.5, "0 to 1"),
    (NAN, "nan: it must be 0 to 1"),
    (math.inf, "0 to 1"),
    ("0.5", "a number, 0 to 1"),
    (True, "a number"),
    ([0.5], "a number"),
]
IMAGE = [(5, "int"), (None, "NoneType"), (PIXELS.astype(np.float32), "float32")]
IMAGES = [
    (5, "images is 5: it must be a list of images"),
    (PIXELS, "a list of images"),
    (b"file", "a list of images"),
    ({1: PIXELS}, "is a dict"),
    ([PIXELS, 5], r"images\[1\].*int"),
    ([PIXELS, PIXELS[0, 0]], r"images\[1\]"),
]


def strings(name: str) -> list[tuple[Any, str]]:
    return [
        ("dog", f"{name} is a list of strings"),
        (5, f"{name} is 5: it must be a list of strings"),
        ({"dog"}, "is a set"),
        (["a", 1], rf"{name}\[1\] is 1: it must be a string"),
        ([None], rf"{name}\[0\] is None"),
        (["a", "\ud800"], rf"{name}\[1\] is .*surrogate"),
        ([["a"]], rf"{name}\[0\] is \['a'\]"),
    ]


def count(least: int, most: int | None = None) -> list[tuple[Any, str]]:
    wanted = f"a whole number, {least} {'or more' if most is None else f'to {most}'}"
    return [
        (least - 1, f"is {least - 1}: it must be {wanted}"),
        ((most or 2**32 - 1) + 1, wanted),
        (1.5, f"is 1.5: it must be {wanted}"),
        (NAN, wanted),
        ("3", wanted),
        (True, wanted),
    ]


QUERY = {
    "phrases": strings("phrases"),
    "caption": [*STRING, ("a dog.", "phrases and caption are two ways .*: give one of them")],
    "min_score": FRACTION,
    "min_token_score": FRACTION,
    "nms_iou_threshold": FRACTION,
    "max_detections": count(1),
}
# What is wrong for an argument, and what the error says; a dict brings other arguments along.
BAD: dict[str, dict[str, list[tuple[Any, str]]]] = {
    "detect": {"image": IMAGE, **QUERY, "model": STRING},
    "segment_phrases": {"image": IMAGE, **QUERY, "detection_model": STRING, "segmentation_model": STRING},
    "segment": {
        "image": IMAGE,
        "boxes": [
            (BOX, r"boxes\[0\] is 1: a box is .*several are a list"),
            (5, "boxes is 5: it must be a list of boxes"),
            ("boxes", "it must be a list of boxes"),
            ([BOX, [1, 2, 3, 4, 0.5]], r"boxes\[1\] is .*0\.5\]: .* without a score"),
            ([[[1, 2], [3, 4]]], r"boxes\[0\] .* not two corners"),
            ([[1, 2, 3]], r"boxes\[0\] is \[1, 2, 3\]: a box is"),
            ([BOX, [1, 2, NAN, 4]], r"boxes\[1\] has nan at \[2\]"),
            ([[1, 2, 3, 1e39]], "finite"),
            ([["1", "2", "3", "4"]], r"boxes\[0\] is \['1'"),
            ([BOX, None], "prompt 1 has neither a box nor points"),
            ([[]], r"boxes\[0\] is \[\]: a box is"),
            ([{}], r"boxes\[0\] is {}"),
        ],
        "points": [
            (5, "points is 5"),
            ([5], r"points\[0\] is 5: each prompt has a list"),
            ([[1, 2]], r"points\[0\] is \[1, 2\]: each prompt has a list"),
            ([[[1, 2, 1], [3, 4, 0]]], r"points\[0\] is .*: a point is \[x, y\]; labels go into"),
            ([[[1]]], r"points\[0\] is \[\[1\]\]: points are a list of \[x, y\]"),
            ([[[1, 2], [3]]], r"points\[0\]"),
            ([[[[1, 2]]]], r"points\[0\]"),
            ([[[1, math.inf]]], r"points\[0\] has inf at \[0, 1\]"),
            ([[["1", "2"]]], r"points\[0\]"),
            ([POINTS, POINTS], "as many of each as there are prompts.*: not 1 boxes, 2 points"),
        ],
        "labels": [
            ([[1, 0]], "labels are of points: give points"),
            *(
                ({"labels": labels, "points": points, "boxes": [BOX] * len(points)}, says)
                for points, labels, says in (
                    ([POINTS], 5, "labels is 5"),
                    ([POINTS], [1], r"labels\[0\] is 1: each prompt has a list of labels"),
                    ([POINTS], [[1]], "prompt 0 has 2 points but 1 labels"),
                    ([POINTS], [[1, 2]], r"labels\[0\] has 2\.0 at \[1\].*corners of a box: use `boxes`"),
                    ([POINTS], [[-1, 1]], r"labels\[0\] has -1\.0 at \[0\].*SAM's -1 is padding"),
                    ([POINTS], [[0.5, 1]], r"labels\[0\] has 0\.5"),
                    ([POINTS], [[[1], [0]]], r"labels\[0\]"),
                    ([POINTS], [["1", "0"]], r"labels\[0\]"),
                    ([POINTS], [[NAN, 1]], r"labels\[0\] has nan"),
                    ([POINTS], [[1, 1], [1, 1]], "as many of each"),
                    ([None, POINTS], [[1], [1, 1]], "prompt 0 has 0 points but 1 labels"),
                )
            ),
        ],
        "mask_logits": [
            (5, "mask_logits is 5"),
            (
                [np.zeros((1, 8, 8))],
                r"mask_logits\[0\] has the shape \[1, 8, 8\]: the logits of a mask are \[m, m\]",
            ),
            ([np.zeros(8)], r"mask_logits\[0\] has the shape \[8\]"),
            ([np.zeros((0, 0))], r"mask_logits\[0\] has the shape"),
            ([np.full((8, 8), NAN)], r"mask_logits\[0\] has nan at \[0, 0\]"),
            ([np.full((8, 8), "a")], r"mask_logits\[0\] is an array \[8, 8\]"),
            ([np.zeros((8, 8))] * 2, "1 boxes, 2 mask_logits"),
            (
                {"mask_logits": [None, np.zeros((8, 8))], "boxes": [BOX, None]},
                "prompt 1 has neither .*: mask_logits refine",
            ),
            ({"mask_logits": [np.zeros((8, 8))], "boxes": None}, "give boxes or points"),
        ],
        "multimask": FLAG,
        "include_logits": FLAG,
        "model": STRING,
    },
    "segment_everything": {
        "image": IMAGE,
        "points_per_side": count(1, 128),
        "crop_layers": count(0, 3),
        "crop_overlap_ratio": [
            (1, "0 to less than 1"),
            (-0.1, "0 to less than 1"),
            (NAN, "less"),
            ("1", "less"),
        ],
        "crop_points_downscale": count(1, 128),
        "min_predicted_iou": FRACTION,
        "min_stability_score": FRACTION,
        "stability_offset": [(0, "over 0, to 100"), (101, "over 0, to 100"), (NAN, "over"), ("1", "over")],
        "nms_iou_threshold": FRACTION,
        "min_mask_area": count(0),
        "min_region_area": count(0),
        "max_masks": count(1),
        "model": STRING,
    },
    "encode_image": {"image": IMAGE, "model": STRING},
    "embed_images": {"images": IMAGES, "normalize": FLAG, "model": STRING, "strict": FLAG},
    "embed_texts": {
        "texts": strings("texts"),
        "truncate": FLAG,
        "normalize": FLAG,
        "model": STRING,
        "strict": FLAG,
    },
    "compare": {
        "subject": [
            *IMAGE,
            ("a cat", r"subject: .* file 'a cat'.*; a text is visiongate.Text\('a cat'\)"),
            ("x" * 5000, "a text is visiongate.Text"),
            (Text(5), "subject is 5: it must be a string"),  # type: ignore[arg-type]
        ],
        "candidates": [
            (5, "candidates is 5: it must be a list of images and texts"),
            ("a cat", "candidates is a list of images and texts"),
            (Text("a cat"), "candidates is Text.*it must be a list of images and texts"),
            (PIXELS, "candidates is a list of images and texts"),
            ([Text("a"), "a cat"], r"candidates\[1\]: .*; a text is visiongate.Text\('a cat'\)"),
            ([Text("a"), Text(None)], r"candidates\[1\] is None"),  # type: ignore[arg-type]
            ([PIXELS, 5], r"candidates\[1\].*int"),
        ],
        "truncate": FLAG,
        "model": STRING,
        "strict": FLAG,
    },
    "classify": {
        "images": IMAGES,
        "labels": strings("labels"),
        "prompt_template": [(5, "prompt_template is 5: it must be a string"), ("{}\ud800", "surrogate")],
        "top_k": count(1),
        "truncate": FLAG,
        "model": STRING,
        "strict": FLAG,
    },
    "estimate_gaze": {
        "image": IMAGE,
        "boxes": [
            (BOX, r"boxes\[0\] is 1: a box is"),
            ([[1, 2, 3]], r"boxes\[0\]"),
            ([BOX, None], r"boxes\[1\] is None"),
            ([[1, 2, 3, 4, 0.9]], "without a score"),
            ([[1, 2, 3, NAN]], r"boxes\[0\] has nan"),
            *(
                ({"boxes": [BOX], name: value}, f"found already: leave out {name}")
                for name, value in (
                    ("min_score", 0.5),
                    ("nms_iou_threshold", 0.5),
                    ("max_faces", 5),
                    ("small_faces", True),
                    ("face_detection_model", "yunet_n"),
                )
            ),
        ],
        "min_score": FRACTION,
        "nms_iou_threshold": FRACTION,
        "max_faces": count(1),
        "small_faces": FLAG,
        "gaze_model": STRING,
        "face_detection_model": STRING,
    },
    "recognize_text": {
        "images": IMAGES,
        "rotated_words": FLAG,
        "min_pixel_score": FRACTION,
        "min_word_score": FRACTION,
        "min_confidence": FRACTION,
        "group_lines": FLAG,
        "group_blocks": FLAG,
        "reading_order": [("diagonal", "one of rows, columns"), ("", "one of rows"), (1, "one of rows")],
        "detect_orientation": FLAG,
        "model": STRING,
        "strict": FLAG,
    },
    "list_models": {},
}
# Of lists, the arguments are those of one image, but for the faces that a caller gives.
BAD |= {
    f"{name}_batch": {
        "images": IMAGES,
        **{key: values for key, values in BAD[name].items() if key not in ("image", "boxes")},
        "strict": FLAG,
    }
    for name in ("detect", "segment_phrases", "segment_everything", "estimate_gaze")
}


def cases() -> Iterator[Any]:
    for operation, arguments in BAD.items():
        for name, values in arguments.items():
            for index, (value, says) in enumerate(values):
                keywords = value if isinstance(value, dict) and name in value else {name: value}
                yield pytest.param(operation, name, keywords, says, id=f"{operation} {name} {index}")


@pytest.mark.parametrize(("operation", "name", "keywords", "says"), list(cases()))
def test_what_cannot_be_meant_is_refused(
    operation: str, name: str, keywords: dict[str, Any], says: str
) -> None:
    with pytest.raises((ValueError, TypeError, OSError), match=says) as caught:
        OPERATIONS[operation](**(GOOD[operation] | keywords))
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 500
    assert name in message or "prompt" in message or "boxes" in message


def test_every_argument_is_in_the_table() -> None:
    assert OPERATIONS.keys() == GOOD.keys() == BAD.keys()
    for name in OPERATIONS:
        assert list(inspect.signature(OPERATIONS[name]).parameters) == list(BAD[name]), name


@pytest.mark.parametrize("name", GOOD)
def test_good_arguments_are_good(name: str) -> None:
    assert OPERATIONS[name](**GOOD[name]).method.startswith("/visiongate.v1.")


@pytest.mark.parametrize("name", sorted(GOOD.keys() - {"list_models"}))
def test_timings_are_always_asked_for(name: str) -> None:
    assert OPERATIONS[name](**GOOD[name]).request.include_timings  # type: ignore[attr-defined]


def test_numbers_of_numpy_are_numbers() -> None:
    request: Any = everything.segment_everything(
        PIXELS,
        points_per_side=np.int64(3),  # type: ignore[arg-type]
        min_predicted_iou=np.float32(0.5),  # type: ignore[arg-type]
        stability_offset=2,
    ).request
    assert (request.points_per_side, request.min_predicted_iou, request.stability_offset) == (3, 0.5, 2)
    request = segmentation.segment(PIXELS, boxes=[BOX], multimask=np.bool_(True)).request  # type: ignore[arg-type]
    assert request.multimask


def test_the_ends_of_a_range_belong_to_it() -> None:
    for value in (0, 1):
        request: Any = detection.detect(PIXELS, ["a"], min_score=value, max_detections=1).request
        assert (request.query.HasField("min_score"), request.query.min_score) == (True, value)
    assert detection.detect(PIXELS, ["a"], max_detections=1000)
    assert everything.segment_everything(PIXELS, crop_overlap_ratio=0, stability_offset=100, crop_layers=3)


@pytest.mark.parametrize("kind", [list, tuple, iter, np.array])
def test_lists_of_any_kind(kind: Any) -> None:
    request: Any = embedding.embed_texts(kind(["a", "b"])).request
    assert request.texts == ["a", "b"]
    request = segmentation.segment(PIXELS, boxes=kind([BOX, BOX])).request
    assert [prompt.box.y_max for prompt in request.prompts] == [4, 4]
