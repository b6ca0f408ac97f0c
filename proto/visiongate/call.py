"""A call under way: what is sent, how long it waits, what its result is. The clients do the sending."""

import math
import random
import time
import uuid
from collections.abc import Iterable
from typing import Any, Generic, TypeVar

import grpc
from google.protobuf.message import Message

from visiongate.affinity import IMAGE_ID, image_name
from visiongate.connection import Connection
from visiongate.errors import CallCancelledError, OverloadedError, UnavailableError, VisiongateError
from visiongate.operations import Operation
from visiongate.options import REQUEST_ID, CallOptions, Metadata
from visiongate.status import read_failure, read_request_id, too_large

R = TypeVar("R")

# The server is full, restarts, or is not there yet. All methods only read, so each call may be sent again.
MENDED_BY_WAITING = OverloadedError, UnavailableError, CallCancelledError
FIRST_PAUSE_S = 0.1
MAX_PAUSE_S = 1.0
MAX_PAUSE_WHEN_FULL_S = 10.0
# How long a call waits for a server that has never answered: its address is likely to be wrong.
FIRST_CONTACT_S = 2.0


class Call(Generic[R]):
    """An operation's requests, within one timeout. Raises MessageTooLargeError before anything is sent."""

    def __init__(
        self, operation: Operation[R], connection: Connection, options: CallOptions, max_message_bytes: int
    ) -> None:
        self.requests = (operation.request, *operation.more)
        for request in self.requests:
            if (size := request.ByteSize()) > max_message_bytes:
                raise too_large(size, max_message_bytes)
        self._operation = operation
        self._connection = connection
        self._wait = options.wait
        self._start = time.monotonic()
        self._end = self._start + options.timeout_s
        self._growth = 1
        self._request_id = options.request_id or uuid.uuid4().hex
        self._metadata: Metadata = (
            *connection.metadata,
            *options.metadata,
            (REQUEST_ID, self._request_id),
        )
        self._response: Any = None

    def metadata_of(self, request: Message) -> Metadata:
        """Return what is sent beside one of the requests."""
        if any(key == IMAGE_ID for key, _ in self._metadata):
            return self._metadata
        name = image_name(request)
        return (*self._metadata, (IMAGE_ID, name)) if name else self._metadata

    @property
    def left_s(self) -> float | None:
        """Seconds that the next attempt may take; None: no limit."""
        return None if self._end == math.inf else self._end - time.monotonic()

    def pause_s(self, failure: grpc.RpcError) -> float:
        """Return the seconds to wait before the next attempt. Raise VisiongateError if there is none."""
        read = read_failure(
            failure,
            self._connection,
            self._operation.method,
            self._request_id,
            list_name=self._operation.list_name,
            first_index=self._operation.first_index + len(getattr(self._response, "results", ())),
        )
        self._connection.reached |= read.is_answer
        return self.pause_after_s(read.error)

    def pause_after_s(self, error: VisiongateError) -> float:
        """Return the seconds to wait before the next attempt. Raise the error if there is none."""
        if not self._wait or not isinstance(error, MENDED_BY_WAITING):
            raise error from None
        end = self._end
        if isinstance(error, UnavailableError) and not self._connection.reached:
            end = min(end, self._start + FIRST_CONTACT_S)
        pause = self._next_pause_s(error)
        if time.monotonic() + pause >= end:
            raise error from None
        return pause

    def _next_pause_s(self, error: VisiongateError) -> float:
        """Return a pause that grows each time and differs at random among callers.

        It is at least what a full server asks for.
        """
        longest = MAX_PAUSE_WHEN_FULL_S if isinstance(error, OverloadedError) else MAX_PAUSE_S
        pause_s = min((error.retry_s or FIRST_PAUSE_S) * self._growth, longest)
        self._growth = min(2 * self._growth, 1024)
        return max(error.retry_s or 0.0, pause_s * random.uniform(0.5, 1))  # noqa: S311

    def take(self, response: Message, trailing_metadata: Iterable[Any]) -> None:
        """Keep the response to one of the requests."""
        self._connection.reached = True
        self._request_id = read_request_id(trailing_metadata) or self._request_id
        if self._response is None:
            self._response = response
        else:
            self._operation.merge(self._response, response)

    def result(self) -> R:
        return self._operation.parse(self._response, self._request_id)
