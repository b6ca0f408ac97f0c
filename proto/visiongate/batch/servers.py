"""Requests to one or several servers: each keeps a stream full, and takes over what another leaves behind."""

import re
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from visiongate.batch.progress import Stopwatch
from visiongate.batch.reading import Failure, Read, writable
from visiongate.batch.task import Row, Task
from visiongate.batch.wording import of_server
from visiongate.client import Client
from visiongate.errors import (
    CallCancelledError,
    ClientClosedError,
    ConnectionSetupError,
    DeadlineExceededError,
    ForkedClientError,
    InvalidArgumentError,
    NoModelError,
    OverloadedError,
    UnauthenticatedError,
    UnavailableError,
    UnimplementedError,
    VisiongateError,
)
from visiongate.operations import Operation

# Other requests would fail likewise: these are errors of the server or of the job.
OF_SERVER = (
    ClientClosedError,
    ConnectionSetupError,
    ForkedClientError,
    NoModelError,
    UnauthenticatedError,
    UnimplementedError,
)
# The client has waited for the server in vain.
OF_WAITING = CallCancelledError, DeadlineExceededError, OverloadedError, UnavailableError
_OF_IMAGE = re.compile(r"images?\b")
_PLACE = re.compile(r"^images?\[\d+\](\.\w+)?: ")

QUEUED = 2
"""Requests that wait for a server, so that none waits for them."""
# A server that owes answers, and gives none for so long, is asked whether it is there.
_SILENCE_S = 5.0
_PROBE_S = 10.0
_PAUSE_S = 1.0
_JOIN_S = 3.0

Answered = Callable[[Sequence[int], Sequence[Row | Failure], float], None]
"""Called with inputs' places in the job, their results, and the milliseconds that their request took."""


@dataclass(slots=True, eq=False)
class Request:
    """Inputs that are asked about together. `places` are their places in the job, in order."""

    places: Sequence[int]
    inputs: Sequence[Read[Any]]
    # An earlier request that had these inputs was sent.
    is_again: bool = False
    sent_s: float = 0.0
    # When the earlier one was, by default this one.
    first_sent_s: float = 0.0


@dataclass(slots=True, eq=False)
class _Server:
    """A server, what it has not answered yet, and the stream that it is asked on."""

    client: Client
    flying: set[Request]
    heard_s: float
    stream: Any = None
    is_away: bool = False
    thread: threading.Thread | None = None


