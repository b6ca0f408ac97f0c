"""The clients: one for synchronous code, one for asyncio.

    with visiongate.Client() as client:
        for found in client.detect("truck.jpg", ["truck", "wheel"]):
            print(found.phrase, found.score, found.box)

    client = visiongate.Client("vision.example.com:443", tls=True, api_key=os.environ["KEY"], timeout=10)

Every method raises a kind of `VisiongateError` if the server refuses the call or cannot be reached, and
ValueError or TypeError for an argument that makes no sense.
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

from visiongate.base_client import BaseClient
from visiongate.channels import AsyncChannels, SyncChannels, closed_error
from visiongate.operations import Operation, detection, embedding, gaze, models, segmentation, text

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
    """Make `help` show what the method returns, which is not the operation."""
    signature = inspect.signature(operation)
    (result,) = typing.get_args(typing.get_type_hints(operation)["return"])
    self_parameter = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
    method.__signature__ = inspect.Signature(
        [self_parameter, *signature.parameters.values()], return_annotation=result
    )
    method.__annotations__ = {**operation.__annotations__, "return": result}
    method.__qualname__ = f"{owner}.{operation.__name__}"
    method.__module__ = __name__


class Client(BaseClient[SyncChannels]):
    """A connection to a visiongate server. Threads can share it, and it can be used after a fork.

    A forked process makes a connection of its own at its first call.
    """

    _channels_type = SyncChannels

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the connection and the calls under way. Closing twice does no harm."""
        self._channels.close()

    def call(self, operation: Operation[R]) -> R:
        """Send an operation of `visiongate.operations` and read its answer."""
        call = self._begin(operation)
        for request in call.requests:
            metadata = call.metadata_of(request)
            while True:
                method = self._channels.get().unary_unary(
                    operation.method,
                    request_serializer=type(request).SerializeToString,
                    response_deserializer=operation.response_type.FromString,
                )
                try:
                    response, finished = method.with_call(request, timeout=call.left_s, metadata=metadata)
                except (grpc.RpcError, ValueError) as error:
                    # gRPC raises ValueError for a channel that has been closed meanwhile.
                    if self._channels.is_closed:
                        raise closed_error() from None
                    if not isinstance(error, grpc.RpcError):
                        raise
                    pause_s = call.pause_s(error)
                else:
                    call.take(response, finished.trailing_metadata() or ())
                    break
                time.sleep(pause_s)
        return call.result()

    detect = _sync(detection.detect)
    detect_batch = _sync(detection.detect_batch)
    segment = _sync(segmentation.segment)
    segment_phrases = _sync(segmentation.segment_phrases)
    segment_phrases_batch = _sync(segmentation.segment_phrases_batch)
    segment_everything = _sync(segmentation.segment_everything)
    segment_everything_batch = _sync(segmentation.segment_everything_batch)
    encode_image = _sync(segmentation.encode_image)
    embed_images = _sync(embedding.embed_images)
    embed_texts = _sync(embedding.embed_texts)
    compare = _sync(embedding.compare)
    classify = _sync(embedding.classify)
    estimate_gaze = _sync(gaze.estimate_gaze)
    estimate_gaze_batch = _sync(gaze.estimate_gaze_batch)
    recognize_text = _sync(text.recognize_text)
    list_models = _sync(models.list_models)


class AsyncClient(BaseClient[AsyncChannels]):
    """A connection to a visiongate server for asyncio. Cancelling an awaited call cancels its work.

    It can be made anywhere, also before there is an event loop. Each loop that uses it has a connection of
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
        """End the connection and the calls under way. Closing twice does no harm."""
        await self._channels.close()

    async def call(self, operation: Operation[R]) -> R:
        """Send an operation of `visiongate.operations` and read its answer."""
        call = self._begin(operation)
        for request in call.requests:
            metadata = call.metadata_of(request)
            while True:
                method = self._channels.get().unary_unary(
                    operation.method,
                    request_serializer=type(request).SerializeToString,
                    response_deserializer=operation.response_type.FromString,
                )
                try:
                    sent = method(request, timeout=call.left_s, metadata=metadata)
                    call.take(await sent, await sent.trailing_metadata())
                    break
                except grpc.aio.AioRpcError as error:
                    if self._channels.is_closed:
                        raise closed_error() from None
                    pause_s = call.pause_s(error)
                except (grpc.aio.UsageError, asyncio.CancelledError):
                    # gRPC raises these if the channel was closed, before or during the call.
                    task = asyncio.current_task()
                    if self._channels.is_closed and not (task and task.cancelling()):
                        raise closed_error() from None
                    raise
                await asyncio.sleep(pause_s)
        return call.result()

    detect = _async(detection.detect)
    detect_batch = _async(detection.detect_batch)
    segment = _async(segmentation.segment)
    segment_phrases = _async(segmentation.segment_phrases)
    segment_phrases_batch = _async(segmentation.segment_phrases_batch)
    segment_everything = _async(segmentation.segment_everything)
    segment_everything_batch = _async(segmentation.segment_everything_batch)
    encode_image = _async(segmentation.encode_image)
    embed_images = _async(embedding.embed_images)
    embed_texts = _async(embedding.embed_texts)
    compare = _async(embedding.compare)
    classify = _async(embedding.classify)
    estimate_gaze = _async(gaze.estimate_gaze)
    estimate_gaze_batch = _async(gaze.estimate_gaze_batch)
    recognize_text = _async(text.recognize_text)
    list_models = _async(models.list_models)
