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
from collections.abc import AsyncIterable, AsyncIterator, Callable, Coroutine, Iterable, Iterator
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar, overload

import grpc
import grpc.aio
import numpy as np
from numpy.typing import NDArray

from visiongate import async_stream, sync_stream
from visiongate.answer import Answer, ArrayAnswer
from visiongate.base_client import BaseClient
from visiongate.batches import BATCH_SIZE, CONCURRENCY, Batches, results
from visiongate.channels import AsyncChannels, SyncChannels, closed_error
from visiongate.errors import VisiongateError
from visiongate.exchange import DEFAULT_WINDOW
from visiongate.operations import detection, embedding, everything, gaze, models, segmentation, text
from visiongate.operations.operation import Operation

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


@overload
def _sync_iter(
    operation: Callable[..., Operation[ArrayAnswer]],
) -> Callable[..., Iterator[NDArray[np.float32]]]: ...
@overload
def _sync_iter(operation: Callable[..., Operation[Answer[R]]]) -> Callable[..., Iterator[R]]: ...
def _sync_iter(operation: Callable[..., Operation[Any]]) -> Callable[..., Iterator[Any]]:
    """Return the method of `Client` that asks about any number of items, in batches."""

    def method(
        self: "Client",
        items: Iterable[Any],
        /,
        *,
        batch_size: int = BATCH_SIZE,
        concurrency: int = CONCURRENCY,
        **keywords: Any,
    ) -> Iterator[Any]:
        batches = Batches(operation, batch_size, concurrency, keywords)
        return sync_stream.by_turns(lambda one: results(one, self.call(one)), batches.of(items), concurrency)

    _describe_iter(method, operation, "Client", Iterator)
    return method


@overload
def _async_iter(
    operation: Callable[..., Operation[ArrayAnswer]],
) -> Callable[..., AsyncIterator[NDArray[np.float32]]]: ...
@overload
def _async_iter(operation: Callable[..., Operation[Answer[R]]]) -> Callable[..., AsyncIterator[R]]: ...
def _async_iter(operation: Callable[..., Operation[Any]]) -> Callable[..., AsyncIterator[Any]]:
    """Return the method of `AsyncClient` that asks about any number of items, in batches."""

    def method(
        self: "AsyncClient",
        items: Iterable[Any] | AsyncIterable[Any],
        /,
        *,
        batch_size: int = BATCH_SIZE,
        concurrency: int = CONCURRENCY,
        **keywords: Any,
    ) -> AsyncIterator[Any]:
        batches = Batches(operation, batch_size, concurrency, keywords)

        async def ask(each: Operation[Any]) -> list[Any]:
            return results(each, await self.call(each))

        return async_stream.by_turns(ask, batches.of_async(items), concurrency)

    _describe_iter(method, operation, "AsyncClient", AsyncIterator)
    return method


