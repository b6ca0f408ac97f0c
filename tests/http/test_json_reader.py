"""JSON to messages: the same as protobuf's own reader, where that is strict."""

import json
from typing import Any

import pytest
from google.protobuf import json_format
from google.protobuf.message import Message
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.errors import InvalidArgumentError
from gateway.http.json_reader import read_message
from gateway.http.json_text import parse
from gateway.http.json_writer import pieces_of
from visiongate.v1 import (
    detection_service_pb2,
    embedding_service_pb2,
    gaze_service_pb2,
    segmentation_service_pb2,
)

# The stubs do not know that dicts become messages.
Detect: Any = detection_service_pb2.DetectObjectsRequest

Texts: Any = embedding_service_pb2.EmbedTextsRequest
Regions: Any = segmentation_service_pb2.SegmentRegionsRequest
Faces: Any = gaze_service_pb2.EstimateGazeRequest


async def read(kind: type[Message], text: str) -> Any:
    message = kind()
    await read_message(await parse(text.encode()), message)
    return message


REQUESTS = [
    Detect(
        image={"encoded": b"\x00\xff" * 1000},
        query={"phrases": {"values": ["truck", "ü\n"]}, "min_score": 0.25, "max_detections": 7},
        model="x",
        include_timings=True,
    ),
    Detect(image={"image_id": "abc"}, query={"caption": "a" * 3000}),
    Texts(texts=["a", ""], normalize=False, embedding_format=3),
    Regions(
        image={"raw": {"data": b"123456", "width": 2, "height": 1}},
        prompts=[
            {"points": [{"point": {"x": 1.5, "y": -0.0}, "label": 2}], "box": {"x_max": 1e-30}},
            {"mask_logits": {"data": b"1" * 5000, "width": 4294967295, "format": 2}},
        ],
    ),
    Faces(image={"uri": "https://x"}, boxes={"boxes": []}),
]


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda each: each.DESCRIPTOR.name)
@pytest.mark.parametrize("keeps_names", [True, False])
async def test_it_reads_what_protobuf_writes(request_: Message, keeps_names: bool) -> None:
    text = json_format.MessageToJson(request_, preserving_proto_field_name=keeps_names)
    assert await read(type(request_), text) == request_


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda each: each.DESCRIPTOR.name)
async def test_it_reads_what_is_written_here(request_: Message) -> None:
    assert await read(type(request_), b"".join(pieces_of(request_)).decode()) == request_


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[]", "request: must be an object, and is a list"),
        ("null", "request: must be an object, and is null"),
        ('{"images": 1}', "images: is not a field; there are image, query, model, include_timings"),
        ('{"query": {"min_Score": 1}}', "query.min_Score: is not a field"),
        ('{"query": {"min_score": "0.5"}}', "query.min_score: must be a number, and is a string"),
        ('{"query": {"min_score": true}}', "query.min_score: must be a number, and is true or false"),
        ('{"query": {"min_score": 1e39}}', "query.min_score: is too large"),
        ('{"query": {"min_score": 1e999}}', "query.min_score: is too large"),
        ('{"query": {"max_detections": -1}}', "query.max_detections: must be 0 to 4294967295"),
        ('{"query": {"max_detections": 1.5}}', "query.max_detections: must be an integer"),
        ('{"query": {"max_detections": 4294967296}}', "query.max_detections: must be 0 to 4294967295"),
        ('{"query": {"max_detections": 1e400}}', "query.max_detections: must be"),
        ('{"query": {"phrases": ["a"]}}', "query.phrases: must be an object, and is a list"),
        ('{"query": {"phrases": {"values": "a"}}}', "query.phrases.values: must be a list, and is a string"),
        ('{"query": {"phrases": {"values": ["a", 1]}}}', r"query.phrases.values\[1\]: must be a string"),
        ('{"query": {"phrases": {}, "caption": "a"}}', "query.caption: is one too many: only one of"),
        ('{"query": {"maxDetections": 1, "max_detections": 1}}', "query.max_detections: is there twice"),
        ('{"image": {"encoded": "*"}}', "image.encoded: is not base64"),
        ('{"image": {"encoded": 1}}', "image.encoded: must be a base64 string"),
        ('{"model": null}', "model: must be a string, and is null: leave the field out instead"),
        ('{"model": "\\ud800"}', "model: has half a character"),
        ('{"include_timings": "true"}', "include_timings: must be true or false, and is a string"),
    ],
)
async def test_what_is_wrong_is_named(text: str, says: str) -> None:
    with pytest.raises(InvalidArgumentError, match=f"^{says}"):
        await read(Detect, text)


async def test_enums_are_names() -> None:
    kind = Texts
    with pytest.raises(
        InvalidArgumentError, match="embedding_format: must be one of EMBEDDING_FORMAT_UNSPEC"
    ):
        await read(kind, '{"embedding_format": 1}')
    read_one = await read(kind, '{"embedding_format": "EMBEDDING_FORMAT_FLOAT16"}')
    assert read_one.embedding_format == embedding_service_pb2.EMBEDDING_FORMAT_FLOAT16


junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["image", "query", "encoded", "phrases", "values", "caption", "min_score", "model", "raw"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=10,
)


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.sampled_from(["image", "query", "model", "includeTimings"]), junk))
async def test_junk_is_refused_or_read_as_protobuf_does(tree: Any) -> None:
    try:
        message = await read(Detect, json.dumps(tree))
    except InvalidArgumentError:
        return
    assert message == json_format.ParseDict(tree, Detect())
