"""The time limits of one call, on a single timer of the event loop.

Most calls end long before any of their limits. A timer for each would be set and cancelled in vain.
"""

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import TracebackType

from gateway.errors import DeadlineExceededError, Fault


class Alarms:
    """Calls functions at their times. It belongs to one event loop.

    The timer rings for the first time after `first_s`. Limits that end later are looked at then, unless they
    have been removed. Whoever makes one must close it.
    """

    __slots__ = ("_alarms", "_loop", "_timer")
    _timer: asyncio.TimerHandle | None

    def __init__(self, first_s: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._alarms: list[Alarm] = []
        self._timer = self._loop.call_later(first_s, self._ring)

    def add(self, seconds: float, ring: Callable[[], None]) -> "Alarm":
        """Call `ring` in so many seconds, and return what `remove` takes."""
        alarm = Alarm(self._loop.time() + seconds, ring)
        self._alarms.append(alarm)
        self._set(alarm.time)
        return alarm

    def remove(self, alarm: "Alarm") -> None:
        """Do not call a function. Nothing happens if it was called already."""
        if alarm in self._alarms:
            self._alarms.remove(alarm)

    def close(self) -> None:
        """Call nothing any more."""
        self._alarms.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _set(self, time: float) -> None:
        if self._timer is not None:
            if self._timer.when() <= time:
                return
            self._timer.cancel()
        self._timer = self._loop.call_at(time, self._ring)

    def _ring(self) -> None:
        self._timer = None
        now = self._loop.time()
        due = [alarm for alarm in self._alarms if alarm.time <= now]
        self._alarms = [alarm for alarm in self._alarms if alarm.time > now]
        if self._alarms:
            self._set(min(alarm.time for alarm in self._alarms))
        for alarm in due:
            alarm.ring()


class Alarm:
    """A function, and when it is called."""

    __slots__ = ("ring", "time")

    def __init__(self, time: float, ring: Callable[[], None]) -> None:
        self.time = time
        self.ring = ring


class interruption(AbstractContextManager["interruption"]):  # noqa: N801 - as asyncio.timeout
    """Work that `strike` cancels. It knows its own cancellation from others', as asyncio.timeout does."""

    __slots__ = ("_cancelling", "_task", "has_struck")

    def __init__(self) -> None:
        self.has_struck = False

    def __enter__(self) -> "interruption":
        task = asyncio.current_task()
        assert task is not None
        self._task, self._cancelling = task, task.cancelling()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def strike(self) -> None:
        """Cancel the work."""
        self.has_struck = True
        self._task.cancel()

    def is_cause_of(self, kind: type[BaseException] | None) -> bool:
        """Return whether the work ended by `strike` alone. To be asked once, at its end."""
        if not self.has_struck:
            return False
        return self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError


class limit(interruption):  # noqa: N801
    """Raise DEADLINE_EXCEEDED after so many seconds. A TimeoutError of the work inside is left alone.

    `words` say what took too long, with the seconds in their place.
    """

    __slots__ = ("_alarm", "_alarms", "_end", "_is_alone", "_seconds")

    def __init__(
        self, seconds: float, words: str, reason: str, fault: Fault, alarms: Alarms | None = None
    ) -> None:
        super().__init__()
        self._seconds = seconds
        self._end = words, reason, fault
        self._is_alone = alarms is None
        self._alarms = alarms or Alarms(seconds)

    def __enter__(self) -> "limit":
        super().__enter__()
        self._alarm = self._alarms.add(self._seconds, self.strike)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._alarms.remove(self._alarm)
        del self._alarm  # it knows this, and a cycle would keep the task
        if self._is_alone:
            self._alarms.close()
        if self.is_cause_of(kind):
            words, reason, fault = self._end
            raise DeadlineExceededError(words.format(self._seconds), reason, fault) from error
