"""A discrete simulation of callers, gateways, Tritons and what fails.

A call is a list of steps. Each step waits for its turn somewhere (an event loop, a thread, a model's
instance), then works on a machine, whose cores are shared fairly by all that works there.
"""

import heapq
import itertools
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Protocol

Then = Callable[[], None]


class Clock:
    """Seconds since the start, and what happens when."""

    def __init__(self) -> None:
        self.now = 0.0
        self._events: list[tuple[float, int, Then]] = []
        self._order = itertools.count()

    def after(self, seconds: float, then: Then) -> None:
        heapq.heappush(self._events, (self.now + seconds, next(self._order), then))

    def run(self, until: float) -> None:
        while self._events and self._events[0][0] <= until:
            self.now, _, then = heapq.heappop(self._events)
            then()
        self.now = until


class Machine:
    """Cores that all work in progress shares: of more than there are cores, each gets an equal part.

    A GPU is a machine with one core: its kernels take turns.
    """

    def __init__(self, clock: Clock, cores: float) -> None:
        self._clock, self._cores = clock, cores
        self._progress = self._since = self.busy_s = 0.0
        # Work ends when `_progress`, the seconds that each piece of work has got so far, reaches its number.
        self._ends: list[tuple[float, int, Then]] = []
        self._order = itertools.count()
        self._plan = 0

    def work(self, seconds: float, then: Then) -> None:
        self._advance()
        heapq.heappush(self._ends, (self._progress + seconds, next(self._order), then))
        self._look_ahead()

    def _pace(self) -> float:
        return min(1.0, self._cores / len(self._ends)) if self._ends else 0.0

    def _advance(self) -> None:
        passed = self._clock.now - self._since
        self._progress += passed * self._pace()
        self.busy_s += passed * min(self._cores, len(self._ends))
        self._since = self._clock.now

    def _look_ahead(self) -> None:
        self._plan += 1
        if self._ends:
            plan = self._plan
            self._clock.after((self._ends[0][0] - self._progress) / self._pace(), lambda: self._end(plan))

    def _end(self, plan: int) -> None:
        if plan != self._plan:  # other work has come meanwhile
            return
        self._advance()
        _, _, then = heapq.heappop(self._ends)
        self._look_ahead()
        then()


class Place(Protocol):
    """Where a call waits for its turn, and then works."""

    @property
    def waiting(self) -> int:
        """How much waits or works here."""

    def enter(self, seconds: float, then: Then) -> None:
        """Call `then` once the work is done."""


class Workers:
    """Threads, or one event loop, that take what comes in its order."""

    def __init__(self, machine: Machine, count: int) -> None:
        self._machine, self._free = machine, count
        self._queue: deque[tuple[float, Then]] = deque()
        self.waiting = 0

    def enter(self, seconds: float, then: Then) -> None:
        self.waiting += 1
        self._queue.append((seconds, then))
        self._start()

    def _start(self) -> None:
        while self._free and self._queue:
            self._free -= 1
            seconds, then = self._queue.popleft()
            self._machine.work(seconds, lambda then=then: self._done(then))  # type: ignore[misc]

    def _done(self, then: Then) -> None:
        self._free += 1
        self.waiting -= 1
        self._start()
        then()


class Model:
    """A model in Triton: an instance that is free takes all that waits, up to the largest batch.

    batch_s: the seconds of a batch by its size, sorted; between two sizes the line through both holds.
    cores: on how many a batch works at a time.
    """

    def __init__(
        self,
        machine: Machine,
        batch_s: Sequence[tuple[int, float]],
        instances: int,
        max_batch: int,
        cores: int = 1,
    ) -> None:
        self._machine, self._batch_s, self._max_batch, self._cores = machine, batch_s, max_batch, cores
        self._free = instances
        self._queue: deque[Then] = deque()
        self.waiting = 0
        self.batches = self.items = 0

    def seconds(self, size: int) -> float:
        return batch_seconds(self._batch_s, size)

    def enter(self, seconds: float, then: Then) -> None:
        """Add an item to the queue. Its seconds are the batch's, whatever is given."""
        del seconds
        self.waiting += 1
        self._queue.append(then)
        self._start()

    def _start(self) -> None:
        while self._free and self._queue:
            self._free -= 1
            batch = [self._queue.popleft() for _ in range(min(self._max_batch, len(self._queue)))]
            self.batches += 1
            self.items += len(batch)
            self._work(batch)

    def _work(self, batch: list[Then]) -> None:
        left = self._cores

        def one_done() -> None:
            nonlocal left
            left -= 1
            if not left:
                self._done(batch)

        for _ in range(self._cores):
            self._machine.work(self.seconds(len(batch)), one_done)

    def _done(self, batch: list[Then]) -> None:
        self._free += 1
        self.waiting -= len(batch)
        self._start()
        for then in batch:
            then()


