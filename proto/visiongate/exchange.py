"""Operations on a stream, without the sending: what is to be sent, what is answered, what is sent again.

The synchronous and the asyncio client both drive this, so they cannot differ.
"""

import itertools
import math
import random
import time
import uuid
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf.message import Message

from visiongate.call import FIRST_CONTACT_S, FIRST_PAUSE_S, MAX_PAUSE_S, MENDED_BY_WAITING, Call
from visiongate.connection import Connection
from visiongate.errors import DeadlineExceededError, UnavailableError, VisiongateError
from visiongate.operations import Operation
from visiongate.options import REQUEST_ID, CallOptions, Metadata
from visiongate.status import read_failure, read_status
from visiongate.v1 import stream_service_pb2

METHOD = "/visiongate.v1.StreamService/Process"
DEFAULT_WINDOW = 32

Request = stream_service_pb2.ProcessRequest
Response = stream_service_pb2.ProcessResponse


def _fields() -> dict[str, str]:
    """Return the fields of requests by the unary methods that take them."""
    found = {}
    for each in stream_service_pb2.StreamItem.DESCRIPTOR.oneofs_by_name["request"].fields:
        kind = each.message_type
        assert kind is not None
        for service in kind.file.services_by_name.values():
            for method in service.methods:
                if method.input_type == kind:
                    found[f"/{service.full_name}/{method.name}"] = each.name
    return found


_FIELDS = _fields()


@dataclass(slots=True, eq=False)
class _Part:
    """A request of an operation, which has several if it is too large for one message."""

    id: str
    entry: "_Entry"
    index: int
    request: Message


@dataclass(slots=True, eq=False)
class _Entry:
    """An operation that is not answered yet, or whose result waits for its turn."""

    key: Any
    operation: Operation[Any]
    call: Call[Any] | None = None
    responses: dict[int, tuple[Message, str]] = field(default_factory=dict)
    parts: list[_Part] = field(default_factory=list)
    is_done: bool = False
    result: Any = None

    @property
    def left_s(self) -> float:
        left = None if self.call is None else self.call.left_s
        return math.inf if left is None else left


