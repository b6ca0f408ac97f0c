"""What the client makes of pages, and how words are drawn."""

import json
from typing import Any

import numpy as np
from PIL import Image

from visiongate import draw
from visiongate.operations import text
from visiongate.v1 import geometry_pb2, image_pb2, text_service_pb2

CORNERS = [(10.0, 5.0), (50.0, 25.0), (45.0, 35.0), (5.0, 15.0)]


def response() -> text_service_pb2.RecognizeTextResponse:
    quadrilateral = text_service_pb2.Quadrilateral(corners=[geometry_pb2.Point(x=x, y=y) for x, y in CORNERS])
    word = text_service_pb2.Word(text='é"', confidence=0.5, quadrilateral=quadrilateral, detection_score=0.25)
    line = text_service_pb2.Line(words=[word, word])
    page = text_service_pb2.Page(
        blocks=[text_service_pb2.Block(lines=[line, line]), text_service_pb2.Block(lines=[line])],
        text="all of it",
        image=image_pb2.ImageInfo(width=60, height=40),
        rotation_degrees=90,
    )
    empty = text_service_pb2.Page(image=image_pb2.ImageInfo(width=6, height=4))
    return text_service_pb2.RecognizeTextResponse(
        results=[text_service_pb2.RecognizeTextResult(page=item) for item in (page, empty)]
    )


def test_pages_keep_their_structure() -> None:
    page, empty = text.recognize_text([b"file"]).parse(response(), "")
    assert [[len(line) for line in block] for block in page.blocks] == [[2, 2], [2]]
    assert len(list(page.words())) == 6
    word = page.blocks[1][0][0]
    assert (word.text, word.confidence, word.detection_score) == ('é"', 0.5, 0.25)
    assert word.quadrilateral.tolist() == [list(corner) for corner in CORNERS]
    assert word.box.tolist() == [5, 5, 50, 35]
    assert (page.text, page.width, page.height, page.rotation_degrees) == ("all of it", 60, 40, 90)
    assert empty.blocks == []
    assert list(empty.words()) == []


def test_pages_are_json() -> None:
    page, _ = text.recognize_text([b"file"]).parse(response(), "")
    read = json.loads(json.dumps(page.as_dict()))
    assert read["blocks"][0]["lines"][1]["words"][0]["text"] == 'é"'
    assert read["blocks"][0]["lines"][1]["words"][0]["quadrilateral"][2] == [45, 35]


def test_requests_say_what_was_asked() -> None:
    plain: Any = text.recognize_text([b"one", b"two"]).request
    assert [image.encoded for image in plain.images] == [b"one", b"two"]
    assert (plain.group_lines, plain.strict) == (True, True)
    assert {descriptor.name for descriptor, _ in plain.ListFields()} == {
        "images", "group_lines", "include_timings", "strict",
    }  # fmt: skip
    asked: Any = text.recognize_text(
        [b"one"],
        rotated_words=True,
        min_pixel_score=0,
        min_word_score=0.5,
        min_confidence=0.25,
        group_lines=False,
        group_blocks=True,
        reading_order="columns",
        detect_orientation=True,
        model="m",
        strict=False,
    ).request
    assert asked.reading_order == text_service_pb2.READING_ORDER_COLUMNS
    assert (asked.HasField("min_pixel_score"), asked.min_word_score, asked.group_lines) == (True, 0.5, False)
    assert {descriptor.name for descriptor, _ in asked.ListFields()} == {
        "images", "rotated_words", "min_pixel_score", "min_word_score", "min_confidence", "group_lines",
        "group_blocks", "reading_order", "detect_orientation", "model", "include_timings",
    }  # fmt: skip


def test_the_page_of_an_error_is_empty() -> None:
    message = response()
    message.results[1].error.code = 3
    answer = text.recognize_text([b"file"], strict=False).parse(message, "")
    assert list(answer.errors) == [1]
    assert [image and image.width for image in answer.info.images] == [60, None]
    page = answer[1]
    assert (page.blocks, page.text, page.width, page.height) == ([], "", 0, 0)


def test_a_polygon_is_an_outline() -> None:
    grey = Image.new("RGB", (60, 40), (90, 90, 90))
    drawn = np.asarray(draw.draw(grey, [draw.Item(0, polygon=np.array(CORNERS))])) != 90
    assert drawn[15, 30].any(), "on the upper edge"
    assert drawn[25, 25].any(), "on the lower edge"
    assert not drawn[20, 27].any(), "inside"
    assert not drawn[:4].any()
    assert not drawn[36:].any()
