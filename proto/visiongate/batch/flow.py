"""From inputs to their results, in order: read ahead, asked in requests on streams, put back into order.

Whatever number of inputs there is, a bounded number of them, and of their bytes, is held at a time.
"""

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from visiongate.batch.item import Item
from visiongate.batch.progress import Stages, Stopwatch
from visiongate.batch.reading import AHEAD, Budget, Failure, Read, read_ahead
from visiongate.batch.servers import QUEUED, Request, Servers
from visiongate.batch.task import Row, Task
from visiongate.client import Client

K = TypeVar("K")

MAX_HELD_BYTES = 192 << 20
MAX_REQUEST_BYTES = 32 << 20
"""Of image files: a message has some more."""
STOP_S = 10.0
"""How long a job that is told to stop waits for what is under way."""
_TICK_S = 0.2
# Results that are taken out at once, so that a lock is for several.
_AT_A_TIME = 64
_JOIN_S = 1.0


@dataclass(slots=True)
class Result(Generic[K]):
    """An input and what became of it. sha256: None if it could not be read. elapsed_ms: None if not asked."""

    key: K
    item: Item
    sha256: str | None
    outcome: Row | Failure | None = None
    elapsed_ms: float | None = None
    held_bytes: int = 0


class Flow(Generic[K]):
    """Work on inputs, as a context that ends all threads and streams.

    `entries` are pairs of a key, which comes back with the result, and an input. They are taken in a thread
    of their own, as they are needed.
    """

    def __init__(
        self,
        entries: Iterable[tuple[K, Item]],
        task: Task,
        clients: Sequence[Client],
        *,
        batch_size: int,
        window: int,
        timeout_s: float,
    ) -> None:
        self._entries = entries
        self._batch_size = batch_size
        # As many again as can be under way: one slow request does not hold up the others at once.
        self._room = 2 * batch_size * (window * len(clients) + QUEUED) + AHEAD
        self._changed = threading.Condition()
        # By place: results that are to come, or that wait for those before them.
        self._results: dict[int, Result[K]] = {}
        self._next_place = self._emitted = 0
        # The first of those that are read, and not given to the servers yet.
        self._unput: int | None = None
        self._end: int | None = None
        self._raised: BaseException | None = None
        self._failure: BaseException | None = None
        self._is_stopping = self._is_closed = False
        self._stop_by = float("inf")
        self._budget = Budget(MAX_HELD_BYTES)
        self._servers = Servers(
            clients,
            task,
            window=window,
            timeout_s=timeout_s,
            on_answer=self._settle,
            on_failure=self._fail,
        )
        self._writing = Stopwatch()
        self.stages = Stages(self._servers.starved, self._servers.busy, self._writing, len(clients))
        self._feeder = threading.Thread(target=self._feed, name="visiongate-inputs", daemon=True)
        self._feeder.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End all threads and streams. Results that were not taken are dropped."""
        with self._changed:
            self._is_closed = self._is_stopping = True
            self._changed.notify_all()
        self._budget.close()
        self._servers.close()
        self._feeder.join(_JOIN_S)

    def stop(self) -> None:
        """Take no new inputs. Results of those that are under way still come, within STOP_S."""
        with self._changed:
            if self._is_stopping:
                return
            self._is_stopping = True
            self._stop_by = time.monotonic() + STOP_S
            self._changed.notify_all()
        self._servers.drop()

    @property
    def present(self) -> list[Client]:
        """Clients of the servers that are not gone, as far as is known."""
        return self._servers.present

    @property
    def lost(self) -> Mapping[str, str]:
        """Addresses of servers that take no more part, and why."""
        return self._servers.lost

    def results(self, tick: Callable[[], None]) -> Iterator[Result[K]]:
        """Yield the results in order. `tick` is called some times a second, also while none comes.

        Raises what `entries` raises, once all before are answered, and the error of a job that cannot go on.
        """
        ticked = 0.0

        def look_around() -> None:
            nonlocal ticked
            now = time.monotonic()
            if now - ticked >= _TICK_S:
                ticked = now
                tick()

        while True:
            look_around()
            ready: list[Result[K]] = []
            with self._changed:
                if not self._is_ready and not self._is_over:
                    self._changed.wait(_TICK_S)
                while self._is_ready and len(ready) < _AT_A_TIME:
                    ready.append(self._results.pop(self._emitted))
                    self._emitted += 1
                if not ready:
                    if self._failure is not None:
                        raise self._failure
                    if self._is_over:
                        if self._raised is not None:
                            raise self._raised
                        return
                    continue
                self._changed.notify_all()
            with self._writing:
                for result in ready:
                    yield result
                    look_around()

    @property
    def _is_ready(self) -> bool:
        result = self._results.get(self._emitted)
        return result is not None and result.outcome is not None and not self._is_left_out

    @property
    def _is_left_out(self) -> bool:
        unsent = self._servers.unsent
        return unsent is not None and self._emitted >= unsent

    @property
    def _is_over(self) -> bool:
        if self._failure is not None or self._is_left_out or time.monotonic() > self._stop_by:
            return True
        end = self._end
        if end is None and self._is_stopping:
            # The next input may take for ever to be read.
            end = self._next_place if self._unput is None else self._unput
        return end is not None and self._emitted >= end

    def _unless_stopped(self) -> Iterator[tuple[K, Item]]:
        for entry in self._entries:
            if self._is_stopping:
                return
            yield entry

    def _feed(self) -> None:
        """Read the inputs and make requests of them."""
        places: list[int] = []
        inputs: list[Read[Any]] = []
        size = 0

        def put() -> None:
            nonlocal size
            if places:
                self._servers.put(Request([*places], [*inputs]))
            places.clear()
            inputs.clear()
            size = 0
            self._unput = None

        try:
            for read in read_ahead(self._unless_stopped(), self._budget):
                if self._is_stopping:
                    break
                if self._next_place - self._emitted >= self._room:
                    # The first that is not answered may be among these.
                    put()
                    self._wait_for_room()
                place = self._next_place
                result = Result(read.key, read.item, read.sha256, held_bytes=len(read.data))
                if size + len(read.data) > MAX_REQUEST_BYTES:
                    put()
                with self._changed:
                    self._results[place] = result
                    self._next_place += 1
                    if read.failure is None and self._unput is None:
                        self._unput = place
                if read.failure is not None:
                    self._settle([place], [read.failure], None)
                    continue
                places.append(place)
                inputs.append(read)
                size += len(read.data)
                if len(inputs) == self._batch_size:
                    put()
            put()
        except BaseException as error:
            put()
            self._raised = error
        finally:
            self._servers.end()
            with self._changed:
                self._end = self._next_place
                self._changed.notify_all()

    def _wait_for_room(self) -> None:
        with self._servers.busy, self._changed:
            self._changed.wait_for(lambda: self._is_stopping or self._next_place - self._emitted < self._room)

    def _settle(
        self, places: Sequence[int], outcomes: Sequence[Row | Failure], elapsed_ms: float | None
    ) -> None:
        """Take the results of inputs. The first counts: a server may answer after another one."""
        held = 0
        with self._changed:
            for place, outcome in zip(places, outcomes, strict=True):
                result = self._results.get(place)
                if result is None or result.outcome is not None:
                    continue
                result.outcome, result.elapsed_ms = outcome, elapsed_ms
                held += result.held_bytes
            if self._emitted in places:
                self._changed.notify_all()
        self._budget.release(held)

    def _fail(self, error: BaseException) -> None:
        with self._changed:
            if self._failure is None:
                self._failure = error
            self._changed.notify_all()
