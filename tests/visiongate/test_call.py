"""Calls to a server that is full, away or not yet there."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

import client_server
import visiongate
from client_server import Behaviour, serving
from gateway.errors import InvalidArgumentError, OverloadedError, StatusError, TritonUnavailableError
from visiongate import AsyncClient, Client, VisiongateError
from visiongate.operations import Operation, segmentation
from visiongate.v1 import model_service_pb2, text_service_pb2

DETAILS = "grpc-status-details-bin"


def refusing(error: StatusError) -> Behaviour:
    return lambda context: context.abort_with_status(error.to_status("request"))


def hanging_up(context: grpc.ServicerContext) -> None:
    context.abort(grpc.StatusCode.UNAVAILABLE, "a proxy's words")


def dropping(context: grpc.ServicerContext) -> None:
    context.abort(grpc.StatusCode.CANCELLED, "")


def triton_is_full(context: grpc.ServicerContext) -> None:
    context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "model clip_image is full")


FULL = refusing(OverloadedError("full", "calls", retry_s=0.01))
FULL_FOR_LONG = refusing(OverloadedError("full", "calls", retry_s=100))
TRITON_GONE = refusing(TritonUnavailableError("gone"))


def ask(address: str, **options: Any) -> None:
    with Client(address, **options) as client:
        assert len(client.list_models()) == 1


async def ask_async(address: str, **options: Any) -> None:
    async with AsyncClient(address, **options) as client:
        assert len(await client.list_models()) == 1


@pytest.mark.parametrize("refusal", [FULL, TRITON_GONE, hanging_up, dropping, triton_is_full])
async def test_what_waiting_mends_is_asked_again(refusal: Behaviour) -> None:
    for timeout in (30, None):
        with serving(refusal, refusal) as server:
            ask(server.address, timeout=timeout)
            assert len(server.requests) == 3
    with serving(refusal, refusal) as server:
        await ask_async(server.address, timeout=30)
        assert len(server.requests) == 3
        # It is one call: under one name, and within one timeout.
        assert len({metadata["x-request-id"] for metadata in server.metadata}) == 1


async def test_all_attempts_share_the_calls_time() -> None:
    with serving(*[FULL] * 5) as server:
        await ask_async(server.address, timeout=5)
    # After pauses of at least 10, 20, 40, 80 and 160 ms times a half. gRPC rounds deadlines up.
    assert server.deadlines[-1] < server.deadlines[0] - 0.1


@pytest.mark.parametrize(
    ("refusal", "options"),
    [
        (FULL, {"wait": False}),
        (TRITON_GONE, {"wait": False}),
        (FULL_FOR_LONG, {"timeout": 5}),
        (refusing(StatusError(grpc.StatusCode.INTERNAL, "broken")), {}),
        (refusing(StatusError(grpc.StatusCode.DEADLINE_EXCEEDED, "late")), {}),
    ],
)
async def test_what_cannot_help_is_not_tried(refusal: Behaviour, options: dict[str, Any]) -> None:
    with serving(refusal, refusal) as server:
        with pytest.raises(VisiongateError):
            ask(server.address, **options)
        with pytest.raises(VisiongateError):
            await ask_async(server.address, **options)
        assert len(server.requests) == 2


async def test_a_server_that_never_answered_is_given_up_though_there_is_time() -> None:
    with pytest.raises(visiongate.UnavailableError, match=r"nothing answers at 127\.0\.0\.1:9: start"):
        ask("127.0.0.1:9", timeout=None)
    with pytest.raises(visiongate.UnavailableError, match=r"nothing answers at 127\.0\.0\.1:9: start"):
        await ask_async("127.0.0.1:9", timeout=None)


@contextmanager
def process(port: int = 0) -> Iterator[int]:
    """A server in a process of its own, which is killed; its port."""
    command = [sys.executable, client_server.__file__, str(port)]
    proto = Path(visiongate.__file__).parents[1]
    environment = os.environ | {"PYTHONPATH": str(proto)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as running:
        try:
            assert running.stdout is not None
            yield int(running.stdout.readline())
        finally:
            running.kill()


async def test_a_server_that_is_killed_and_started_again_is_waited_for() -> None:
    with process() as port:
        client = Client(f"127.0.0.1:{port}", timeout=60)
        asynchronous = AsyncClient(f"127.0.0.1:{port}", timeout=60)
        assert client.list_models()
        assert await asynchronous.list_models()
    # Who does not want to wait hears of it, and of its own timeout.
    for impatient in (client.with_options(wait=False), asynchronous.with_options(timeout=0.5)):
        with pytest.raises(visiongate.UnavailableError, match=r"nothing answers|cannot answer"):
            await answer(impatient)
    calls = [
        asyncio.create_task(asyncio.to_thread(client.list_models)),
        asyncio.create_task(asynchronous.list_models()),
    ]
    # Longer than a server that never answered would be waited for.
    await asyncio.sleep(3)
    assert not any(call.done() for call in calls)
    with process(port):
        assert all(await asyncio.gather(*calls))
    client.close()
    await asynchronous.close()


async def answer(client: Any) -> Any:
    result = client.list_models()
    return await result if isinstance(client, AsyncClient) else result


def several(*tasks: int) -> Operation[tuple[list[str], str]]:
    """An operation of as many requests, each with a field that the model service does not know."""
    requests = [model_service_pb2.ListModelsRequest.FromString(bytes([8, task])) for task in tasks]
    return Operation(
        client_server.NAME,
        requests[0],
        model_service_pb2.ListModelsResponse,
        lambda response, request_id: ([model.variant for model in response.models], request_id),
        more=tuple(requests[1:]),
    )


def naming(context: grpc.ServicerContext) -> None:
    context.set_trailing_metadata((("x-request-id", "the server's"),))


async def test_several_requests_are_one_call() -> None:
    with serving(naming, FULL, naming, FULL, naming) as server:
        with Client(server.address, timeout=30) as client:
            models, request_id = client.call(several(1, 2, 3))
        assert models == ["answer 1", "answer 3", "answer 5"]
        assert request_id == "the server's"
        sent = [request.SerializeToString()[1] for request in server.requests]
        assert sent == [1, 2, 2, 3, 3]
        assert len({metadata["x-request-id"] for metadata in server.metadata}) == 1
    with serving(naming) as server:
        async with AsyncClient(server.address) as asynchronous:
            models, _ = await asynchronous.call(several(1, 2))
        assert models == ["answer 1", "answer 2"]


def reading(request: Any, context: grpc.ServicerContext) -> text_service_pb2.RecognizeTextResponse:
    """Read pages: the text of each is its file. One that is "bad" is an error."""
    response = text_service_pb2.RecognizeTextResponse(model="m")
    for index, image in enumerate(request.images):
        if image.encoded != b"bad":
            response.results.add().page.text = image.encoded.decode()
            continue
        error = InvalidArgumentError(f"images[{index}].encoded", "is no image")
        if request.strict:
            context.abort_with_status(error.to_status("server's id"))
        response.results.add().error.ParseFromString(dict(error.to_status("id").trailing_metadata)[DETAILS])
    return response


async def test_items_of_several_requests_fail_by_their_index_in_the_whole_list() -> None:
    files = [b"%d" % index for index in range(40)]
    files[1] = files[35] = b"bad"
    with serving(answers={"/visiongate.v1.TextService/RecognizeText": reading}) as server:
        with Client(server.address) as client:
            pages = client.recognize_text(files, strict=False)
            with pytest.raises(visiongate.InvalidArgumentError) as first:
                client.recognize_text(files)
            with pytest.raises(visiongate.InvalidArgumentError) as later:
                client.recognize_text(files[2:])
        async with AsyncClient(server.address) as asynchronous:
            same = await asynchronous.recognize_text(files, strict=False)
    assert [page.text for page in pages] == [
        "" if index in (1, 35) else str(index) for index in range(len(files))
    ]
    for answer in (pages, same):
        assert [(index, error.field) for index, error in answer.errors.items()] == [
            (1, "images[1].encoded"),
            (35, "images[35].encoded"),
        ]
        assert answer.errors[35].message == "images[35].encoded: is no image"
        assert type(answer.errors[35]) is visiongate.InvalidArgumentError
    assert (first.value.field, later.value.field) == ("images[1].encoded", "images[33].encoded")
    assert later.value.message == "images[33].encoded: is no image"


async def test_a_request_that_is_too_large_is_not_sent() -> None:
    large = segmentation.encode_image(bytes(3 * 2**20))
    with serving() as server:
        with Client(server.address, max_message_bytes=2**20) as client:
            with pytest.raises(visiongate.MessageTooLargeError) as caught:
                client.call(large)
            assert client.list_models()
        async with AsyncClient(server.address, max_message_bytes=2**20) as asynchronous:
            with pytest.raises(visiongate.MessageTooLargeError):
                await asynchronous.call(large)
        assert len(server.requests) == 1
    assert caught.value.message == (
        "the request has 3.0 MiB, and the limit is 1.0 MiB: send a file instead of an array, a smaller "
        "image or fewer images a call, or raise max_message_bytes of client and server"
    )
    assert caught.value.code is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_a_server_with_a_lower_limit_says_the_same() -> None:
    limit = (("grpc.max_receive_message_length", 100),)
    with serving(options=limit) as server:
        large = several(1)
        large.request.MergeFromString(b"\x12\x7f" + bytes(127))
        with Client(server.address) as client, pytest.raises(visiongate.MessageTooLargeError) as caught:
            client.call(large)
    assert caught.value.message.startswith(
        "the request has 131 bytes, and the limit is 100 bytes: send a file"
    )