class Servers:
    """Servers that are asked side by side. Thread safe.

    An error that is not of single inputs ends the work: `failure` is set, and `on_failure` called.
    """

    def __init__(
        self,
        clients: Sequence[Client],
        task: Task,
        *,
        window: int,
        timeout_s: float,
        on_answer: Answered,
        on_failure: Callable[[BaseException], None],
    ) -> None:
        self._task = task
        self._window = window
        self._timeout_s = timeout_s
        self._on_answer = on_answer
        self._on_failure = on_failure
        self.starved = Stopwatch()
        """While a server could take a request, and there is none."""
        self.busy = Stopwatch()
        """While a request waits for a server."""
        self._changed = threading.Condition()
        self._queue: deque[Request] = deque()
        self._is_fed = self._is_closed = self._is_dropping = False
        self.unsent: int | None = None
        """The place of the first input that `drop` has left out."""
        self.lost: dict[str, str] = {}
        """Addresses of servers that take no more part, and why."""
        self._answered_s = now = time.monotonic()
        self._servers = [_Server(client.with_options(timeout=timeout_s), set(), now) for client in clients]
        for server in self._servers:
            server.thread = threading.Thread(
                target=self._run, args=(server,), name="visiongate-server", daemon=True
            )
            server.thread.start()
        if len(self._servers) > 1:
            threading.Thread(target=self._watch, name="visiongate-watch", daemon=True).start()

    def put(self, request: Request) -> None:
        """Give a request to whichever server is free first. Wait while some are waiting already."""
        with self._changed:
            if len(self._queue) >= QUEUED and not self._takes_none:
                with self.busy:
                    self._changed.wait_for(lambda: self._takes_none or len(self._queue) < QUEUED)
            if self._takes_none:
                self._leave_out(request)
            else:
                self._queue.append(request)
            self._changed.notify_all()

    def end(self) -> None:
        """Say that no more requests come."""
        with self._changed:
            self._is_fed = True
            self._changed.notify_all()

    def drop(self) -> None:
        """Forget what was never sent, and take nothing more. What is under way is answered."""
        with self._changed:
            self._is_dropping = True
            for request in self._queue:
                if not request.is_again:
                    self._leave_out(request)
            self._queue = deque(request for request in self._queue if request.is_again)
            self._changed.notify_all()

    @property
    def _takes_none(self) -> bool:
        return self._is_closed or self._is_dropping

    def _leave_out(self, request: Request) -> None:
        first = request.places[0]
        self.unsent = first if self.unsent is None else min(self.unsent, first)

    def close(self) -> None:
        """End all streams and threads. What is not answered is dropped."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
            streams = [server.stream for server in self._servers]
        for stream in streams:
            if stream is not None:
                stream.close()
        for server in self._servers:
            if server.thread is not None and server.thread is not threading.current_thread():
                server.thread.join(_JOIN_S)

    @property
    def present(self) -> list[Client]:
        """Clients of the servers that are not gone, as far as is known."""
        with self._changed:
            return [server.client for server in self._servers if not server.is_away]

    @property
    def _is_done(self) -> bool:
        return self._is_closed or (
            self._is_fed and not self._queue and not any(server.flying for server in self._servers)
        )

    def _run(self, server: _Server) -> None:
        try:
            while True:
                with self._changed:
                    if self._is_done:
                        return
                    server.is_away = False
                    server.heard_s = time.monotonic()
                    stream: Any = server.client.stream(self._requests(server), window=self._window)
                    server.stream = stream
                for request, result in stream:
                    self._take(server, request, result)
                self._wait_for(server)
        except VisiongateError as error:
            self._lose(server, error)
        except BaseException as error:
            self._fail(error)

    def _requests(self, server: _Server) -> Iterator[tuple[Request, Operation[Any]]]:
        """Yield what a server is to answer, as long as there may be something."""
        while True:
            with self._changed:
                if not self._queue and not self._is_done:
                    with self.starved:
                        self._changed.wait_for(lambda: self._queue or self._is_done or server.is_away)
                if self._is_done or server.is_away or not self._queue:
                    return
                request = self._queue.popleft()
                if not server.flying:
                    server.heard_s = time.monotonic()
                server.flying.add(request)
                self._changed.notify_all()
            try:
                operation = self._task.operation([each.data for each in request.inputs])
            except ValueError as error:
                # An input that no request can hold.
                self._reject(server, request, Failure("INVALID_ARGUMENT", _PLACE.sub("", str(error))))
                continue
            request.sent_s = time.monotonic()
            request.first_sent_s = request.first_sent_s or request.sent_s
            yield request, operation

    def _take(self, server: _Server, request: Request, result: Any) -> None:
        """Take an answer, or the error of a whole request."""
        if isinstance(result, OF_SERVER):
            raise result
        if isinstance(result, VisiongateError):
            self._take_error(server, request, result)
            return
        rows = self._task.rows(result)
        outcomes = [failure_of(row) if isinstance(row, VisiongateError) else row for row in rows]
        self._on_answer(request.places, outcomes, self._land(server, request))

    def _take_error(self, server: _Server, request: Request, error: VisiongateError) -> None:
        is_of_job = (
            isinstance(error, InvalidArgumentError) and error.field and not _OF_IMAGE.match(error.field)
        )
        if is_of_job or (isinstance(error, OF_WAITING) and not self._is_of_input(request, error)):
            self._fail(error)
        else:
            self._reject(server, request, failure_of(error))

    def _is_of_input(self, request: Request, error: VisiongateError) -> bool:
        """Return whether it is for its inputs that a request has waited in vain, as others were answered."""
        if self._answered_s >= request.first_sent_s:
            return True
        if not isinstance(error, DeadlineExceededError):
            return False
        # One that is late may be so for one of its inputs, or there may be no others to compare with.
        with self._changed:
            others = len(self._queue) + sum(len(each.flying) for each in self._servers) - 1
        return len(request.inputs) > 1 or others == 0

    def _reject(self, server: _Server, request: Request, failure: Failure) -> None:
        """Ask about the inputs of a request one by one, so that only those at fault fail."""
        if len(request.inputs) == 1:
            self._on_answer(request.places, [failure], self._land(server, request))
            return
        with self._changed:
            server.flying.discard(request)
            singles = [
                Request([place], [each], is_again=True, first_sent_s=request.first_sent_s)
                for place, each in zip(request.places, request.inputs, strict=True)
            ]
            self._queue.extendleft(reversed(singles))
            self._changed.notify_all()

    def _land(self, server: _Server, request: Request) -> float:
        """Take note that a request is answered. Return the milliseconds since it was sent."""
        with self._changed:
            server.flying.discard(request)
            now = self._answered_s = server.heard_s = time.monotonic()
            self._changed.notify_all()
        return (now - request.sent_s) * 1e3 if request.sent_s else 0.0

    def _fail(self, error: BaseException) -> None:
        self._on_failure(error)
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    def _give_back(self, server: _Server) -> None:
        for request in sorted(server.flying, key=lambda request: request.places[0], reverse=True):
            request.is_again = True
            self._queue.appendleft(request)
        server.flying.clear()
        self._changed.notify_all()

    def _lose(self, server: _Server, error: VisiongateError) -> None:
        """Do without a server that waiting does not mend."""
        with self._changed:
            self._servers.remove(server)
            self._give_back(server)
            self.lost[server.client.address] = str(error)
            is_last = not self._servers
        if is_last:
            self._fail(error if len(self.lost) == 1 else of_server(error, server.client))

    def _watch(self) -> None:
        """Take requests from servers that are gone, for the others to answer."""
        while True:
            with self._changed:
                if self._changed.wait_for(lambda: self._is_done, _PAUSE_S):
                    return
                late_s = time.monotonic() - _SILENCE_S
                silent = [each for each in self._servers if each.flying and each.heard_s < late_s]
            for server in silent:
                if _absence(server.client) is None:
                    server.heard_s = time.monotonic()
                    continue
                with self._changed:
                    server.is_away = True
                    self._give_back(server)
                    stream = server.stream
                stream.close()

    def _wait_for(self, server: _Server) -> None:
        """Wait until a server that went away is there again. Nothing is in flight there meanwhile."""
        while True:
            with self._changed:
                if self._changed.wait_for(lambda: self._is_done, _PAUSE_S if server.is_away else 0):
                    return
                is_late = time.monotonic() > self._answered_s + self._timeout_s
            absence = _absence(server.client)
            if absence is None:
                return
            if is_late:
                raise absence


def _absence(client: Client) -> VisiongateError | None:
    """Return why a server cannot be asked at present. None: it can, or a stream will say why not."""
    try:
        client.with_options(timeout=_PROBE_S, wait=False).list_models()
    except (UnavailableError, DeadlineExceededError, CallCancelledError) as error:
        return error
    except VisiongateError:
        return None
    return None


def failure_of(error: VisiongateError) -> Failure:
    """Return the error of an image as a row has it."""
    return Failure(error.code.name, writable(_PLACE.sub("", error.message)))
