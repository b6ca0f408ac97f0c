"""The names by which proxies send calls about one image to one server."""

import hashlib
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message

from client_server import Served, serving
from visiongate import AsyncClient, Client, ImageHandle, ImageId, Text
from visiongate.affinity import image_name
from visiongate.operations import Operation, embedding, models, segmentation, text
from visiongate.v1 import text_service_pb2

A, B = b"\xff\xd8 one file", b"\xff\xd8 another file"
NAME_OF_A, NAME_OF_B = (hashlib.sha256(file).hexdigest() for file in (A, B))
KEPT = ImageHandle(ImageId(NAME_OF_A + "the caller's own"), 4, 3)
Asked = tuple[Served, list[str | bytes]]
RECOGNIZE = "/visiongate.v1.TextService/RecognizeText"


@pytest.mark.parametrize(
    ("operation", "name"),
    [
        (segmentation.encode_image(A), NAME_OF_A),
        (segmentation.encode_image(KEPT), NAME_OF_A),
        (segmentation.segment(KEPT, boxes=[[0, 0, 1, 1]]), NAME_OF_A),
        (text.recognize_text([B, A]), NAME_OF_B),
        (embedding.compare(A, [Text("a circle"), B]), NAME_OF_A),
        (embedding.compare(Text("a circle"), [Text("a square"), B]), NAME_OF_B),
        (embedding.embed_texts(["a circle"]), ""),
        (segmentation.encode_image("https://example.com/photo.jpg"), ""),
        (models.list_models(), ""),
    ],
)
def test_a_request_has_the_name_of_its_first_image(operation: Operation[Any], name: str) -> None:
    assert image_name(operation.request) == name


@pytest.fixture
def server() -> Iterator[Asked]:
    """A server that reads no text, and the names that its calls brought."""
    names: list[str | bytes] = []

    def answer(request: Any, context: grpc.ServicerContext) -> Message:
        names.append(dict(context.invocation_metadata()).get("x-image-id", ""))
        results = [text_service_pb2.RecognizeTextResult(page=text_service_pb2.Page()) for _ in request.images]
        return text_service_pb2.RecognizeTextResponse(results=results)

    with serving(answers={RECOGNIZE: answer}) as served:
        yield served, names


async def test_each_message_of_a_call_is_sent_with_its_own_name(server: Asked) -> None:
    served, names = server
    pages = [A] * 32 + [B]  # more than one message may have
    with Client(served.address) as client:
        client.recognize_text(pages)
    async with AsyncClient(served.address) as client:
        await client.recognize_text(pages)
    assert names == [NAME_OF_A, NAME_OF_B] * 2


def test_a_callers_own_name_counts(server: Asked) -> None:
    served, names = server
    with Client(served.address) as client:
        client.with_options(metadata={"x-image-id": "mine"}).recognize_text([A])
    assert names == ["mine"]
