"""Forms to messages."""

from collections.abc import AsyncIterator, Sequence
from typing import Any

import httpx
import pytest
from google.protobuf.message import Message

from gateway.errors import InvalidArgumentError
from gateway.http import api, forms
from gateway.http.forms import form_fields, read_form, shortest_names
from gateway.message_structure import MAX_STRUCTURE_BYTES
from gateway.services.registry import SERVICES
from visiongate.v1 import (
    detection_service_pb2,
    embedding_service_pb2,
    gaze_service_pb2,
    segmentation_service_pb2,
)

# The stubs do not know that dicts become messages.
Detect: Any = detection_service_pb2.DetectObjectsRequest
Compare: Any = embedding_service_pb2.CompareImagesAndTextsRequest
Field = tuple[str, Any]


def form(fields: Sequence[Field]) -> tuple[bytes, str]:
    """Return a form as httpx writes it, and its content type. Bytes are files."""
    files = [
        (name, ("photo.jpg", value) if isinstance(value, bytes) else (None, value)) for name, value in fields
    ]
    request = httpx.Request("POST", "http://x", files=files)
    return request.read(), request.headers["content-type"]


async def read(kind: type[Message], fields: Sequence[Field], chunk: int = 1 << 16) -> Any:
    body, content_type = form(fields)
    return await read_body(kind, body, content_type, chunk)


async def read_body(kind: type[Message], body: bytes, content_type: str, chunk: int = 1 << 16) -> Any:
    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(body), chunk):
            yield body[start : start + chunk]

    message = kind()
    await read_form(chunks(), content_type, message)
    return message


@pytest.mark.parametrize("chunk", [1, 7, 1 << 16])
async def test_files_lists_and_short_names(chunk: int) -> None:
    fields = [
        ("image", bytes(range(256)) + b"\r\n--\r\n"),
        ("phrases", "truck"),
        ("query.phrases", "front wheel, äö"),
        ("query.phrases.values", "c"),
        ("min_score", "0.25"),
        ("query.max_detections", "7"),
        ("include_timings", "true"),
    ]
    assert await read(Detect, fields, chunk) == Detect(
        image={"encoded": bytes(range(256)) + b"\r\n--\r\n"},
        query={
            "phrases": {"values": ["truck", "front wheel, äö", "c"]},
            "min_score": 0.25,
            "max_detections": 7,
        },
        include_timings=True,
    )


async def test_images_and_texts_take_turns() -> None:
    fields: list[Field] = [("candidates", "a"), ("candidates", b"B"), ("subject", b"S"), ("candidates", "c")]
    assert await read(Compare, fields) == Compare(
        subject={"image": {"encoded": b"S"}},
        candidates=[{"text": "a"}, {"image": {"encoded": b"B"}}, {"text": "c"}],
    )


async def test_messages_are_json() -> None:
    kind: Any = segmentation_service_pb2.SegmentRegionsRequest
    box = '{"box": {"x_min": 1, "y_min": 2, "x_max": 3, "y_max": 4}}'
    expected = kind(
        image={"image_id": "abc"}, prompts=[{"box": {"x_min": 1, "y_min": 2, "x_max": 3, "y_max": 4}}] * 2
    )
    assert await read(kind, [("image_id", "abc"), ("prompts", box), ("prompts", box)]) == expected
    assert await read(kind, [("image.image_id", "abc"), ("prompts", f"[{box},{box}]")]) == expected
    faces: Any = gaze_service_pb2.EstimateGazeRequest
    assert await read(faces, [("boxes", '{"x_max": 3}')]) == faces(boxes={"boxes": [{"x_max": 3}]})


def test_every_field_has_a_name() -> None:
    """The last name of a path is enough unless two fields have it."""
    for operation in api.operations(each.file for each in SERVICES):
        kind = operation.method.input_type
        assert {path[0] for path in form_fields(kind).values()} == set(kind.fields)
        assert all("." not in name for name in shortest_names(kind)), kind.name


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        (
            [("images", b"x")],
            "images: is not a field; there are image, image_id, uri, phrases, caption, min_score",
        ),
        ([("image", "photo.jpg")], r"image: must be a file \(curl -F image=@photo.jpg\)"),
        ([("image", b"x"), ("image", b"y")], "image: is there twice"),
        ([("image", b"x"), ("image_id", "y")], "image_id: is one too many: only one of encoded and raw"),
        ([("image_id", "y"), ("image", b"x")], "image: is one too many"),
        ([("phrases", "a"), ("caption", "b")], "caption: is one too many: only one of phrases and caption"),
        ([("caption", "b"), ("phrases", "a")], "phrases: is one too many: only one of phrases and caption"),
        ([("caption", "b"), ("caption", "a")], "caption: is there twice"),
        ([("min_score", "a lot")], "min_score: must be a number, and is a string"),
        ([("min_score", "nan")], "min_score: is too large"),
        ([("max_detections", "1.5")], "max_detections: must be an integer"),
        ([("include_timings", "yes")], "include_timings: must be true or false"),
        ([("model", b"\xff")], "model: is not text in UTF-8"),
        ([("model", "x" * (600 << 10))], "request: has over 524288 bytes beside its files"),
        ([("phrases", "x")] * 5000, "request: has over 4096 parts"),
    ],
)
async def test_what_is_wrong_is_named(fields: list[Field], says: str) -> None:
    with pytest.raises(InvalidArgumentError, match=f"^{says}"):
        await read(Detect, fields)