def _describe_iter(method: Any, operation: Callable[..., Any], owner: str, kind: Any) -> None:
    """Make `help` show the operation's own keywords beside those of batches."""
    first, *others = inspect.signature(operation).parameters.values()
    own = inspect.signature(method).parameters
    positional = [
        parameter.replace(kind=inspect.Parameter.POSITIONAL_ONLY) for parameter in (own["self"], first)
    ]
    keywords = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in others]
    method.__signature__ = inspect.Signature(
        [*positional, own["batch_size"], own["concurrency"], *keywords], return_annotation=kind
    )
    method.__name__ = f"iter_{operation.__name__.removesuffix('_batch')}"
    method.__qualname__ = f"{owner}.{method.__name__}"
    method.__module__ = __name__
    method.__doc__ = f"""Ask as `{operation.__name__}` does about any number of items.

    The results come in the order of the items, one for each. The items come from any iterable, and are taken
    as they are needed. They are asked about in batches of `batch_size`, of which `concurrency` are under way
    at a time. With `strict=False` the result of an item that cannot be used is its error, a
    `VisiongateError`.
    """


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

    def stream(
        self,
        operations: Iterable[Operation[R] | tuple[Any, Operation[R]]],
        *,
        ordered: bool = False,
        window: int = DEFAULT_WINDOW,
    ) -> sync_stream.Results[R]:
        """Send operations of `visiongate.operations` on one stream; yield their results as they come.

        `operations` is any iterable of operations, or of pairs of a key and an operation. For each
        there is one pair: its key, by default its number from 0, and its result, or its error, a
        `VisiongateError`. Results come as they are ready, or with `ordered` in the order of the operations.

        Operations are taken as they are needed, in a thread of their own: at most `window` are without a
        result that was taken. Each has the client's `timeout` from then on. What a lost connection, a server
        that stops or one that is full leaves unanswered is sent again within it. Leaving the loop ends the
        stream, as does `close` of what is returned, from any thread.

            for path, found in client.stream((path, detect(path, ["truck"])) for path in paths):
                ...

        Raises what the iterable raises, and the error of a server that answers no stream at all.
        """
        exchange = self._exchange(ordered=ordered, window=window)
        return sync_stream.Results(self._channels, exchange, operations)

    detect = _sync(detection.detect)
    detect_batch = _sync(detection.detect_batch)
    segment = _sync(segmentation.segment)
    segment_phrases = _sync(segmentation.segment_phrases)
    segment_phrases_batch = _sync(segmentation.segment_phrases_batch)
    segment_everything = _sync(everything.segment_everything)
    segment_everything_batch = _sync(everything.segment_everything_batch)
    encode_image = _sync(segmentation.encode_image)
    embed_images = _sync(embedding.embed_images)
    embed_texts = _sync(embedding.embed_texts)
    compare = _sync(embedding.compare)
    classify = _sync(embedding.classify)
    estimate_gaze = _sync(gaze.estimate_gaze)
    estimate_gaze_batch = _sync(gaze.estimate_gaze_batch)
    recognize_text = _sync(text.recognize_text)
    list_models = _sync(models.list_models)

    iter_embed_images = _sync_iter(embedding.embed_images)
    iter_embed_texts = _sync_iter(embedding.embed_texts)
    iter_classify = _sync_iter(embedding.classify)
    iter_recognize_text = _sync_iter(text.recognize_text)
    iter_detect = _sync_iter(detection.detect_batch)
    iter_segment_phrases = _sync_iter(segmentation.segment_phrases_batch)
    iter_segment_everything = _sync_iter(everything.segment_everything_batch)
    iter_estimate_gaze = _sync_iter(gaze.estimate_gaze_batch)


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

    def stream(
        self,
        operations: Iterable[Operation[R] | tuple[Any, Operation[R]]]
        | AsyncIterable[Operation[R] | tuple[Any, Operation[R]]],
        *,
        ordered: bool = False,
        window: int = DEFAULT_WINDOW,
    ) -> AsyncIterator[tuple[Any, R | VisiongateError]]:
        """Send operations of `visiongate.operations` on one stream; yield their results as they come.

        `operations` is any iterable, async or not, of operations, or of pairs of a key and an operation. For
        each there is one pair: its key, by default its number from 0, and its result, or its error, a
        `VisiongateError`. Results come as they are ready, or with `ordered` in the order of the operations.

        Operations are taken as they are needed: at most `window` are without a result that was
        taken. Each has the client's `timeout` from then on. What a lost connection, a server that stops or
        one that is full leaves unanswered is sent again within it. Leaving the loop ends the stream.

            async for path, found in client.stream((path, detect(path, ["truck"])) for path in paths):
                ...

        Raises what the iterable raises, and the error of a server that answers no stream at all.
        """
        exchange = self._exchange(ordered=ordered, window=window)
        return async_stream.stream(self._channels, exchange, operations)

    detect = _async(detection.detect)
    detect_batch = _async(detection.detect_batch)
    segment = _async(segmentation.segment)
    segment_phrases = _async(segmentation.segment_phrases)
    segment_phrases_batch = _async(segmentation.segment_phrases_batch)
    segment_everything = _async(everything.segment_everything)
    segment_everything_batch = _async(everything.segment_everything_batch)
    encode_image = _async(segmentation.encode_image)
    embed_images = _async(embedding.embed_images)
    embed_texts = _async(embedding.embed_texts)
    compare = _async(embedding.compare)
    classify = _async(embedding.classify)
    estimate_gaze = _async(gaze.estimate_gaze)
    estimate_gaze_batch = _async(gaze.estimate_gaze_batch)
    recognize_text = _async(text.recognize_text)
    list_models = _async(models.list_models)

    iter_embed_images = _async_iter(embedding.embed_images)
    iter_embed_texts = _async_iter(embedding.embed_texts)
    iter_classify = _async_iter(embedding.classify)
    iter_recognize_text = _async_iter(text.recognize_text)
    iter_detect = _async_iter(detection.detect_batch)
    iter_segment_phrases = _async_iter(segmentation.segment_phrases_batch)
    iter_segment_everything = _async_iter(everything.segment_everything_batch)
    iter_estimate_gaze = _async_iter(gaze.estimate_gaze_batch)
