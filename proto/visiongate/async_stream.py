"""The streams and the lists of the asyncio client."""

import asyncio
import math
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable
from contextlib import suppress
from typing import Any, TypeVar

import grpc
import grpc.aio

from visiongate.channels import AsyncChannels, closed_error
from visiongate.exchange import METHOD, Exchange, Request, Response

R = TypeVar("R")
Item = TypeVar("Item")

_CLOSE_S = 2.0


async def stream(
    channels: AsyncChannels, exchange: Exchange, items: Iterable[Any] | AsyncIterable[Any]
) -> AsyncIterator[tuple[Any, Any]]:
    """Send operations on a stream, and yield their results with their keys."""
    work = _Work(channels, exchange, items)
    try:
        while (result := await work.next_result()) is not None:
            yield result
    finally:
        await work.close()


class _Work:
    def __init__(
        self, channels: AsyncChannels, exchange: Exchange, items: Iterable[Any] | AsyncIterable[Any]
    ) -> None:
        self._channels = channels
        self._exchange = exchange
        self._items = items
        # One for each of those who wait: for results, for room, for requests.
        self._has_news, self._has_room, self._has_requests = (asyncio.Event() for _ in range(3))
        self._is_fed = self._is_over = False
        self._failure: BaseException | None = None
        self._feeder = asyncio.create_task(self._feed())
        self._keeper = asyncio.create_task(self._keep_stream())

    async def next_result(self) -> tuple[Any, Any] | None:
        while True:
            wait_s = self._exchange.tick()
            if self._exchange.has_requests:
                self._has_requests.set()
            if (result := self._exchange.take()) is not None:
                self._has_room.set()
                return result
            if self._is_fed and self._exchange.is_empty:
                if self._failure is not None:
                    raise self._failure
                return None
            if self._is_over and self._failure is not None:
                raise self._failure
            self._has_news.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._has_news.wait(), None if wait_s == math.inf else wait_s)

    async def close(self) -> None:
        is_whole = self._is_fed and self._exchange.is_empty
        self._is_over = True
        self._feeder.cancel()
        self._has_requests.set()
        if is_whole:
            await asyncio.wait((self._keeper,), timeout=_CLOSE_S)  # the stream ends by itself
        self._keeper.cancel()
        await asyncio.gather(self._feeder, self._keeper, return_exceptions=True)

    async def _feed(self) -> None:
        try:
            async for item in _each(self._items, self._room):
                self._exchange.add(item)
                self._has_requests.set()
                self._has_news.set()
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            self._failure = error
        finally:
            self._is_fed = True
            self._has_news.set()

    async def _room(self) -> None:
        while not self._exchange.has_room:
            self._has_room.clear()
            await self._has_room.wait()

    async def _requests_come(self) -> None:
        while not (self._is_over or self._exchange.has_requests):
            self._has_requests.clear()
            await self._has_requests.wait()

    async def _keep_stream(self) -> None:
        """Open streams, one after another, as long as there is something to send."""
        try:
            while True:
                await self._requests_come()
                if self._is_over:
                    return
                failure = await self._use_one()
                if self._is_over:
                    return
                if self._channels.is_closed:
                    raise closed_error()
                await asyncio.sleep(self._exchange.lost(failure))
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            self._failure = error
            self._is_over = True
            self._has_news.set()

    async def _use_one(self) -> grpc.RpcError | None:
        """Open a stream, and use it until it ends; return why, if that was no end in peace."""
        method = self._channels.get().stream_stream(
            METHOD, request_serializer=Request.SerializeToString, response_deserializer=Response.FromString
        )
        writer: asyncio.Task[None] | None = None
        call: Any = None
        try:
            call = method(metadata=self._exchange.metadata)
            writer = asyncio.create_task(self._write(call))
            async for response in call:
                self._exchange.receive(response)
                self._has_news.set()
        except grpc.aio.AioRpcError as error:
            # gRPC raises it where a message is written in the moment in which the server ends the stream.
            is_written_late = (error.details() or "").startswith("Internal error from Core")
            return None if is_written_late else error
        except (grpc.aio.UsageError, asyncio.CancelledError):
            # gRPC raises these if the channel was closed, before or during the stream.
            task = asyncio.current_task()
            if self._channels.is_closed and not (task and task.cancelling()):
                raise closed_error() from None
            raise
        finally:
            if call is not None:
                call.cancel()
            if writer is not None:
                writer.cancel()
                await asyncio.gather(writer, return_exceptions=True)
        return None

    async def _write(self, call: Any) -> None:
        with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):  # the reader sees why
            await call.write(self._exchange.settings)
            while True:
                await self._requests_come()
                if self._is_over:
                    await call.done_writing()
                    return
                request = self._exchange.next_request()
                if request is not None:
                    await call.write(request)


async def _each(
    items: Iterable[Item] | AsyncIterable[Item], before: Callable[[], Awaitable[None]]
) -> AsyncIterator[Item]:
    """Yield the items of an iterable of either kind. Before each, wait until it may be asked for."""
    if isinstance(items, AsyncIterable):
        iterator = aiter(items)
        while True:
            await before()
            try:
                item = await anext(iterator)
            except StopAsyncIteration:
                return
            yield item
    every = iter(items)
    while True:
        await before()
        # Making an operation may read a file: others have their turn in between.
        await asyncio.sleep(0)
        try:
            item = next(every)
        except StopIteration:
            return
        yield item


async def by_turns(
    ask: Callable[[Any], Awaitable[list[R]]], batches: AsyncIterator[Any], concurrency: int
) -> AsyncIterator[R]:
    """Ask about batches, so many at a time, and yield their results in order."""
    asked: deque[asyncio.Future[list[R]]] = deque()
    try:
        async for batch in batches:
            asked.append(asyncio.ensure_future(ask(batch)))
            if len(asked) >= concurrency:
                for result in await asked.popleft():
                    yield result
        while asked:
            for result in await asked.popleft():
                yield result
    finally:
        for call in asked:
            call.cancel()
        await asyncio.gather(*asked, return_exceptions=True)
