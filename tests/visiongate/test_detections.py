"""Objects as arrays, and as other libraries take them."""

import contextlib
import io
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from visiongate import AnswerInfo, CocoDataset, Detection, Detections, ImageInfo, Mask
from visiongate.operations import detection, segmentation
from visiongate.v1 import detection_service_pb2, geometry_pb2, image_pb2, segmentation_service_pb2

WIDTH, HEIGHT = 60, 40
PHRASES = ["cup", "red spoon"]
# x_min, y_min, x_max, y_max, the phrase's place, score
OBJECTS = [(10, 5, 30, 25, 1, 0.75), (0, 0, 8, 40, 0, 0.5), (30, 10, 60, 20, 1, 0.25)]


def mask_message(x_min: int, y_min: int, x_max: int, y_max: int) -> segmentation_service_pb2.Mask:
    pixels = np.zeros((HEIGHT, WIDTH), np.uint8, order="F")
    pixels[y_min:y_max, x_min : x_max - 1] = 1
    return segmentation_service_pb2.Mask(
        rle=segmentation_service_pb2.RunLengths(
            height=HEIGHT, width=WIDTH, counts=coco.encode(pixels)["counts"]
        ),
        box=geometry_pb2.Box(x_min=x_min, y_min=y_min, x_max=x_max - 1, y_max=y_max),
        area=int(pixels.sum()),
        predicted_iou=0.9,
    )


def answer(objects: Any = OBJECTS, masks: bool = True, caption: bool = False) -> Detections:
    """What the client makes of a response with these objects."""
    messages = [
        detection_service_pb2.Detection(
            box=geometry_pb2.Box(x_min=box[0], y_min=box[1], x_max=box[2], y_max=box[3]),
            phrase=PHRASES[place],
            phrase_index=None if caption else place,
            score=score,
        )
        for *box, place, score in objects
    ]
    asked: dict[str, Any] = {"caption": "a cup. a red spoon."} if caption else {"phrases": PHRASES}
    image = image_pb2.ImageInfo(image_id="abc", width=WIDTH, height=HEIGHT)
    pixels = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    if not masks:
        return detection.detect(pixels, **asked).parse(
            detection_service_pb2.DetectObjectsResponse(detections=messages, image=image, model="swin_t"), "1"
        )
    return segmentation.segment_phrases(pixels, **asked).parse(
        segmentation_service_pb2.SegmentPhrasesResponse(
            objects=[
                segmentation_service_pb2.SegmentedObject(detection=message, mask=mask_message(*box))
                for message, (*box, _, _) in zip(messages, objects, strict=True)
            ],
            image=image,
            detection_model="swin_t",
            segmentation_model="vit_b",
        ),
        "1",
    )


def test_one_by_one_and_as_arrays() -> None:
    found = answer()
    assert [item.phrase for item in found] == found.phrases == ["red spoon", "cup", "red spoon"]
    assert found.xyxy.tolist() == [list(item[:4]) for item in OBJECTS]
    assert found.xyxy.dtype == np.float32
    assert found.confidence.dtype == np.float32
    assert found.confidence.tolist() == [0.75, 0.5, 0.25]
    assert found.class_id.tolist() == [1, 0, 1]
    assert found.classes == tuple(PHRASES)
    assert (found.width, found.height) == (WIDTH, HEIGHT)
    assert found.info == AnswerInfo("1", "vit_b", "swin_t", (ImageInfo("abc", WIDTH, HEIGHT),))
    assert found.masks is not None
    assert found.masks.shape == (3, HEIGHT, WIDTH)
    assert found.masks.dtype == np.bool_
    for item, mask in zip(found, found.masks, strict=True):
        assert item.mask is not None
        assert (item.mask.pixels == mask).all()
        assert mask.sum() == item.mask.area
    assert json.loads(json.dumps(found.as_dicts()))[1]["mask"]["rle"]["size"] == [HEIGHT, WIDTH]


def test_without_masks() -> None:
    found = answer(masks=False)
    assert found.masks is None
    assert [item.mask for item in found] == [None] * 3
    assert "mask" not in found.as_dicts()[0]


@pytest.mark.parametrize("masks", [True, False])
def test_nothing_found_has_arrays_too(masks: bool) -> None:
    found = answer([], masks)
    assert not found
    assert (found.xyxy.shape, found.confidence.shape, found.class_id.shape) == ((0, 4), (0,), (0,))
    assert found.xyxy.dtype == np.float32
    assert masks == (found.masks is not None and found.masks.shape == (0, HEIGHT, WIDTH))
    assert (found.to_coco(), found.to_yolo(), found.as_dicts()) == ([], "", [])
    assert found.plot(Image.new("RGB", (WIDTH, HEIGHT))).size == (WIDTH, HEIGHT)
    assert len(found[found.confidence > 0.5]) == 0
    assert len(found[[]]) == 0


@pytest.mark.parametrize(
    ("index", "left"),
    [
        (slice(1), [0]),
        (slice(None, None, -1), [2, 1, 0]),
        (np.array([True, False, True]), [0, 2]),
        ([False, True, False], [1]),
        (np.array([2, 0]), [2, 0]),
        ([-1], [2]),
        ([], []),
    ],
)
def test_some_of_them(index: Any, left: list[int]) -> None:
    found = answer()
    some = found[index]
    assert isinstance(some, Detections)
    assert list(some) == [found[place] for place in left]
    assert some.class_id.tolist() == found.class_id[left].tolist()
    assert (some.classes, some.info) == (found.classes, found.info)
    assert some.masks is not None


