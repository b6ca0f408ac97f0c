"""StreamService: many requests on one stream, each answered by the method that answers it alone."""

import asyncio
import random
from collections import deque
from functools import partial

from gateway.errors import InvalidArgumentError
from gateway.pipelines.resources import Resources
from gateway.services.messages.stream import METHODS, Peeked, peek, request_of, result_bytes
from gateway.services.service import Context, Service
from gateway.settings import Settings
from gateway.streams import ItemAnswer, Stream
from visiongate.v1 import stream_service_pb2, stream_service_pb2_grpc

_METHOD = "/visiongate.v1.StreamService/Process"
# Of all bytes in flight, what one stream may hold of items and answers.
_BYTES_SHARE = 32
# Streams that began together do not end together.
_MIN_AGE = 0.9
_READ_FIRST = "must be the first message, and no other"


class StreamService(stream_service_pb2_grpc.StreamServiceServicer):
    """Streams of items."""

    def __init__(self, resources: Resources) -> None:
        self._settings = resources.settings

    async def Process(self, stream: Stream, context: Context) -> None:  # type: ignore[override] # noqa: N802
        """Answer a stream. Not a generator: a coroutine gets the stream itself."""
        first = await stream.read_first(stream_service_pb2.ProcessRequest)
        if first is None:
            return
        assert isinstance(first, stream_service_pb2.ProcessRequest)
        if first.WhichOneof("content") != "settings":
            raise InvalidArgumentError("settings", _READ_FIRST)
        granted = _granted(first.settings, self._settings)
        await stream.write(stream_service_pb2.ProcessResponse(settings=granted).SerializeToString())
        await _Process(stream, granted, self._settings.max_connection_age_s).run()


SERVICE = Service(
    stream_service_pb2.DESCRIPTOR,
    StreamService,
    stream_service_pb2_grpc.add_StreamServiceServicer_to_server,
)