@pytest.mark.parametrize(
    ("prompts", "says"),
    [
        ("{", "prompts: is not JSON"),
        ("1", r"prompts\[0\]: must be an object"),
        ('{"box": {"a": 1}}', r"prompts\[0\].box.a: is not a field"),
        ('[{}, {"points": 1}]', r"prompts\[1\].points: must be a list"),
    ],
)
async def test_what_is_wrong_in_json_is_named(prompts: str, says: str) -> None:
    with pytest.raises(InvalidArgumentError, match=f"^{says}"):
        await read(segmentation_service_pb2.SegmentRegionsRequest, [("prompts", prompts)])


async def test_a_file_that_nobody_chose_is_left_out() -> None:
    """So browsers send a form whose field of a file is empty."""
    body = b'--x\r\ncontent-disposition: form-data; name="image"; filename=""\r\n\r\n\r\n--x--\r\n'
    assert await read_body(Detect, body, "multipart/form-data; boundary=x") == Detect()


@pytest.mark.parametrize(
    ("body", "content_type", "says"),
    [
        (b"--x--\r\n", "multipart/form-data", "content-type: has no boundary"),
        (
            b"--x--\r\n",
            "multipart/form-data; boundary=" + "x" * 71,
            "content-type: has no boundary, or one of",
        ),
        (b"", "multipart/form-data; boundary=x", "request: is not a form"),
        (b"--y\r\n\r\n", "multipart/form-data; boundary=x", "request: is not a form"),
        (
            b'--x\r\ncontent-disposition: form-data; name="image"; filename="a"\r\n\r\nabc',
            "multipart/form-data; boundary=x",
            "request: is not a form, or only a part of one",
        ),
        (
            b"--x\r\ncontent-type: image/png\r\n\r\nabc\r\n--x--\r\n",
            "multipart/form-data; boundary=x",
            "request: has a part without content-disposition",
        ),
        (
            b'--x\r\ncontent-disposition: form-data; name="image"; filename="a"\r\n'
            b"content-transfer-encoding: base64\r\n\r\nYWJj\r\n--x--\r\n",
            "multipart/form-data; boundary=x",
            "request: has a part with a content-transfer-encoding",
        ),
        (
            b'--x\r\ncontent-disposition: form-data; name="model"\r\n'
            b'Content-Disposition: form-data; name="image"\r\n\r\nabc\r\n--x--\r\n',
            "multipart/form-data; boundary=x",
            "request: has a part with two headers of one name",
        ),
        (
            b"--x\r\ncontent-disposition: form-data; "
            + b"a=b; " * 300
            + b'name="model"\r\n\r\nabc\r\n--x--\r\n',
            "multipart/form-data; boundary=x",
            "request: is not a form",
        ),
        (
            b'--x\r\ncontent-disposition: form-data; name="model"; filename="a"\r\n\r\n'
            + b"a" * (MAX_STRUCTURE_BYTES + 1)
            + b"\r\n--x--\r\n",
            "multipart/form-data; boundary=x",
            f"model: has over {MAX_STRUCTURE_BYTES} bytes, the limit",
        ),
        (
            b"--x\r\n" + b"".join(b"a%d: b\r\n" % number for number in range(1000)) + b"\r\n--x--\r\n",
            "multipart/form-data; boundary=x",
            "request: is not a form",
        ),
    ],
)
async def test_what_is_not_a_form(body: bytes, content_type: str, says: str) -> None:
    with pytest.raises(InvalidArgumentError, match=f"^{says}"):
        await read_body(Detect, body, content_type)


def test_images_are_known() -> None:
    assert [
        name for name, path in shortest_names(Compare.DESCRIPTOR).items() if forms.is_image(path[-1])
    ] == [
        "subject",
        "candidates",
    ]