def batch_seconds(batch_s: Sequence[tuple[int, float]], size: int) -> float:
    """Return the seconds of a batch, from the sizes that were measured.

    Beyond the largest, each further item takes as long as one of the largest batch does.
    """
    (small, small_s), *rest = batch_s
    if size <= small:
        return small_s
    for large, large_s in rest:
        if size <= large:
            return small_s + (large_s - small_s) * (size - small) / (large - small)
        small, small_s = large, large_s
    return small_s * size / small


@dataclass
class Group:
    """Servers of one kind. A step goes to the least busy of those that run."""

    servers: list[dict[str, Place]]
    down: set[int] = field(default_factory=set)
    # Raised with each failure, so that work of a server that died is known.
    lives: dict[int, int] = field(default_factory=dict)

    def choose(self, room: str, ties: Random) -> int | None:
        running = [number for number in range(len(self.servers)) if number not in self.down]
        if not running:
            return None
        return min(running, key=lambda number: (self.servers[number][room].waiting, ties.random()))


@dataclass(frozen=True, slots=True)
class Step:
    """Work of a call: at which group, in which of its rooms, for how long, how often side by side."""

    group: str
    room: str
    seconds: float = 0.0
    count: int = 1


@dataclass
class Report:
    """What came out, of the calls that started after the warm-up."""

    seconds: float
    latencies_s: list[float]
    lost: int
    repeated: int

    @property
    def rate(self) -> float:
        return len(self.latencies_s) / self.seconds

    def quantile(self, share: float) -> float:
        """Return the seconds that this share of the calls took at most; nan without calls."""
        ordered = sorted(self.latencies_s)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")


class Simulation:
    """Groups of servers, and calls that go through them.

    repeat_s: after a server's death, seconds until a call that was there is tried at another.
    max_repeats: how often; then the call is lost.
    """

    def __init__(self, groups: dict[str, Group], clock: Clock, *, repeat_s: float, max_repeats: int) -> None:
        self.clock, self.groups = clock, groups
        self._repeat_s, self._max_repeats = repeat_s, max_repeats
        self._random = Random(0)  # noqa: S311  # the same chances at each run
        self._ended: list[tuple[float, float]] = []
        self._lost = self._repeated = 0

    def open_loop(self, rate: float, steps: Sequence[Step]) -> None:
        """Let calls come by chance, so many a second on average, whatever becomes of the others."""

        def come() -> None:
            self._call(steps, lambda: None)
            self.clock.after(self._random.expovariate(rate), come)

        self.clock.after(self._random.expovariate(rate), come)

    def closed_loop(self, callers: int, steps: Sequence[Step]) -> None:
        """Let so many callers ask again as soon as they have an answer."""

        def ask() -> None:
            self._call(steps, ask)

        for _ in range(callers):
            self.clock.after(self._random.random() * 1e-3, ask)

    def fail(self, group: str, number: int, at_s: float, repair_s: float) -> None:
        """Let a server die at a time, and come back so many seconds later."""
        servers = self.groups[group]

        def die() -> None:
            servers.down.add(number)
            servers.lives[number] = servers.lives.get(number, 0) + 1

        self.clock.after(at_s, die)
        self.clock.after(at_s + repair_s, lambda: servers.down.discard(number))

    def run(self, seconds: float, warm_up_s: float) -> Report:
        self.clock.run(warm_up_s + seconds)
        latencies = [end - start for start, end in self._ended if end >= warm_up_s]
        return Report(seconds, latencies, self._lost, self._repeated)

    def _call(self, steps: Sequence[Step], done: Then) -> None:
        start = self.clock.now

        def ended() -> None:
            self._ended.append((start, self.clock.now))
            done()

        def lost() -> None:
            self._lost += 1
            done()

        self._go(steps, 0, ended, lost)

    def _go(self, steps: Sequence[Step], index: int, ended: Then, lost: Then) -> None:
        if index == len(steps):
            ended()
            return
        step = steps[index]
        left = step.count

        def one_done() -> None:
            nonlocal left
            left -= 1
            if not left:
                self._go(steps, index + 1, ended, lost)

        def one_lost() -> None:
            nonlocal left
            if left > 0:
                left = -1  # the others' ends change nothing any more
                lost()

        if not step.count:
            self._go(steps, index + 1, ended, lost)
        for _ in range(step.count):
            self._try(step, self._max_repeats, one_done, one_lost)

    def _try(self, step: Step, repeats: int, done: Then, lost: Then) -> None:
        group = self.groups[step.group]
        number = group.choose(step.room, self._random)

        def again() -> None:
            if repeats:
                self._repeated += 1
                self.clock.after(self._repeat_s, lambda: self._try(step, repeats - 1, done, lost))
            else:
                lost()

        if number is None:
            again()
            return
        life = group.lives.get(number, 0)

        def worked() -> None:
            if group.lives.get(number, 0) == life:
                done()
            else:
                again()

        group.servers[number][step.room].enter(step.seconds, worked)
