"""Who calls, and how much of the server one caller may have while there are others.

A caller is the name of an API key, or, without keys, the address that its connections come from. Of IPv6 the
first half of an address counts: whoever has one has all that begin like it.
"""

import ipaddress
import time
from collections.abc import Sized
from contextlib import AbstractContextManager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import lru_cache
from types import TracebackType

REMEMBERED_S = 600.0
"""An address that called so long ago counts as a caller beside the others."""

_IPV6_PREFIX_BITS = 64


class Callers:
    """Knows whether a caller is the only one. It belongs to one event loop.

    max_share: of each amount, what one caller of several may have.
    keys: the names of API keys, if calls need one.
    """

    def __init__(self, max_share: float = 1.0, keys: Sized | None = None) -> None:
        self._max_share = max_share
        self._keys = keys
        # When the two addresses called that called last. Nobody can fill the memory with addresses.
        self._last_calls: dict[str, float] = {}

    def find(self, key_name: str, address: str) -> "Caller":
        """Return the caller of a call that begins now, by its key's name, or its address if that is empty."""
        if key_name:
            return Caller(f"key {key_name}", "your API key", self)
        name = network(address)
        if not name:
            # gRPC does not know any more where a call came from whose connection has broken.
            return Caller(name, "your address", self)
        self._last_calls.pop(name, None)
        while len(self._last_calls) > 1:
            del self._last_calls[next(iter(self._last_calls))]
        self._last_calls[name] = time.monotonic()
        return Caller(name, "your address", self)

    def share(self, caller: "Caller") -> float:
        """Return how much of each amount a caller may have: all, while it is the only one.

        Each key is a caller, whether it calls or not. An address is one from its first call on: a proxy,
        behind which all callers have one address, is alone.
        """
        if self._keys is not None:
            return 1.0 if len(self._keys) < 2 else self._max_share
        if len(self._last_calls) < 2:
            return 1.0
        since = time.monotonic() - REMEMBERED_S
        others = (name for name, called_at in self._last_calls.items() if called_at > since)
        return self._max_share if any(name != caller.name for name in others) else 1.0


@dataclass(frozen=True, slots=True)
class Caller:
    """One caller. `words` is what it calls that by which it is known."""

    name: str
    words: str = field(compare=False)
    callers: Callers = field(compare=False, repr=False)


NOBODY = Caller("", "", Callers())
"""The caller of work that is done for no call: it is alone."""


class Portions:
    """An amount of something, which callers share."""

    def __init__(self, amount: int) -> None:
        self.amount = amount
        self.taken = 0
        self._taken_by: dict[str, int] = {}

    def taken_by(self, caller: Caller) -> int:
        """Return how much a caller has."""
        return self._taken_by.get(caller.name, 0)

    def most_for(self, caller: Caller) -> int:
        """Return how much a caller may have: one at least."""
        return max(1, int(self.amount * caller.callers.share(caller)))

    def has_share(self, caller: Caller, more: int) -> bool:
        """Return whether so many more are within a caller's share. Who has nothing may always begin."""
        has = self.taken_by(caller)
        if not has:
            return True
        most = self.most_for(caller)
        return has + more <= most or most >= self.amount

    def take(self, caller: Caller, change: int) -> None:
        """Give a caller more, or less."""
        self.taken += change
        taken = self._taken_by.get(caller.name, 0) + change
        if taken:
            self._taken_by[caller.name] = taken
        else:
            self._taken_by.pop(caller.name, None)


_current: ContextVar[Caller] = ContextVar("caller", default=NOBODY)


def current() -> Caller:
    """Return the caller that this code works for. Work that calls share is done for the first of them."""
    return _current.get()


class working_for(AbstractContextManager[None]):  # noqa: N801 - it reads as the function that it could be
    """Work for a caller inside."""

    __slots__ = ("_caller", "_token")

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    def __enter__(self) -> None:
        self._token = _current.set(self._caller)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _current.reset(self._token)


@lru_cache(1024)
def network(address: str) -> str:
    """Return what the addresses of one caller have in common; empty for a text that is no IP address."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return ""
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped:
            return str(ip.ipv4_mapped)
        return str(ipaddress.IPv6Network((int(ip), _IPV6_PREFIX_BITS), strict=False))
    return str(ip)