def test_one_of_them() -> None:
    found = answer()
    assert found[-1] is found[np.int64(2)]
    assert isinstance(found[0], Detection)
    with pytest.raises(IndexError):
        found[3]


@pytest.mark.parametrize("index", ["0", 1.5, [1.5], [[0, 1]], None])
def test_what_picks_nothing_is_told(index: Any) -> None:
    with pytest.raises(TypeError, match="picked by an integer, a slice, or a list"):
        answer()[index]


def test_too_few_booleans_are_told() -> None:
    with pytest.raises(IndexError, match="2 booleans cannot pick from 3 objects"):
        answer()[[True, False]]


def test_classes_of_a_caption_are_the_phrases_that_were_found() -> None:
    found = answer(caption=True)
    assert found.classes == ("red spoon", "cup")
    assert found.class_id.tolist() == [0, 1, 0]
    assert found[1:].class_id.tolist() == [1, 0]
    assert [item.phrase_index for item in found] == [None] * 3


@pytest.mark.parametrize("masks", [True, False])
def test_supervision_takes_them(masks: bool) -> None:
    supervision = pytest.importorskip("supervision")
    found = answer(masks=masks)
    theirs = found.to_supervision()
    assert isinstance(theirs, supervision.Detections)
    assert len(theirs) == 3
    np.testing.assert_array_equal(theirs.xyxy, found.xyxy)
    assert theirs.data["class_name"].tolist() == found.phrases
    assert (theirs.mask is not None) == masks
    kept = theirs[theirs.confidence > 0.3].with_nms(threshold=0.5)
    assert kept.class_id.tolist() == [1, 0]
    assert len(answer([], masks).to_supervision()) == 0


def test_without_supervision_the_command_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(ImportError, match="pip install supervision"):
        answer().to_supervision()


def test_coco_annotations() -> None:
    first, second, third = answer().to_coco(image_id=7, first_annotation_id=20)
    assert [first["id"], second["id"], third["id"]] == [20, 21, 22]
    assert (first["image_id"], first["category_id"], second["category_id"]) == (7, 2, 1)
    assert (first["bbox"], first["area"], first["score"]) == ([10, 5, 20, 20], 380, 0.75)
    (box, *_) = answer(masks=False).to_coco()
    assert (box["id"], box["area"], "segmentation" in box) == (1, 400, False)


@pytest.mark.parametrize("kind", ["bbox", "segm"])
def test_a_data_set_scored_against_itself_is_perfect(kind: str, tmp_path: Path) -> None:
    """All ids start at 1: COCO's own scoring takes 0 for "no match"."""
    dataset = CocoDataset(PHRASES)
    # One object alone is lost in whole where ids start at 0.
    assert dataset.add("one.jpg", answer()[1:2]) == 1
    assert dataset.add("none.jpg", answer([])) == 2
    assert dataset.add("three.jpg", answer()) == 3
    path = tmp_path / "annotations.json"
    dataset.save(path)
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(path))
        results = truth.loadRes([dict(item) for item in dataset.as_dict()["annotations"]])
        scoring = COCOeval(truth, results, kind)
        scoring.evaluate()
        scoring.accumulate()
        scoring.summarize()
    assert scoring.stats[0] == pytest.approx(1)
    assert {item["name"] for item in truth.cats.values()} == set(PHRASES)
    assert min(truth.anns) == min(truth.imgs) == min(truth.cats) == 1
    for annotation in truth.anns.values():
        assert truth.annToMask(annotation).sum() == annotation["area"]


def test_a_data_set_is_of_one_list_of_classes() -> None:
    dataset = CocoDataset(["cup"])
    with pytest.raises(ValueError, match=r"photo.jpg have the classes \['cup', 'red spoon'\]"):
        dataset.add("photo.jpg", answer())
    with pytest.raises(ValueError, match="have the classes"):
        CocoDataset(PHRASES).add("photo.jpg", answer(caption=True))


def test_yolo_lines() -> None:
    line = answer().to_yolo().splitlines()[0]
    assert [float(value) for value in line.split()] == pytest.approx(
        [1, 20 / WIDTH, 15 / HEIGHT, 20 / WIDTH, 20 / HEIGHT], abs=1e-6
    )


def test_a_picture_of_them(tmp_path: Path) -> None:
    grey = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
    path = tmp_path / "turned.png"
    turned = Image.fromarray(grey).transpose(Image.Transpose.ROTATE_90)
    turned.getexif()[0x0112] = 6
    turned.save(path, exif=turned.getexif())
    drawn = [np.asarray(answer().plot(image)) for image in (grey, Image.fromarray(grey), path, str(path))]
    assert drawn[0].shape == grey.shape
    assert (drawn[0] != 90).any()
    for other in drawn[1:]:
        np.testing.assert_array_equal(other, drawn[0])
    assert (np.asarray(answer(masks=False).plot(grey)) != drawn[0]).any()


def test_a_picture_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match="60x41 pixels, and that of the objects is 60x40"):
        answer().plot(Image.new("RGB", (60, 41)))


def test_masks_are_masks() -> None:
    mask = answer()[0].mask
    assert isinstance(mask, Mask)
    assert mask.box.tolist() == [10, 5, 29, 25]
