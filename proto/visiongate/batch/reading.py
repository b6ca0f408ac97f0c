"""Inputs' bytes, read ahead in threads."""

import hashlib
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

import grpc

from visiongate.batch.item import Item
from visiongate.operations.image_file import check_length

K = TypeVar("K")

THREADS = 8
AHEAD = 64
"""Inputs that are read before they are needed."""
_CHUNK = 8


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an input has no result: the name of a gRPC status, and a sentence."""

    status: str
    message: str


@dataclass(frozen=True, slots=True)
class Read(Generic[K]):
    """An input as it was read: the hash of its bytes and the bytes, or the failure in place of both."""

    key: K
    item: Item
    data: bytes = b""
    sha256: str | None = None
    failure: Failure | None = None


class Budget:
    """How many bytes are held at a time. Thread safe."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held = 0
        self._changed = threading.Condition()
        self._is_closed = False

    def add(self, count: int) -> None:
        """Hold some bytes, also those that are too many: they are here already."""
        with self._changed:
            self._held += count

    def release(self, count: int) -> None:
        with self._changed:
            self._held -= count
            self._changed.notify_all()

    def wait(self, is_urgent: Callable[[], bool]) -> None:
        """Wait for room, for `close`, or until it is urgent; see `wake`."""
        if self._held >= self._limit:
            with self._changed:
                self._changed.wait_for(lambda: self._is_closed or self._held < self._limit or is_urgent())

    def wake(self) -> None:
        """Let those who wait look again."""
        with self._changed:
            self._changed.notify_all()

    def close(self) -> None:
        """Let nobody wait any more."""
        self._is_closed = True
        self.wake()


def read_ahead(
    entries: Iterable[tuple[K, Item]], budget: Budget, threads: int = THREADS
) -> Iterator[Read[K]]:
    """Yield inputs in their order, read. Those that cannot be read have a failure.

    The budget is what is read and not released; the caller releases it. A read begins while it has room, or
    if the caller waits for it, so it is exceeded by little more than what all threads read at once. Raises
    what `entries` raises, after the inputs before.
    """
    pending: deque[_Chunk[K]] = deque()
    unread = iter(entries)
    raised: BaseException | None = None
    is_over = False
    readers = _Readers(budget, threads)
    try:
        while True:
            while not is_over and len(pending) < AHEAD // _CHUNK:
                chunk: _Chunk[K] = _Chunk()
                try:
                    chunk.entries.extend(islice(unread, _CHUNK))
                except Exception as error:
                    raised = error
                is_over = len(chunk.entries) < _CHUNK
                if chunk.entries:
                    pending.append(chunk)
                    readers.submit(chunk)
            if not pending:
                break
            yield from pending.popleft().taken(budget)
        if raised is not None:
            raise raised
    finally:
        readers.close()


class _Chunk(Generic[K]):
    """Inputs that a thread reads one after another. Handing over each alone takes longer than reading it."""

    def __init__(self) -> None:
        self.entries: list[tuple[K, Item]] = []
        self._reads: deque[Read[K]] = deque()
        self._failure: BaseException | None = None
        self._changed = threading.Condition()
        self._is_awaited = False

    def read(self, budget: Budget, is_over: Callable[[], bool]) -> None:
        """Read the inputs. Whoever takes them need not wait for the last."""
        try:
            for key, item in self.entries:
                budget.wait(lambda: self._is_awaited)
                if is_over():
                    return
                self._reads.append(_read(key, item, budget))
                self._tell()
        except BaseException as error:
            self._failure = error
            self._tell()

    def taken(self, budget: Budget) -> Iterator[Read[K]]:
        """Yield the inputs as they are read."""
        for _ in self.entries:
            if not self._reads:
                # Before it looks again: else what is read in between would not be told.
                self._is_awaited = True
                budget.wake()
                with self._changed:
                    self._changed.wait_for(lambda: self._reads or self._failure)
                if not self._reads and self._failure is not None:
                    raise self._failure
            yield self._reads.popleft()

    def _tell(self) -> None:
        if self._is_awaited:
            # What comes after it is not urgent.
            self._is_awaited = False
            with self._changed:
                self._changed.notify()


class _Readers:
    """Threads that read. A read that hangs, as of a network mount, keeps nobody from ending.

    Threads of `concurrent.futures` would: Python joins them at its end.
    """

    def __init__(self, budget: Budget, threads: int) -> None:
        self._budget = budget
        self._queue: SimpleQueue[_Chunk[Any] | None] = SimpleQueue()
        self._count = threads
        self._is_closed = False
        for _ in range(threads):
            threading.Thread(target=self._work, name="visiongate-read", daemon=True).start()

    def submit(self, chunk: "_Chunk[Any]") -> None:
        self._queue.put(chunk)

    def close(self) -> None:
        """End the threads as soon as what they read now is read."""
        self._is_closed = True
        for _ in range(self._count):
            self._queue.put(None)

    def _work(self) -> None:
        while (chunk := self._queue.get()) is not None:
            if not self._is_closed:
                chunk.read(self._budget, lambda: self._is_closed)


def _read(key: K, item: Item, budget: Budget) -> Read[K]:
    try:
        data = item.read()
        check_length(len(data), "it")
        if not data:
            return Read(key, item, sha256=_hash(data), failure=_failure("INVALID_ARGUMENT", "it is empty"))
    except (OSError, ValueError) as error:
        return Read(key, item, failure=failure_of(error))
    budget.add(len(data))
    return Read(key, item, data, _hash(data))


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def failure_of(error: OSError | ValueError | TypeError) -> Failure:
    """Return why an image could not be read, with the status that says it best."""
    match error:
        case FileNotFoundError():
            code = grpc.StatusCode.NOT_FOUND
        case PermissionError():
            code = grpc.StatusCode.PERMISSION_DENIED
        case TimeoutError() | ConnectionError():
            code = grpc.StatusCode.UNAVAILABLE
        case _:
            code = grpc.StatusCode.INVALID_ARGUMENT
    return _failure(code.name, str(error) or type(error).__name__)


def _failure(status: str, message: str) -> Failure:
    return Failure(status, writable(message))


def writable(text: str) -> str:
    r"""Return a text as UTF-8 can hold it: names of files may have surrogates, which become `\udcff`."""
    return text.encode("utf-8", "backslashreplace").decode()
