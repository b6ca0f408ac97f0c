"""Calls of the HTTP front to the gateway, for those who ask over HTTP."""

import asyncio
import contextlib
from collections.abc import Callable
from functools import cache
from typing import Any

import grpc
import grpc.aio
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.rpc import code_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc

from gateway.api_keys import ApiKeys
from gateway.call import REQUEST_ID
from gateway.errors import InvalidArgumentError
from gateway.http.exchange import DisconnectedError, Exchange, TooLargeError
from gateway.http.statuses import CallError
from gateway.loopback import Loopback
from visiongate.connection import NO_PROXY

TIMEOUT_HEADER = "x-timeout-s"
PASSED_ON = ("authorization", "x-api-key", "traceparent", "tracestate")
"""Headers that mean the same to the gateway as its own callers' metadata."""
MAX_PASSED_BYTES = 6 << 10
"""Of these headers together. gRPC may refuse metadata of more than 8 KiB, without saying which they are."""
MAX_TIMEOUT_S = 86_400.0
"""A longer deadline counts as this one. gRPC takes some that are far longer for past ones."""

_OPTIONS = (
    # gRPC would reach even this socket by the proxy that the environment names.
    *NO_PROXY,
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    # The gateway may begin to listen at any moment.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
    # The server may only be slow: no other is there to ask, and clients repeat calls themselves.
    ("grpc.enable_retries", 0),
)


class Calls:
    """The gateway as the front sees it. Made inside an event loop; `close` ends it.

    It lets nobody in before `begin`.
    """

    def __init__(self, loopback: Loopback) -> None:
        self._loopback = loopback
        self._channel = grpc.aio.insecure_channel(loopback.address, options=_OPTIONS)
        self._health = health_pb2_grpc.HealthStub(self._channel)
        self._stubs: dict[str, Callable[..., Any]] = {}
        self._authenticator: ApiKeys | None = None
        self._absent = "the server is starting: its models are not loaded yet"

    def begin(self, authenticator: ApiKeys | None) -> None:
        """Note that the gateway answers, and by what it knows its callers."""
        self._absent = ""
        self._authenticator = authenticator

    def admit(self, exchange: Exchange) -> None:
        """Raise the error of a call that the gateway would not take, before its body is read."""
        if self._absent:
            raise CallError(status_pb2.Status(code=code_pb2.UNAVAILABLE, message=self._absent))
        if self._authenticator is not None:
            self._authenticator.authenticate(_passed_on(exchange))

    async def close(self) -> None:
        """Close the connection to the gateway."""
        await self._channel.close()

    async def call(self, method: MethodDescriptor, request: Message, exchange: Exchange) -> Any:
        """Return the gateway's answer to a request; raise CallError for its error.

        Raises InvalidArgumentError for headers that cannot be passed on, TooLargeError if the gateway takes
        no such messages, and DisconnectedError if the caller leaves meanwhile.
        """
        timeout, passed_on = timeout_of(exchange), _passed_on(exchange)
        if request.ByteSize() > exchange.limits.max_message_bytes:
            raise TooLargeError("the request's message", exchange.limits.max_message_bytes)
        metadata = (
            *passed_on.items(),
            (REQUEST_ID, exchange.request_id),
            *self._loopback.metadata(exchange.peer),
        )
        call = self._stub(method)(request, metadata=metadata, timeout=timeout)
        leaving = asyncio.create_task(exchange.until_disconnect())
        leaving.add_done_callback(lambda _: call.cancel())
        try:
            return await call
        except grpc.aio.AioRpcError as error:
            raise CallError.of(error) from None
        except asyncio.CancelledError:
            if leaving.done():
                raise DisconnectedError from None
            raise
        finally:
            leaving.cancel()

    async def is_ready(self) -> bool:
        """Return whether the gateway can answer calls, as its health says."""
        if self._absent:
            return False
        try:
            answer = await self._health.Check(health_pb2.HealthCheckRequest())  # type: ignore[attr-defined]
        except grpc.aio.AioRpcError:
            return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

    def _stub(self, method: MethodDescriptor) -> Callable[..., Any]:
        path = path_of(method)
        if path not in self._stubs:
            self._stubs[path] = self._channel.unary_unary(
                path,
                request_serializer=GetMessageClass(method.input_type).SerializeToString,
                response_deserializer=GetMessageClass(method.output_type).FromString,
            )
        return self._stubs[path]


@cache
def path_of(method: MethodDescriptor) -> str:
    """Return gRPC's name of a method: /visiongate.v1.DetectionService/DetectObjects."""
    return f"/{method.containing_service.full_name}/{method.name}"


def _passed_on(exchange: Exchange) -> dict[str, str]:
    """Return what of a request's headers is for the gateway, with its API key, wherever that came from.

    Metadata of gRPC is printable ASCII. A header that is not is left out: no key is like that. Raises
    InvalidArgumentError if they are too long.
    """
    headers = {name: exchange.headers.get(name, "") for name in PASSED_ON}
    if exchange.api_key:
        headers["x-api-key"] = exchange.api_key
    size = 0
    for name, value in headers.items():
        size += len(value)
        if size > MAX_PASSED_BYTES:
            raise InvalidArgumentError(
                name, f"is too long: {', '.join(PASSED_ON)} have {MAX_PASSED_BYTES} bytes at most"
            )
    return {
        name: value for name, value in headers.items() if value and value.isascii() and value.isprintable()
    }


def timeout_of(exchange: Exchange) -> float | None:
    """Return the seconds that the caller gives, if it says."""
    text = exchange.headers.get(TIMEOUT_HEADER)
    if text is None:
        return None
    with contextlib.suppress(ValueError):
        if 0 < (seconds := float(text)) < float("inf"):
            return min(seconds, MAX_TIMEOUT_S)
    raise InvalidArgumentError(TIMEOUT_HEADER, "must be a number of seconds above 0, such as 2.5")
