"""The clients: one for plain code, one for asyncio.

    with visiongate.Client() as client:
        for found in client.detect("truck.jpg", ["truck", "wheel"]):
            print(found.phrase, found.score, found.box)

    client = visiongate.Client("vision.example.com:443", tls=True, api_key=os.environ["KEY"], timeout=10)

Every method raises a kind of `VisiongateError` where the server refuses the call or cannot be reached, and
ValueError or TypeError for an argument that cannot be meant.
"""

import asyncio
import functools
import inspect
import time
import typing
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

import grpc
import grpc.aio

from visiongate import operations
from visiongate.base_client import BaseClient
from visiongate.channels import AsyncChannels, SyncChannels, closed_error
from visiongate.operations import Operation

P = ParamSpec("P")
R = TypeVar("R")


def _sync(operation: Callable[P, Operation[R]]) -> "Callable[Concatenate[Client, P], R]":
    @functools.wraps(operation)
    def method(self: "Client", /, *arguments: P.args, **keywords: P.kwargs) -> R:
        return self.call(operation(*arguments, **keywords))

    _describe(method, operation, "Client")
    return method


def _async(
    operation: Callable[P, Operation[R]],
) -> "Callable[Concatenate[AsyncClient, P], Coroutine[Any, Any, R]]":
    @functools.wraps(operation)
    async def method(self: "AsyncClient", /, *arguments: P.args, **keywords: P.kwargs) -> R:
        return await self.call(operation(*arguments, **keywords))

    _describe(method, operation, "AsyncClient")
    return method


def _describe(method: Any, operation: Callable[..., Any], owner: str) -> None:
    """Makes `help` show what the method returns, which is not the operation."""
    signature = inspect.signature(operation)
    (result,) = typing.get_args(typing.get_type_hints(operation)["return"])
    itself = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
    method.__signature__ = inspect.Signature(
        [itself, *signature.parameters.values()], return_annotation=result
    )
    method.__annotations__ = {**operation.__annotations__, "return": result}
    method.__qualname__ = f"{owner}.{operation.__name__}"
    method.__module__ = __name__


class Client(BaseClient[SyncChannels]):
    """A connection to a visiongate server; safe to share between threads, and to use after a fork.

    A process that is forked makes a connection of its own at its first call.
    """

    _channels_type = SyncChannels

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the connection and the calls under way. May be done again."""
        self._channels.close()

    def call(self, operation: Operation[R]) -> R:
        """Send an operation of `visiongate.operations` and read its answer."""
        call = self._begin(operation)
        for request in call.requests:
            while True:
                method = self._channels.get().unary_unary(
                    operation.method,
                    request_serializer=type(request).SerializeToString,
                    response_deserializer=operation.response_type.FromString,
                )
                try:
                    response, ended = method.with_call(request, timeout=call.left_s, metadata=call.metadata)
                except (grpc.RpcError, ValueError) as error:
                    # gRPC raises ValueError for a channel that was closed since.
                    if self._channels.is_closed:
                        raise closed_error() from None
                    if not isinstance(error, grpc.RpcError):
                        raise
                    pause_s = call.pause_s(error)
                else:
                    call.take(response, ended.trailing_metadata() or ())
                    break
                time.sleep(pause_s)
        return call.result()

    detect = _sync(operations.detect)
    segment = _sync(operations.segment)
    segment_phrases = _sync(operations.segment_phrases)
    segment_everything = _sync(operations.segment_everything)
    encode_image = _sync(operations.encode_image)
    embed_images = _sync(operations.embed_images)
    embed_texts = _sync(operations.embed_texts)
    compare = _sync(operations.compare)
    classify = _sync(operations.classify)
    estimate_gaze = _sync(operations.estimate_gaze)
    recognize_text = _sync(operations.recognize_text)
    list_models = _sync(operations.list_models)


class AsyncClient(BaseClient[AsyncChannels]):
    """A connection to a visiongate server for asyncio; cancelling an awaited call cancels its work.

    It may be made anywhere, also before there is an event loop. Each loop that uses it has a connection of
    its own. A process that was forked while an AsyncClient was in use cannot use one: gRPC does not allow it.
    """

    _channels_type = AsyncChannels

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """End the connection and the calls under way. May be done again."""
        await self._channels.close()

    async def call(self, operation: Operation[R]) -> R:
        """Send an operation of `visiongate.operations` and read its answer."""
        call = self._begin(operation)
        for request in call.requests:
            while True:
                method = self._channels.get().unary_unary(
                    operation.method,
                    request_serializer=type(request).SerializeToString,
                    response_deserializer=operation.response_type.FromString,
                )
                try:
                    sent = method(request, timeout=call.left_s, metadata=call.metadata)
                    call.take(await sent, await sent.trailing_metadata())
                    break
                except grpc.aio.AioRpcError as error:
                    if self._channels.is_closed:
                        raise closed_error() from None
                    pause_s = call.pause_s(error)
                except (grpc.aio.UsageError, asyncio.CancelledError):
                    # So gRPC says that the channel was closed, before or during the call.
                    task = asyncio.current_task()
                    if self._channels.is_closed and not (task and task.cancelling()):
                        raise closed_error() from None
                    raise
                await asyncio.sleep(pause_s)
        return call.result()

    detect = _async(operations.detect)
    segment = _async(operations.segment)
    segment_phrases = _async(operations.segment_phrases)
    segment_everything = _async(operations.segment_everything)
    encode_image = _async(operations.encode_image)
    embed_images = _async(operations.embed_images)
    embed_texts = _async(operations.embed_texts)
    compare = _async(operations.compare)
    classify = _async(operations.classify)
    estimate_gaze = _async(operations.estimate_gaze)
    recognize_text = _async(operations.recognize_text)
    list_models = _async(operations.list_models)