class _Process:
    """A stream under way: what is read and not taken yet."""

    def __init__(self, stream: Stream, granted: stream_service_pb2.StreamSettings, max_age_s: float) -> None:
        self._stream = stream
        self._granted = granted
        self._is_ordered = granted.order == stream_service_pb2.STREAM_ORDER_SENT
        self._max_age_s = max_age_s
        self._reason = stream_service_pb2.GOODBYE_REASON_STOPPING
        self._items: set[asyncio.Task[None]] = set()
        self._ids: set[str] = set()
        # In the order of the items, if that is asked for, with gaps for those that are not ready.
        self._answers: deque[_Answer] = deque()
        self._has_answer, self._has_room = asyncio.Event(), asyncio.Event()
        self._read = self._in_window = self._bytes = 0
        self._is_read = False
        self._fault: BaseException | None = None

    async def run(self) -> None:
        """Answer all items. Whatever goes wrong ends them all."""
        reader, writer = asyncio.create_task(self._read_items()), asyncio.create_task(self._write_answers())
        age_s = self._max_age_s * random.uniform(_MIN_AGE, 1)  # noqa: S311
        timer = asyncio.get_running_loop().call_later(min(age_s, 1e9), self._end_of_age)
        try:
            await asyncio.wait((reader, writer), return_when=asyncio.FIRST_EXCEPTION)
            for task in (reader, writer):
                if task.done():
                    task.result()
        finally:
            timer.cancel()
            left = (reader, writer, *self._items)
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)
            for answer in self._answers:
                answer.drop()
        if self._stream.is_stopping:
            goodbye = stream_service_pb2.Goodbye(reason=self._reason, item_count=self._read)
            await self._stream.write(stream_service_pb2.ProcessResponse(goodbye=goodbye).SerializeToString())

    def _end_of_age(self) -> None:
        self._reason = stream_service_pb2.GOODBYE_REASON_AGE
        self._stream.stop()

    async def _read_items(self) -> None:
        try:
            while (data := await self._stream.read()) is not None:
                peeked = peek(data)
                if peeked.content == "settings":
                    raise InvalidArgumentError("settings", _READ_FIRST)
                if peeked.content == "item":
                    admitted = self._begin(peeked, data)
                    del data
                    await admitted
                    await self._room()
        finally:
            self._is_read = True
            self._has_answer.set()

    async def _room(self) -> None:
        """Wait until the window has room for another item."""
        while self._in_window >= self._granted.max_items or self._bytes >= self._granted.max_bytes:
            self._has_room.clear()
            await self._has_room.wait()

    def _begin(self, peeked: Peeked, data: bytes) -> asyncio.Future[None]:
        """Begin to answer an item. The result is done once the item's bytes are counted."""
        self._read += 1
        self._in_window += 1
        self._bytes += len(data)
        answer = _Answer(peeked, len(data), is_double=peeked.id in self._ids)
        self._ids.add(peeked.id)
        if self._is_ordered:
            self._answers.append(answer)
        admitted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        task = asyncio.create_task(self._answer(answer, data, partial(_set, admitted)))
        self._items.add(task)
        task.add_done_callback(lambda task: self._end(task, admitted))
        return admitted

    def _end(self, task: asyncio.Task[None], admitted: asyncio.Future[None]) -> None:
        self._items.discard(task)
        _set(admitted)
        if not task.cancelled() and task.exception() is not None:
            self._fault = task.exception()
            self._has_answer.set()

    async def _answer(self, answer: "_Answer", data: bytes, admitted: "partial[None]") -> None:
        method = METHODS.get(answer.peeked.request, _METHOD)
        kind = stream_service_pb2.ProcessRequest
        answering = self._stream.answer(method, data, answer.parse, kind, admitted)
        del data
        answer.made = made = await answering
        self._hold(answer, len(made.outcome) if isinstance(made.outcome, bytes) else 0)
        if not self._is_ordered:
            self._answers.append(answer)
        self._has_answer.set()

    async def _write_answers(self) -> None:
        while True:
            while not (self._answers and self._answers[0].made is not None):
                if self._fault is not None:
                    raise self._fault
                if self._is_read and not self._in_window:
                    return
                self._has_answer.clear()
                await self._has_answer.wait()
            answer = self._answers.popleft()
            try:
                await self._stream.write(answer.message())
            finally:
                answer.drop()
            if not answer.is_double:
                self._ids.discard(answer.peeked.id)
            self._in_window -= 1
            self._hold(answer, 0)

    def _hold(self, answer: "_Answer", size: int) -> None:
        """Count so many bytes for an item, instead of what was counted."""
        self._bytes += size - answer.held
        answer.held = size
        self._has_room.set()


class _Answer:
    """The answer of an item, from the item's arrival on."""

    def __init__(self, peeked: Peeked, held: int, *, is_double: bool) -> None:
        self.peeked = peeked
        self.held = held
        self.is_double = is_double
        self.made: ItemAnswer | None = None

    def parse(self, data: bytes) -> object:
        if self.is_double:
            raise InvalidArgumentError("item.id", "is that of an item that is not answered yet")
        return request_of(data, self.peeked)

    def message(self) -> bytes:
        """Return what is sent. The response's own bytes are dropped: gRPC makes a copy."""
        made = self.made
        assert made is not None
        message = result_bytes(self.peeked, made.request_id, made.outcome)
        made.outcome = b""
        return message

    def drop(self) -> None:
        """Count the answer's bytes no more."""
        if self.made is not None:
            self.made.taken()


def _set(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _granted(
    asked: stream_service_pb2.StreamSettings, settings: Settings
) -> stream_service_pb2.StreamSettings:
    order = asked.order or stream_service_pb2.STREAM_ORDER_READY
    if order not in (stream_service_pb2.STREAM_ORDER_READY, stream_service_pb2.STREAM_ORDER_SENT):
        raise InvalidArgumentError("settings.order", f"{asked.order} is not a known order")
    max_bytes = max(1, settings.max_bytes_in_flight // _BYTES_SHARE)
    return stream_service_pb2.StreamSettings(
        order=order,
        max_items=min(asked.max_items or settings.stream_window, settings.stream_window),
        max_bytes=min(asked.max_bytes or max_bytes, max_bytes),
    )
