"""Arguments that cannot be meant are refused before anything is sent."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from visiongate import ImageHandle, ImageId
from visiongate.operations import detection, embedding, gaze, segmentation, text
from visiongate.v1 import segmentation_service_pb2

PIXELS = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)


def sent(image: Any) -> Any:
    return segmentation.encode_image(image).request.image  # type: ignore[attr-defined]


def test_every_kind_of_image_is_sent(tmp_path: Path) -> None:
    assert sent(b"file").encoded == b"file"
    path = tmp_path / "image.jpg"
    path.write_bytes(b"file")
    assert sent(path).encoded == sent(str(path)).encoded == b"file"
    raw = sent(PIXELS).raw
    assert (raw.data, raw.width, raw.height) == (PIXELS.tobytes(), 4, 2)
    assert sent(ImageHandle(ImageId("abc"), 1, 1)).image_id == "abc"
    assert sent("https://images.example/photo.jpg").uri == "https://images.example/photo.jpg"


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_pillow_image_keeps_its_pixels_and_is_turned_upright(mode: str) -> None:
    picture = Image.fromarray(PIXELS).convert(mode)
    picture.getexif()[0x0112] = 6  # to be seen turned by 90 degrees clockwise
    with Image.open(io.BytesIO(sent(picture).encoded)) as received:
        turned = picture.convert("RGB").transpose(Image.Transpose.ROTATE_270)
        assert (np.asarray(received.convert("RGB")) == np.asarray(turned)).all()
        assert 0x0112 not in received.getexif()


@pytest.mark.parametrize("image", [PIXELS.astype(np.float32), PIXELS[0, 0], PIXELS[..., :2]])
def test_other_arrays_are_refused(image: Any) -> None:
    with pytest.raises(ValueError, match="pixels are uint8"):
        segmentation.encode_image(image)


def test_prompts_are_sent_as_given() -> None:
    operation = segmentation.segment(
        PIXELS, boxes=[[1, 2, 3, 4]], points=[[[5, 6], [7, 8]]], labels=[[1, 0]], mask_logits=[np.eye(2)]
    )
    (prompt,) = operation.request.prompts  # type: ignore[attr-defined]
    assert (prompt.box.x_min, prompt.box.y_min, prompt.box.x_max, prompt.box.y_max) == (1, 2, 3, 4)
    assert [(item.point.x, item.point.y, item.label) for item in prompt.points] == [
        (5, 6, segmentation_service_pb2.POINT_LABEL_FOREGROUND),
        (7, 8, segmentation_service_pb2.POINT_LABEL_BACKGROUND),
    ]
    logits = np.frombuffer(prompt.mask_logits.data, "<f4").reshape(
        prompt.mask_logits.height, prompt.mask_logits.width
    )
    assert (logits == np.eye(2)).all()


def test_prompts_may_differ() -> None:
    operation = segmentation.segment(
        PIXELS,
        boxes=[[1, 2, 3, 4], None, None],
        points=[[], [[5, 6]], np.array([[7, 8], [1, 1]])],
        labels=[None, None, [True, False]],
        mask_logits=[None, np.eye(2), None],
    )
    first, second, third = operation.request.prompts  # type: ignore[attr-defined]
    assert [prompt.HasField("box") for prompt in (first, second, third)] == [True, False, False]
    assert [len(prompt.points) for prompt in (first, second, third)] == [0, 1, 2]
    assert [item.label for item in third.points] == [1, 2]
    assert [prompt.HasField("mask_logits") for prompt in (first, second, third)] == [False, True, False]


@pytest.mark.parametrize("nothing", [[], (), np.zeros((0, 4))])
def test_no_prompts_are_no_error(nothing: Any) -> None:
    assert not segmentation.segment(PIXELS, boxes=nothing).request.prompts  # type: ignore[attr-defined]
    both = segmentation.segment(PIXELS, boxes=nothing, points=[], labels=[], mask_logits=[])
    assert not both.request.prompts  # type: ignore[attr-defined]


def test_timings_are_always_asked_for() -> None:
    for operation in (
        detection.detect(PIXELS, ["a"]),
        segmentation.segment(PIXELS, boxes=[]),
        segmentation.segment_phrases(PIXELS, ["a"]),
        segmentation.segment_everything(PIXELS),
        segmentation.encode_image(PIXELS),
        embedding.embed_images([]),
        embedding.embed_texts([]),
        embedding.compare(PIXELS, []),
        embedding.classify([], []),
        gaze.estimate_gaze(PIXELS),
        text.recognize_text([]),
    ):
        assert operation.request.include_timings, operation.method  # type: ignore[attr-defined]


def test_a_lone_string_is_not_a_list_of_phrases() -> None:
    with pytest.raises(TypeError, match="caption"):
        detection.detect(PIXELS, "dog")
