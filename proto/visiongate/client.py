"""The clients: one for plain code, one for asyncio.

    with visiongate.Client("127.0.0.1:50051") as client:
        for found in client.segment_phrases("truck.jpg", ["truck", "wheel"]):
            print(found.detection.phrase, found.mask.area)

    client = visiongate.Client("vision.example.com:443", tls=True, api_key=os.environ["VISIONGATE_API_KEY"])

Every method raises `VisiongateError` where the server says no, or nothing.
"""

import asyncio
import functools
import time
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

import grpc
import grpc.aio

from visiongate import operations
from visiongate.connection import Connection, Pem
from visiongate.operations import Operation
from visiongate.retry import Attempts

P = ParamSpec("P")
R = TypeVar("R")

OPTIONS = (
    # Answers with many masks pass gRPC's default of 4 MiB.
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    # By itself gRPC sends a call again that a server had not seen when it closed an old connection; but only
    # one whose request it kept, and it keeps 256 KiB.
    ("grpc.per_rpc_retry_buffer_size", 2**30),
    # A server whose host has vanished is given up soon, and not after a quarter of an hour.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
)


def _sync(operation: Callable[P, Operation[R]]) -> "Callable[Concatenate[Client, P], R]":
    @functools.wraps(operation)
    def method(self: "Client", /, *arguments: P.args, **keywords: P.kwargs) -> R:
        return self.call(operation(*arguments, **keywords))

    return method


def _async(
    operation: Callable[P, Operation[R]],
) -> "Callable[Concatenate[AsyncClient, P], Coroutine[Any, Any, R]]":
    @functools.wraps(operation)
    async def method(self: "AsyncClient", /, *arguments: P.args, **keywords: P.kwargs) -> R:
        return await self.call(operation(*arguments, **keywords))

    return method


class Client:
    """A connection to a visiongate server; safe to share between threads.

    `timeout` is the deadline of every call, in seconds; the server drops the work of a call that is past it.
    Within it a call that a full server refuses is sent again when the server says, unless `wait_when_full` is
    false: the error then comes at once, with that time as its `retry_s`.

    `tls=True` encrypts, and checks the server's certificate by the authorities that this machine trusts;
    `root_certificates` does so by others. `client_certificate` and `client_key` are for a server that asks
    for them. Each of the three is a path or PEM bytes, and implies TLS.

    `api_key` is sent with every call. Unencrypted it goes to this machine alone: for any other address
    ValueError is raised, unless `tls=False` says that the network itself keeps it secret.
    """

    def __init__(
        self,
        address: str = "127.0.0.1:50051",
        *,
        timeout: float = 60,
        wait_when_full: bool = True,
        api_key: str | None = None,
        tls: bool | None = None,
        root_certificates: Pem | None = None,
        client_certificate: Pem | None = None,
        client_key: Pem | None = None,
    ) -> None:
        self._timeout = timeout
        self._wait_when_full = wait_when_full
        connection = Connection(
            address,
            api_key=api_key,
            tls=tls,
            root_certificates=root_certificates,
            client_certificate=client_certificate,
            client_key=client_key,
        )
        self._metadata = connection.metadata
        self._channel = (
            grpc.insecure_channel(address, options=OPTIONS)
            if connection.credentials is None
            else grpc.secure_channel(address, connection.credentials, options=OPTIONS)
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._channel.close()

    def call(self, operation: Operation[R]) -> R:
        """Send an operation of `visiongate.operations` and read its answer."""
        method = self._channel.unary_unary(
            operation.method,
            request_serializer=type(operation.request).SerializeToString,
            response_deserializer=operation.response_type.FromString,
        )
        attempts = Attempts(self._timeout, self._wait_when_full)
        while True:
            try:
                answer = method(operation.request, timeout=attempts.left_s, metadata=self._metadata)
            except grpc.RpcError as error:
                pause_s = attempts.pause_s(error)
            else:
                return operation.parse(answer, "")
            time.sleep(pause_s)

    detect = _sync(operations.detect)
    segment = _sync(operations.segment)
    segment_phrases = _sync(operations.segment_phrases)
    segment_everything = _sync(operations.segment_everything)
    encode_image = _sync(operations.encode_image)
    embed_images = _sync(operations.embed_images)
    embed_texts = _sync(operations.embed_texts)
    compare = _sync(operations.compare)
    classify = _sync(operations.classify)
    estimate_gaze = _sync(operations.estimate_gaze)
    recognize_text = _sync(operations.recognize_text)
    list_models = _sync(operations.list_models)


class AsyncClient:
    """A connection to a visiongate server for asyncio; cancelling an awaited call cancels its work.

    The arguments are those of `Client`.
    """

    def __init__(
        self,
        address: str = "127.0.0.1:50051",
        *,
        timeout: float = 60,
        wait_when_full: bool = True,
        api_key: str | None = None,
        tls: bool | None = None,
        root_certificates: Pem | None = None,
        client_certificate: Pem | None = None,
        client_key: Pem | None = None,
    ) -> None:
        self._timeout = timeout
        self._wait_when_full = wait_when_full
        connection = Connection(
            address,
            api_key=api_key,
            tls=tls,
            root_certificates=root_certificates,
            client_certificate=client_certificate,
            client_key=client_key,
        )
        self._metadata = connection.metadata
        self._channel = (
            grpc.aio.insecure_channel(address, options=OPTIONS)
            if connection.credentials is None
            else grpc.aio.secure_channel(address, connection.credentials, options=OPTIONS)
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        await self._channel.close()

    async def call(self, operation: Operation[R]) -> R:
        """Send an operation of `visiongate.operations` and read its answer."""
        method = self._channel.unary_unary(
            operation.method,
            request_serializer=type(operation.request).SerializeToString,
            response_deserializer=operation.response_type.FromString,
        )
        attempts = Attempts(self._timeout, self._wait_when_full)
        while True:
            try:
                answer = await method(operation.request, timeout=attempts.left_s, metadata=self._metadata)
            except grpc.aio.AioRpcError as error:
                pause_s = attempts.pause_s(error)
            else:
                return operation.parse(answer, "")
            await asyncio.sleep(pause_s)

    detect = _async(operations.detect)
    segment = _async(operations.segment)
    segment_phrases = _async(operations.segment_phrases)
    segment_everything = _async(operations.segment_everything)
    encode_image = _async(operations.encode_image)
    embed_images = _async(operations.embed_images)
    embed_texts = _async(operations.embed_texts)
    compare = _async(operations.compare)
    classify = _async(operations.classify)
    estimate_gaze = _async(operations.estimate_gaze)
    recognize_text = _async(operations.recognize_text)
    list_models = _async(operations.list_models)
