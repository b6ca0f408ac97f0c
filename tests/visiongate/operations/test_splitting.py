"""Lists that are too large for one message go in several, in order, with all that belongs to each."""

from typing import Any

import numpy as np
import pytest

from client_operations import OPERATIONS
from visiongate import Text
from visiongate.operations import Operation, embedding, splitting, text
from visiongate.v1 import embedding_service_pb2, image_pb2, timings_pb2

MEBIBYTE = 1 << 20


def requests(operation: Operation[Any]) -> list[Any]:
    return [operation.request, *operation.more]


def embedded(*values: float) -> embedding_service_pb2.EmbedImagesResult:
    packed = np.array(values, "<f4").tobytes()
    return embedding_service_pb2.EmbedImagesResult(embedding=embedding_service_pb2.Embedding(packed=packed))


def test_a_short_list_is_one_request() -> None:
    assert embedding.embed_images([b"a", b"b"]).more == ()
    assert len(requests(embedding.embed_images([b"a"] * 64))) == 1


@pytest.mark.parametrize(
    ("operation", "field", "most", "count"),
    [
        (embedding.embed_images([b"%d" % index for index in range(130)]), "images", 64, 130),
        (embedding.classify([b"%d" % index for index in range(130)], ["a"]), "images", 64, 130),
        (text.recognize_text([b"%d" % index for index in range(130)]), "images", 32, 130),
        (embedding.embed_texts([str(index) for index in range(2050)]), "texts", 1024, 2050),
        (
            embedding.compare(Text("x"), [Text(str(index)) for index in range(2050)]),
            "candidates",
            1024,
            2050,
        ),
        (embedding.compare(Text("x"), [b"%d" % index for index in range(130)]), "candidates", 64, 130),
    ],
)
def test_no_request_has_more_items_than_the_server_takes(
    operation: Operation[Any], field: str, most: int, count: int
) -> None:
    sent = [list(getattr(request, field)) for request in requests(operation)]
    assert [len(items) for items in sent] == [most] * (count // most) + [count % most]

    def number(item: Any) -> int:
        if isinstance(item, image_pb2.Image):
            return int(item.encoded)
        if isinstance(item, embedding_service_pb2.ImageOrText):
            return int(item.text or item.image.encoded)
        return int(item)

    assert [number(item) for items in sent for item in items] == list(range(count))


def test_images_and_texts_share_the_room() -> None:
    mixed: list[Any] = [item for index in range(60) for item in (b"image", *[Text(str(index))] * 30)]
    for request in requests(embedding.compare(Text("x"), mixed)):
        images = sum(item.HasField("image") for item in request.candidates)
        assert images <= 64
        assert len(request.candidates) - images <= 1024


@pytest.mark.parametrize("kind", ["embed_images", "classify", "recognize_text", "compare"])
def test_no_request_has_more_bytes_than_the_server_takes(kind: str) -> None:
    photos: list[Any] = [bytes([index]) * (4 * MEBIBYTE) for index in range(18)]
    arguments: dict[str, list[Any]] = {
        "embed_images": [photos],
        "classify": [photos, ["cat"] * 1000],
        "recognize_text": [photos],
        "compare": [bytes(12 * MEBIBYTE), photos],
    }
    sent = requests(OPERATIONS[kind](*arguments[kind]))
    assert len(sent) == (4 if kind == "compare" else 3)
    assert max(request.ByteSize() for request in sent) <= splitting.MAX_BYTES
    # Nothing that belongs to all of them is lost on the way.
    for request in sent:
        assert request.include_timings
        if kind == "compare":
            assert len(request.subject.image.encoded) == 12 * MEBIBYTE
        if kind == "classify":
            assert len(request.labels) == 1000


@pytest.mark.parametrize("length", [300, 3_000, 30_000])
def test_long_texts_are_fewer_in_a_request(length: int) -> None:
    texts = ["é" * (length // 2)] * 1500
    for operation in (
        embedding.embed_texts(texts),
        embedding.compare(Text("x"), [*map(Text, texts)]),
    ):
        sent = requests(operation)
        assert max(request.ByteSize() for request in sent) < 512 << 10
        assert len(sent) <= 1 + 1500 * max(1 / 1024, length / (350 << 10))


def test_what_is_too_large_alone_goes_alone() -> None:
    """The client, or the server, says so then."""
    sent = requests(embedding.embed_images([b"a", bytes(36 * MEBIBYTE), b"b"]))
    assert [len(request.images) for request in sent] == [1, 1, 1]


def test_nothing_is_one_request() -> None:
    (request,) = requests(embedding.embed_images([]))
    assert len(request.images) == 0


def test_merged_answers_add_their_timings_up() -> None:
    operation = embedding.embed_images([b"a"] * 65)
    responses = [
        embedding_service_pb2.EmbedImagesResponse(
            results=[embedded(value, 1)],
            model="m",
            dimensions=2,
            timings=timings_pb2.Timings(decode_ms=value, inference_ms=10 * value),
        )
        for value in (1, 2, 4)
    ]
    merged, *others = responses
    for other in others:
        operation.merge(merged, other)
    found = operation.parse(merged, "call")
    assert found.tolist() == [[1, 1], [2, 1], [4, 1]]
    assert found.info.timings is not None
    assert (found.info.timings.decode_ms, found.info.timings.inference_ms) == (7, 70)
    assert found.info.timings.preprocess_ms == 0
    assert (found.info.model, found.info.request_id) == ("m", "call")