class Exchange:
    """Operations in flight. It has no lock: whoever shares it among threads has one.

    Of its `window` operations each was taken from the caller, and its result is not given back yet.
    """

    def __init__(
        self,
        begin: Callable[[Operation[Any]], Call[Any]],
        connection: Connection,
        options: CallOptions,
        *,
        ordered: bool,
        window: int,
    ) -> None:
        if isinstance(window, bool) or not isinstance(window, int) or window < 1:
            raise ValueError(f"window is {window!r}: give a whole number of items, 1 or more")
        self._begin = begin
        self._connection = connection
        self._wait = options.wait
        self._request_id = options.request_id or uuid.uuid4().hex
        self._options = options
        self._ordered = ordered
        self._window = window
        self._numbers = itertools.count()
        # All whose results were not given back yet, in their order, and those that are to be given back.
        self._entries: dict[int, _Entry] = {}
        self._ready: deque[int] = deque()
        self._outbox: deque[_Part] = deque()
        self._sent: dict[str, _Part] = {}
        self._delayed: list[tuple[float, _Part]] = []
        self._first_failure_s = math.inf
        self._last_error: VisiongateError | None = None
        self._growth = 1

    @property
    def metadata(self) -> Metadata:
        """What is sent beside a stream."""
        return (*self._connection.metadata, *self._options.metadata, (REQUEST_ID, self._request_id))

    @property
    def settings(self) -> Request:
        """The first message of a stream. Answers come as they are ready: here they are put into order."""
        return Request(
            settings=stream_service_pb2.StreamSettings(
                order=stream_service_pb2.STREAM_ORDER_READY, max_items=self._window
            )
        )

    @property
    def has_room(self) -> bool:
        """Whether another operation may be added."""
        return len(self._entries) < self._window

    @property
    def is_empty(self) -> bool:
        """Whether the results of all operations were given back."""
        return not self._entries

    @property
    def has_requests(self) -> bool:
        """Whether there is something to send."""
        return bool(self._outbox)

    def add(self, item: Any) -> None:
        """Begin an operation, or a pair of a key and an operation. The key is its number by default."""
        number = next(self._numbers)
        key, operation = item if isinstance(item, tuple) and len(item) == 2 else (number, item)
        if not isinstance(operation, Operation):
            raise TypeError(
                f"item {number} is {type(operation).__name__}: give operations of visiongate.operations, or "
                "pairs of a key and an operation"
            )
        if operation.method not in _FIELDS:
            raise ValueError(f"item {number}: streams have no {operation.method}")
        entry = self._entries[number] = _Entry(key, operation)
        try:
            entry.call = self._begin(operation)
        except VisiongateError as error:
            self._finish(number, entry, error)
            return
        entry.parts = [
            _Part(f"{number}.{index}", entry, index, request)
            for index, request in enumerate(entry.call.requests)
        ]
        self._outbox.extend(entry.parts)

    def next_request(self) -> Request | None:
        """Return the next message to send."""
        while self._outbox:
            part = self._outbox.popleft()
            if not part.entry.is_done:
                self._sent[part.id] = part
                name = _FIELDS[part.entry.operation.method]
                item = stream_service_pb2.StreamItem(id=part.id, **{name: part.request})  # type: ignore[arg-type]
                return Request(item=item)
        return None

    def receive(self, response: Response) -> None:
        """Take a message of the server."""
        self._connection.reached = True
        if response.WhichOneof("content") != "result":
            return
        self._growth = 1
        result = response.result
        part = self._sent.pop(result.id, None)
        if part is None or part.entry.is_done:
            return  # it came too late
        entry, call = part.entry, part.entry.call
        assert call is not None
        outcome = result.WhichOneof("outcome")
        if outcome == "error":
            before = sum(
                len(getattr(each.request, entry.operation.list_name, ()))
                for each in entry.parts[: part.index]
            )
            error = read_status(
                result.error,
                entry.operation.list_name,
                entry.operation.first_index + before,
                result.request_id,
            )
            self._repeat(part, error)
        elif outcome is not None:
            entry.responses[part.index] = getattr(result, outcome), result.request_id
            if len(entry.responses) == len(entry.parts):
                self._finish(_number(part), entry, _result(entry))

    def lost(self, failure: grpc.RpcError | None) -> float:
        """Take note that a stream has ended; return the seconds to wait before the next.

        What was not answered is sent again: all methods only read. Raises VisiongateError where that is no
        use.
        """
        again = sorted(self._sent.values(), key=lambda part: (_number(part), part.index))
        self._outbox.extendleft(reversed(again))
        self._sent.clear()
        retry_s = 0.0
        if failure is not None:
            read = read_failure(failure, self._connection, METHOD, self._request_id)
            self._connection.reached |= read.is_answer
            error = self._last_error = read.error
            now = time.monotonic()
            self._first_failure_s = min(self._first_failure_s, now)
            is_new = isinstance(error, UnavailableError) and not self._connection.reached
            if (
                not self._wait
                or not isinstance(error, MENDED_BY_WAITING)
                or (is_new and now > self._first_failure_s + FIRST_CONTACT_S)
            ):
                raise error from None
            retry_s = error.retry_s or 0.0
        pause_s = min(FIRST_PAUSE_S * self._growth, MAX_PAUSE_S) * random.uniform(0.5, 1)  # noqa: S311
        self._growth = min(2 * self._growth, 1024)
        return max(retry_s, pause_s)

    def tick(self) -> float:
        """Send again what has paused, and give up what is late. Return the seconds until the next time."""
        now = time.monotonic()
        due = [part for at, part in self._delayed if at <= now]
        if due:
            self._delayed = [(at, part) for at, part in self._delayed if at > now]
            self._outbox.extend(due)
        waits = [at - now for at, _ in self._delayed]
        # All have the same time, so the first that is under way is the first that is late.
        for number, entry in list(self._entries.items()):
            if not entry.is_done:
                left_s = entry.left_s
                if left_s > 0:
                    waits.append(left_s)
                    break
                self._finish(number, entry, self._late())
        return max(0.0, min(waits, default=math.inf))

    def take(self) -> tuple[Any, Any] | None:
        """Give back the next result with its key, if there is one."""
        if self._ordered:
            number = next(iter(self._entries), None)
            if number is None or not self._entries[number].is_done:
                return None
        elif self._ready:
            number = self._ready.popleft()
        else:
            return None
        entry = self._entries.pop(number)
        return entry.key, entry.result

    def _repeat(self, part: _Part, error: VisiongateError) -> None:
        entry = part.entry
        assert entry.call is not None
        try:
            pause_s = entry.call.pause_after_s(error)
        except VisiongateError as final:
            self._finish(_number(part), entry, final)
        else:
            self._delayed.append((time.monotonic() + pause_s, part))

    def _late(self) -> VisiongateError:
        if self._last_error is not None and not self._sent:
            return self._last_error
        return DeadlineExceededError(
            grpc.StatusCode.DEADLINE_EXCEEDED,
            f"{self._connection.address.text} did not answer in time",
            request_id=self._request_id,
        )

    def _finish(self, number: int, entry: _Entry, result: Any) -> None:
        entry.is_done, entry.result = True, result
        for part in entry.parts:
            self._sent.pop(part.id, None)
        entry.parts, entry.responses = [], {}
        if not self._ordered:
            self._ready.append(number)


def _number(part: _Part) -> int:
    return int(part.id.partition(".")[0])


def _result(entry: _Entry) -> Any:
    """Return what the operation's own method would; an error of reading the answer is a result, too."""
    call = entry.call
    assert call is not None
    for index in range(len(entry.parts)):
        response, request_id = entry.responses[index]
        call.take(response, ((REQUEST_ID, request_id),))
    return call.result()
