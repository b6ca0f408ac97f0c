"""The base of both clients: their options, for all calls and for some."""

import copy
from collections.abc import Mapping
from enum import Enum
from typing import Any, Final, Generic, Self, TypeVar

from visiongate.call import Call
from visiongate.channels import Channels
from visiongate.connection import Connection, Pem
from visiongate.exchange import Exchange
from visiongate.operations import Operation
from visiongate.options import (
    TRACEPARENT,
    CallOptions,
    checked_metadata,
    checked_request_id,
    checked_seconds,
    checked_traceparent,
)

R = TypeVar("R")
C = TypeVar("C", bound=Channels[Any])

DEFAULT_MAX_MESSAGE_BYTES = 36 * 2**20
# Protobuf's own limit.
_MAX_MESSAGE_BYTES = 2**31 - 1
_MAX_CHANNELS = 256


class _Unchanged(Enum):
    UNCHANGED = "as it is"

    def __repr__(self) -> str:
        return self.value


UNCHANGED: Final = _Unchanged.UNCHANGED


class BaseClient(Generic[C]):
    """The base of `Client` and `AsyncClient`: their options, for all calls and for some."""

    _channels_type: type[C]

    def __init__(
        self,
        address: str | None = None,
        *,
        timeout: float | None = 60,
        wait: bool = True,
        api_key: str | None = None,
        tls: bool | None = None,
        root_certificates: Pem | None = None,
        client_certificate: Pem | None = None,
        client_key: Pem | None = None,
        max_message_bytes: int = DEFAULT_MAX_MESSAGE_BYTES,
        channels: int = 1,
    ) -> None:
        """Keep the options. Nothing is sent, and no connection made, before the first call.

        `address` is host, host:port (50051 by default), an IPv6 address or `unix:/path`. It is
        127.0.0.1:50051 if neither it nor VISIONGATE_SERVER is given.

        `timeout` is what each call may take, in seconds; None is no limit. The server drops the work of a
        call that is past it. Within it a call waits for a server that is full, restarts or cannot be reached:
        it is sent again after pauses that grow to a second, or for a full server to the pause that the server
        asks for. If no server has ever answered this client, the call fails after two seconds: the address is
        likely to be wrong. With `wait=False` the first such error is raised.

        `tls=True` encrypts, and checks the server's certificate by the authorities that this machine trusts;
        `root_certificates` names other authorities. `client_certificate` and `client_key` are for a server
        that asks for them. Each of the three is a path or PEM bytes, and implies TLS.

        `api_key` is sent with every call. Unencrypted it goes to this machine alone: for any other address
        ValueError is raised, unless `tls=False` says that the network itself keeps it secret. In that case,
        and for addresses of this machine, the client ignores proxies that the environment names.

        A request over `max_message_bytes` is refused before it is sent. The default is the server's.

        `channels` is the number of connections, which calls use by turns. A connection has one process of a
        server that has several: with more, one client can use them all. Each has caches of its own.

        Arguments that are not given are read from VISIONGATE_SERVER, VISIONGATE_API_KEY, VISIONGATE_TLS (1 or
        0), VISIONGATE_CA, VISIONGATE_CERT and VISIONGATE_CERT_KEY; an empty variable counts as unset.

        Raises ValueError for an argument that makes no sense, and OSError for a file that cannot be read.
        """
        if not isinstance(max_message_bytes, int) or not 0 < max_message_bytes <= _MAX_MESSAGE_BYTES:
            raise ValueError(
                f"max_message_bytes is {max_message_bytes!r}: give a whole number, 1 to {_MAX_MESSAGE_BYTES}"
            )
        if isinstance(channels, bool) or not isinstance(channels, int) or not 0 < channels <= _MAX_CHANNELS:
            raise ValueError(f"channels is {channels!r}: give a whole number, 1 to {_MAX_CHANNELS}")
        self._max_message_bytes = max_message_bytes
        self._options = CallOptions(checked_seconds("timeout", timeout), wait)
        self._connection = Connection(
            address,
            api_key=api_key,
            tls=tls,
            root_certificates=root_certificates,
            client_certificate=client_certificate,
            client_key=client_key,
        )
        self._channels = self._channels_type(self._connection, channels)

    @property
    def address(self) -> str:
        """The server's address, host:port."""
        return self._connection.address.text

    def with_options(
        self,
        *,
        timeout: float | _Unchanged | None = UNCHANGED,
        wait: bool | _Unchanged = UNCHANGED,
        request_id: str | None = None,
        traceparent: str | None = None,
        metadata: Mapping[str, str | bytes] | None = None,
    ) -> Self:
        """Return a client of the same connection whose calls differ, as in `client.with_options(timeout=3)`.

        `timeout` and `wait` are as for the client itself. `request_id` is what the server's log calls the
        calls, 1 to 128 visible ASCII characters; by default each call has a random one. `traceparent` (W3C
        Trace Context) makes the calls part of a trace. `metadata` is sent beside the request, in addition to
        what this client sends; if both have a key, the new value counts.

        The new client costs next to nothing. Closing it closes the connection of both.
        """
        new = checked_metadata({} if metadata is None else metadata)
        if traceparent is not None:
            new += ((TRACEPARENT, checked_traceparent(traceparent)),)
        old = self._options
        replaced = {key for key, _ in new}
        view = copy.copy(self)
        view._options = CallOptions(
            timeout_s=old.timeout_s if timeout is UNCHANGED else checked_seconds("timeout", timeout),
            wait=old.wait if wait is UNCHANGED else wait,
            request_id=old.request_id if request_id is None else checked_request_id(request_id),
            metadata=(*(pair for pair in old.metadata if pair[0] not in replaced), *new),
        )
        return view

    def _exchange(self, *, ordered: bool, window: int) -> Exchange:
        options = self._options
        return Exchange(self._begin, self._connection, options, ordered=ordered, window=window)

    def _begin(self, operation: Operation[R]) -> Call[R]:
        return Call(operation, self._connection, self._options, self._max_message_bytes)
