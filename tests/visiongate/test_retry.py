"""Calls to a server that refuses some, and says when to come again."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
import pytest

from gateway.errors import OverloadedError, StatusError, TritonUnavailableError
from visiongate import AsyncClient, Client, VisiongateError
from visiongate.v1 import model_service_pb2

Refusal = Callable[[], StatusError]


def full() -> StatusError:
    return OverloadedError("full", retry_s=0.01)


def full_for_long() -> StatusError:
    return OverloadedError("full", retry_s=100)


@contextmanager
def serving(*refusals: Refusal) -> Iterator[tuple[str, list[float]]]:
    """A server that says these to its first calls, and its address, and what each call had for a deadline."""
    left = list(refusals)
    deadlines: list[float] = []

    def list_models(request: Any, context: grpc.ServicerContext) -> Any:
        deadlines.append(context.time_remaining())
        if left:
            context.abort_with_status(left.pop(0)().to_status("request"))
        return model_service_pb2.ListModelsResponse()

    server = grpc.server(ThreadPoolExecutor(4))
    handler = grpc.unary_unary_rpc_method_handler(
        list_models,
        model_service_pb2.ListModelsRequest.FromString,
        model_service_pb2.ListModelsResponse.SerializeToString,
    )
    name = model_service_pb2.DESCRIPTOR.services_by_name["ModelService"].full_name
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(name, {"ListModels": handler})])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}", deadlines
    finally:
        server.stop(None).wait()


def ask(address: str, **options: Any) -> None:
    with Client(address, **options) as client:
        assert client.list_models() == []


async def ask_async(address: str, **options: Any) -> None:
    async with AsyncClient(address, **options) as client:
        assert await client.list_models() == []


async def test_a_full_server_is_asked_again_within_the_calls_time() -> None:
    with serving(*[full] * 4) as (address, deadlines):
        ask(address, timeout=5)
        assert len(deadlines) == 5
    with serving(*[full] * 4) as (address, deadlines):
        await ask_async(address, timeout=5)
        assert len(deadlines) == 5
        # After pauses of 10, 20, 40 and 80 ms. gRPC rounds deadlines up, longer ones to a tenth and more.
        assert deadlines[-1] < deadlines[0] - 0.12


@pytest.mark.parametrize(
    ("refusal", "options"),
    [
        (full, {"wait_when_full": False}),
        (full_for_long, {"timeout": 5}),
        (lambda: TritonUnavailableError("gone"), {}),
    ],
)
async def test_what_cannot_help_is_not_tried(refusal: Refusal, options: dict[str, Any]) -> None:
    start = time.monotonic()
    with serving(refusal, refusal) as (address, deadlines):
        with pytest.raises(VisiongateError) as caught:
            ask(address, **options)
        assert caught.value.code is refusal().code
        assert caught.value.__suppress_context__
        with pytest.raises(VisiongateError):
            await ask_async(address, **options)
        assert len(deadlines) == 2
    assert time.monotonic() - start < 5
