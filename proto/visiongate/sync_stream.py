"""The streams and the lists of the synchronous client."""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import grpc

from visiongate.channels import SyncChannels, closed_error
from visiongate.errors import VisiongateError
from visiongate.exchange import METHOD, Exchange, Request, Response

R = TypeVar("R")

_CLOSE_S = 2.0


class Results(Iterator[tuple[Any, R | VisiongateError]]):
    """The results of a stream with their keys. Nothing is sent before the first is asked for.

    `close` ends the stream. It may be called from any thread: whoever waits for a result is told that there
    is none any more.

    One thread takes the operations from their iterable, and another one reads the answers.
    """

    def __init__(self, channels: SyncChannels, exchange: Exchange, items: Iterable[Any]) -> None:
        self._make: Callable[[], _Work] = lambda: _Work(channels, exchange, items)
        self._lock = threading.Lock()
        self._work: _Work | None = None
        self._is_closed = False

    def __next__(self) -> tuple[Any, R | VisiongateError]:
        with self._lock:
            if self._is_closed:
                raise StopIteration
            if self._work is None:
                self._work = self._make()
        try:
            result = self._work.next_result()
        except BaseException:
            self.close()
            raise
        if result is None:
            self.close()
            raise StopIteration
        return result

    def close(self) -> None:
        """End the stream and the iteration. What is not answered is dropped; closing twice does no harm."""
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
            work = self._work
        if work is not None:
            work.close()

    def __del__(self) -> None:
        self.close()


class _Work:
    def __init__(self, channels: SyncChannels, exchange: Exchange, items: Iterable[Any]) -> None:
        self._channels = channels
        self._exchange = exchange
        self._items = items
        self._changed = threading.Condition()
        self._is_fed = self._is_over = False
        self._call: Any = None
        self._ended = threading.Event()
        self._failure: BaseException | None = None
        """What the operations' iterable raised, once those before are answered; or what ends the stream."""
        self._reader = threading.Thread(target=self._keep_stream, name="visiongate-stream", daemon=True)
        self._reader.start()
        threading.Thread(target=self._feed, name="visiongate-feed", daemon=True).start()

    def next_result(self) -> tuple[Any, Any] | None:
        with self._changed:
            while True:
                wait_s = self._exchange.tick()
                if (result := self._exchange.take()) is not None:
                    self._changed.notify_all()
                    return result
                if self._is_fed and self._exchange.is_empty:
                    if self._failure is not None:
                        raise self._failure
                    return None
                if self._exchange.has_requests:
                    self._changed.notify_all()
                self._changed.wait(min(wait_s, threading.TIMEOUT_MAX))
                if self._is_over:
                    if self._failure is not None:
                        raise self._failure
                    return None

    def close(self) -> None:
        with self._changed:
            is_whole = self._is_fed and self._exchange.is_empty
            self._is_over = True
            self._changed.notify_all()
            call = self._call
        if is_whole:
            self._reader.join(_CLOSE_S)  # the stream ends by itself
        if call is not None:
            call.cancel()
        self._reader.join(_CLOSE_S)

    def _feed(self) -> None:
        try:
            items = iter(self._items)
            while True:
                with self._changed:
                    self._changed.wait_for(lambda: self._is_over or self._exchange.has_room)
                    if self._is_over:
                        return
                try:
                    item = next(items)
                except StopIteration:
                    return
                with self._changed:
                    self._exchange.add(item)
                    self._changed.notify_all()
        except BaseException as error:
            with self._changed:
                self._failure = error
        finally:
            with self._changed:
                self._is_fed = True
                self._changed.notify_all()

    def _keep_stream(self) -> None:
        """Open streams, one after another, as long as there is something to send."""
        try:
            while self._open():
                failure: grpc.RpcError | None = None
                try:
                    for response in self._call:
                        with self._changed:
                            self._exchange.receive(response)
                            self._changed.notify_all()
                except grpc.RpcError as error:
                    failure = error
                with self._changed:
                    # What sends must not take a request any more: it would be lost.
                    self._ended.set()
                    self._call = None
                    self._changed.notify_all()
                    if self._is_over:
                        return
                    if self._channels.is_closed:
                        raise closed_error()
                    pause_s = self._exchange.lost(failure)
                    self._changed.wait_for(lambda: self._is_over, pause_s)
        except BaseException as error:
            with self._changed:
                self._failure = error
                self._is_over = True
                self._changed.notify_all()

    def _open(self) -> bool:
        """Open a stream once there is something to send; return False if there never is."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_over or self._exchange.has_requests)
            if self._is_over:
                return False
            method = self._channels.get().stream_stream(
                METHOD,
                request_serializer=Request.SerializeToString,
                response_deserializer=Response.FromString,
            )
            ended = self._ended = threading.Event()
            try:
                call = method(self._requests(ended), metadata=self._exchange.metadata)
            except ValueError:
                raise closed_error() from None  # the channel was closed meanwhile
            call.add_callback(lambda: self._end(ended))
            self._call = call
            return True

    def _end(self, ended: threading.Event) -> None:
        ended.set()
        with self._changed:
            self._changed.notify_all()

    def _requests(self, ended: threading.Event) -> Iterator[Request]:
        """Yield what a stream sends. gRPC takes it in a thread of its own."""
        yield self._exchange.settings
        while True:
            with self._changed:
                self._changed.wait_for(lambda: ended.is_set() or self._is_over or self._exchange.has_requests)
                if ended.is_set() or self._is_over:
                    return
                request = self._exchange.next_request()
            if request is not None:
                yield request


def by_turns(ask: Callable[[Any], list[R]], batches: Iterator[Any], concurrency: int) -> Iterator[R]:
    """Ask about batches, so many at a time, and yield their results in order."""
    with ThreadPoolExecutor(concurrency, thread_name_prefix="visiongate-batch") as pool:
        asked: deque[Future[list[R]]] = deque()
        try:
            for batch in batches:
                asked.append(pool.submit(ask, batch))
                if len(asked) >= concurrency:
                    yield from asked.popleft().result()
            while asked:
                yield from asked.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
