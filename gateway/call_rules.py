"""What holds for every call and every item of a stream: who asks, and how long it may take."""

import asyncio
import functools
import logging
import math
from dataclasses import dataclass
from typing import Protocol

from gateway.admission import Gate
from gateway.alarms import Alarms, limit
from gateway.call import Call
from gateway.call_context import Context, Metadata, metadata_of
from gateway.connections import close_connection
from gateway.loopback import Loopback, is_loopback
from gateway.trusted_proxies import NO_PROXIES, TrustedProxies

logger = logging.getLogger(__name__)

END_S = 0.05
"""A moment, within which gRPC ends a call that is over."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Most seconds that a call may take, of these until its message is here, and then to take its answer."""

    max_call_s: float
    max_receive_s: float
    max_send_s: float
    max_message_bytes: int
    max_response_bytes: int


class Authenticator(Protocol):
    """Knows callers by what they send."""

    def authenticate(self, metadata: Metadata) -> str:
        """Return the caller's name. Raise StatusError with UNAUTHENTICATED if there is none."""


class CallRules:
    """The rules of one server. Everything is counted by its gate."""

    def __init__(
        self,
        gate: Gate,
        limits: Limits,
        authenticator: Authenticator | None,
        loopback: Loopback | None = None,
        proxies: TrustedProxies = NO_PROXIES,
    ) -> None:
        self.gate = gate
        self.limits = limits
        self.proxies = proxies
        self._authenticator = authenticator
        self._loopback = loopback
        self._cut_off_s = math.inf

    def cut_off(self, grace_s: float) -> None:
        """Take note that gRPC ends all that is there after so many seconds."""
        # A little earlier: gRPC has a clock of its own.
        self._cut_off_s = asyncio.get_running_loop().time() + grace_s - END_S

    @property
    def is_cut_off(self) -> bool:
        """Whether gRPC ends all that is there now."""
        return asyncio.get_running_loop().time() >= self._cut_off_s

    def authenticate(self, context: Context, call: Call) -> None:
        """Note who calls. Raises StatusError with UNAUTHENTICATED if nobody known does."""
        if self._loopback is not None and is_loopback(context.peer()):
            self._loopback.check(metadata_of(context))
        if self._authenticator is not None:
            call.caller = self._authenticator.authenticate(metadata_of(context))

    def connection(self, context: Context) -> str:
        """Return gRPC's name for the other end of the connection: of the HTTP front's caller, not of it."""
        peer = context.peer()
        if self._loopback is not None and is_loopback(peer):
            return self._loopback.peer(metadata_of(context)) or peer
        return peer

    def time_limit(self, alarms: Alarms | None = None) -> limit:
        """Raise DEADLINE_EXCEEDED inside, once a call has taken the time that it may take."""
        words = "the server gives a call {:g} seconds, and this took longer"
        return limit(self.limits.max_call_s, words, "MAX_CALL_TIME", "server", alarms)

    def give_up_later(self, call: Call, alarms: Alarms | None = None) -> Alarms:
        """Close the caller's connection, unless it takes an answer in time: the result is closed then."""
        seconds = self.limits.max_send_s
        alarms = alarms or Alarms(seconds)
        alarms.add(seconds, functools.partial(_give_up, call, seconds))
        return alarms


def _give_up(call: Call, seconds: float) -> None:
    """End a call whose caller does not take the answer, the only way there is."""
    if close_connection(call.connection, "answer"):
        logger.warning(
            "request %s: %s has not taken the answer of %s within %g seconds: its connection is closed",
            *(call.request_id, call.connection, call.method, seconds),
        )
