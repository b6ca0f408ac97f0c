"""Inputs' bytes, read ahead in threads."""

import hashlib
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Generic, TypeVar

import grpc

from visiongate.batch.item import Item
from visiongate.operations.image_file import check_length

K = TypeVar("K")

THREADS = 8
AHEAD = 64
"""Inputs that are read before they are needed."""


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

    def wait(self) -> None:
        """Wait for room, or for `close`."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_closed or self._held < self._limit)

    def close(self) -> None:
        """Let nobody wait any more."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()


def read_ahead(
    entries: Iterable[tuple[K, Item]], budget: Budget, threads: int = THREADS
) -> Iterator[Read[K]]:
    """Yield inputs in their order, read. Those that cannot be read have a failure.

    The budget is what is read and not released; the caller releases it. A read begins while it has room, so
    it is exceeded by no more than what all threads read at once. Raises what `entries` raises, after the
    inputs before.
    """
    pending: deque[Future[Read[K]]] = deque()
    unread = iter(entries)
    raised: BaseException | None = None
    is_over = False
    readers = _Readers(budget, threads)
    try:
        while True:
            while not is_over and len(pending) < AHEAD:
                try:
                    key, item = next(unread)
                except StopIteration:
                    is_over = True
                except Exception as error:
                    raised, is_over = error, True
                else:
                    pending.append(readers.submit(key, item))
            if not pending:
                break
            yield pending.popleft().result()
        if raised is not None:
            raise raised
    finally:
        readers.close()


class _Readers:
    """Threads that read. A read that hangs, as of a network mount, keeps nobody from ending.

    Threads of `concurrent.futures` would: Python joins them at its end.
    """

    def __init__(self, budget: Budget, threads: int) -> None:
        self._budget = budget
        self._queue: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._count = threads
        self._turn = threading.Lock()
        self._is_closed = False
        for _ in range(threads):
            threading.Thread(target=self._work, name="visiongate-read", daemon=True).start()

    def submit(self, key: K, item: Item) -> Future[Read[K]]:
        future: Future[Read[K]] = Future()

        def work() -> None:
            try:
                future.set_result(_read(key, item, self._budget))
            except BaseException as error:
                future.set_exception(error)

        self._queue.put(work)
        return future

    def close(self) -> None:
        """End the threads as soon as what they read now is read."""
        self._is_closed = True
        for _ in range(self._count):
            self._queue.put(None)

    def _work(self) -> None:
        while True:
            # One after another: else later inputs could take the room that the next one waits for.
            with self._turn:
                work = self._queue.get()
                if work is None:
                    return
                self._budget.wait()
            if not self._is_closed:
                work()


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
