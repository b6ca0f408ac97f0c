"""What a call holds stays held until the call, and every thread that still works for it, is done.

A thread cannot be cancelled. If the places and the memory of a call were free as soon as its caller leaves,
callers who leave early could fill the process with work that nobody counts.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from contextvars import ContextVar
from types import TracebackType


class _Hold:
    """Something to release once its last user is done. It belongs to one event loop."""

    def __init__(self, release: Callable[[], None]) -> None:
        self._release = release
        self._users = 1

    def share(self) -> bool:
        """Add a user. Return False if the last one is done already, for nothing is held then."""
        if self._users:
            self._users += 1
        return self._users > 0

    def done(self) -> None:
        """Remove a user."""
        self._users -= 1
        if not self._users:
            self._release()


_held: ContextVar[tuple[_Hold, ...]] = ContextVar("held", default=())


class holding(AbstractContextManager[None]):  # noqa: N801 - it reads as the function that it could be
    """Call `release` at the end, or when the last thread is done that `keep` was called for inside."""

    __slots__ = ("_hold", "_token")

    def __init__(self, release: Callable[[], None]) -> None:
        self._hold = _Hold(release)

    def __enter__(self) -> None:
        self._token = _held.set((*_held.get(), self._hold))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _held.reset(self._token)
        self._hold.done()


def keep() -> Callable[[], None]:
    """Keep all that the current code holds, until the returned function is called. It must be called once."""
    shared = [hold for hold in _held.get() if hold.share()]

    def done() -> None:
        for hold in shared:
            hold.done()

    return done
