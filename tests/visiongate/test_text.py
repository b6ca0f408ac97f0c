"""What the client makes of pages, and how words are drawn."""

import json

import numpy as np
from PIL import Image

from visiongate import draw, operations
from visiongate.v1 import image_pb2, text_service_pb2

CORNERS = [(10.0, 5.0), (50.0, 25.0), (45.0, 35.0), (5.0, 15.0)]


def response() -> text_service_pb2.RecognizeTextResponse:
    quadrilateral = text_service_pb2.Quadrilateral(corners=[image_pb2.Point(x=x, y=y) for x, y in CORNERS])
    word = text_service_pb2.Word(text='é"', confidence=0.5, quadrilateral=quadrilateral, detection_score=0.25)
    line = text_service_pb2.Line(words=[word, word])
    page = text_service_pb2.Page(
        blocks=[text_service_pb2.Block(lines=[line, line]), text_service_pb2.Block(lines=[line])],
        text="all of it",
        image=image_pb2.ImageInfo(width=60, height=40),
    )
    return text_service_pb2.RecognizeTextResponse(pages=[page, text_service_pb2.Page()])


def test_pages_keep_their_structure() -> None:
    page, empty = operations.recognize_text([b"file"]).parse(response(), "")
    assert [[len(line) for line in block] for block in page.blocks] == [[2, 2], [2]]
    assert len(list(page.words())) == 6
    word = page.blocks[1][0][0]
    assert (word.text, word.confidence, word.detection_score) == ('é"', 0.5, 0.25)
    assert word.quadrilateral.tolist() == [list(corner) for corner in CORNERS]
    assert word.box.tolist() == [5, 5, 50, 35]
    assert (page.text, page.width, page.height) == ("all of it", 60, 40)
    assert empty.blocks == []
    assert list(empty.words()) == []


def test_pages_are_json() -> None:
    page, _ = operations.recognize_text([b"file"]).parse(response(), "")
    read = json.loads(json.dumps(page.as_dict()))
    assert read["blocks"][0]["lines"][1]["words"][0]["text"] == 'é"'
    assert read["blocks"][0]["lines"][1]["words"][0]["quadrilateral"][2] == [45, 35]


def test_requests_say_only_what_was_asked() -> None:
    plain = operations.recognize_text([b"one", b"two"]).request
    assert isinstance(plain, text_service_pb2.RecognizeTextRequest)
    assert [image.encoded for image in plain.images] == [b"one", b"two"]
    assert {descriptor.name for descriptor, _ in plain.ListFields()} == {"images", "include_timings"}
    asked = operations.recognize_text(
        [b"one"], rotated=True, bin_threshold=0, box_threshold=0.5, blocks=True, model="m"
    ).request
    assert {descriptor.name for descriptor, _ in asked.ListFields()} == {
        "images", "rotated", "bin_threshold", "box_threshold", "group_blocks", "model", "include_timings",
    }  # fmt: skip


def test_a_polygon_is_an_outline() -> None:
    grey = Image.new("RGB", (60, 40), (90, 90, 90))
    drawn = np.asarray(draw.draw(grey, [draw.Item(0, polygon=np.array(CORNERS))])) != 90
    assert drawn[15, 30].any(), "on the upper edge"
    assert drawn[25, 25].any(), "on the lower edge"
    assert not drawn[20, 27].any(), "inside"
    assert not drawn[:4].any()
    assert not drawn[36:].any()
