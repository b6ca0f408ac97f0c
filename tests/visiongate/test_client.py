"""What callers see of the clients' methods, and what goes over the wire beside the request."""

import contextlib
import inspect
import io
from typing import Any, assert_type, get_args, get_type_hints

import pytest

import visiongate
from client_operations import OPERATIONS
from client_server import serving
from visiongate import (
    Answer,
    ArrayAnswer,
    AsyncClient,
    Client,
    Detections,
    Face,
    GridMask,
    ImageHandle,
    LabelScore,
    Mask,
    Model,
    Page,
)
from visiongate.connection import OPTIONS

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_every_operation_is_a_method_whose_help_is_true(kind: type[Any], name: str) -> None:
    operation, method = OPERATIONS[name], getattr(kind, name)
    signature = inspect.signature(method)
    itself, *parameters = signature.parameters.values()
    assert itself.name == "self"
    assert parameters == [*inspect.signature(operation).parameters.values()]
    (result,) = get_args(get_type_hints(operation)["return"])
    assert signature.return_annotation == method.__annotations__["return"] == result
    with contextlib.redirect_stdout(io.StringIO()) as shown:
        help(method)
    assert "Operation" not in shown.getvalue()
    assert inspect.getdoc(operation) in inspect.getdoc(method)  # type: ignore[operator]
    assert method.__qualname__ == f"{kind.__name__}.{name}"
    assert inspect.iscoroutinefunction(method) is (kind is AsyncClient)


def test_the_options_are_explained_once_for_both() -> None:
    for kind in (Client, AsyncClient):
        assert "VISIONGATE_API_KEY" in str(kind.__init__.__doc__)
        assert inspect.signature(kind) == inspect.signature(visiongate.Client)


async def ask(client: Client, asynchronous: AsyncClient) -> None:
    """Never called: mypy reads it as it reads a caller's program."""
    assert_type(client.list_models(), Answer[Model])
    assert_type(await asynchronous.list_models(), Answer[Model])
    assert_type(client.with_options(timeout=3), Client)
    assert_type(await asynchronous.with_options(timeout=None).list_models(), Answer[Model])
    assert_type(client.detect("photo.jpg"), Detections)
    assert_type(client.segment("photo.jpg"), Answer[list[Mask]])
    assert_type(client.segment_phrases("photo.jpg"), Detections)
    assert_type(client.segment_everything("photo.jpg"), Answer[GridMask])
    assert_type(client.encode_image("photo.jpg"), ImageHandle)
    assert_type(client.embed_images([]), ArrayAnswer)
    assert_type(client.embed_texts([]), ArrayAnswer)
    assert_type(client.compare("photo.jpg", []), ArrayAnswer)
    assert_type(client.classify([], []), Answer[list[LabelScore]])
    assert_type(client.estimate_gaze("photo.jpg"), Answer[Face])
    assert_type(await asynchronous.recognize_text([]), Answer[Page])
    client.detect("photo.jpg", phrases=7)  # type: ignore[arg-type]
    client.detect("photo.jpg", unknown=1)  # type: ignore[call-arg]


async def test_options_of_single_calls_are_sent() -> None:
    with serving() as server:
        client = Client(server.address, timeout=40, api_key="vg_key")
        client.with_options(
            timeout=9, request_id="one", traceparent=TRACE, metadata={"tenant": "a", "blob-bin": b"\0\1"}
        ).list_models()
        client.list_models()
        client.close()
        async with AsyncClient(server.address, timeout=None) as asynchronous:
            await asynchronous.with_options(timeout=9, request_id="two", traceparent=TRACE).list_models()
            await asynchronous.list_models()
    sent = server.metadata
    assert [metadata["x-request-id"] for metadata in sent[::2]] == ["one", "two"]
    assert [metadata.get("traceparent") for metadata in sent] == [TRACE, None, TRACE, None]
    assert (sent[0]["tenant"], sent[0]["blob-bin"]) == ("a", b"\0\1")
    assert [metadata.get("authorization") for metadata in sent] == ["Bearer vg_key"] * 2 + [None] * 2
    # Calls without a name of their own get one each.
    assert len({metadata["x-request-id"] for metadata in sent}) == 4
    first, second, third, fourth = server.deadlines
    assert first < 10 < second < 41
    assert third < 10
    # gRPC's own way to say that there is none.
    assert fourth is None or fourth > 1e9


def test_a_view_shares_the_connection() -> None:
    with serving() as server, Client(server.address) as client:
        assert client.with_options(timeout=9)._channels is client._channels
        assert client.with_options(timeout=9).list_models()


def test_grpc_looks_for_a_lost_server_about_every_second() -> None:
    options = dict(OPTIONS)
    assert int(options["grpc.max_reconnect_backoff_ms"]) <= 1000
    assert int(options["grpc.dns_min_time_between_resolutions_ms"]) <= 1000
