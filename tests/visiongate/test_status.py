"""What the client makes of a status, whatever a server or a proxy says."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import pytest
import trustme
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2

import visiongate
from client_server import Behaviour, serving
from gateway import errors as server_errors
from visiongate import AsyncClient, Client, VisiongateError
from visiongate.status import read_item_error

DETAILS = "grpc-status-details-bin"
CODES = grpc.StatusCode


def refusing(error: server_errors.StatusError) -> Behaviour:
    return lambda context: context.abort_with_status(error.to_status("server's id"))


def ending(code: grpc.StatusCode, text: str, *metadata: tuple[str, Any]) -> Behaviour:
    def end(context: grpc.ServicerContext) -> None:
        context.set_trailing_metadata(metadata)
        context.abort(code, text)

    return end


def packed(*messages: Any, code: int = 0, text: str = "") -> bytes:
    status = status_pb2.Status(code=code, message=text)
    for message in messages:
        status.details.add().Pack(message)
    data: bytes = status.SerializeToString()
    return data


async def failures(behaviour: Behaviour, **options: Any) -> list[VisiongateError]:
    """What both clients raise."""
    with serving(behaviour, behaviour) as server:
        client = Client(server.address, wait=False, **options)
        with client, pytest.raises(VisiongateError) as caught:
            client.list_models()
        async with AsyncClient(server.address, wait=False, **options) as asynchronous:
            with pytest.raises(VisiongateError) as caught_async:
                await asynchronous.list_models()
    assert caught.value.__suppress_context__
    return [caught.value, caught_async.value]


@pytest.mark.parametrize(
    ("refusal", "kind", "field", "reason"),
    [
        (
            server_errors.InvalidArgumentError("image", "is empty"),
            visiongate.InvalidArgumentError,
            "image",
            "",
        ),
        (
            server_errors.ImageNotCachedError("abc").to_status_error("image.image_id"),
            visiongate.ImageNotCachedError,
            "",
            "IMAGE_NOT_CACHED",
        ),
        (
            server_errors.ImageNotFetchedError("404").to_status_error("image.uri"),
            visiongate.ImageNotFetchedError,
            "image.uri",
            "IMAGE_NOT_FETCHED",
        ),
        (server_errors.NoModelError("gaze"), visiongate.NoModelError, "", "NO_MODEL"),
        (
            server_errors.TritonUnavailableError("gone"),
            visiongate.UnavailableError,
            "",
            "TRITON_UNAVAILABLE",
        ),
        (server_errors.OverloadedError("full", "calls", 0.25), visiongate.OverloadedError, "", "OVERLOADED"),
        (
            server_errors.UnauthenticatedError("no key", "KEY_MISSING"),
            visiongate.UnauthenticatedError,
            "",
            "KEY_MISSING",
        ),
        (
            server_errors.StatusError(CODES.DEADLINE_EXCEEDED, "late"),
            visiongate.DeadlineExceededError,
            "",
            "",
        ),
        (server_errors.StatusError(CODES.INTERNAL, "broken"), visiongate.InternalError, "", ""),
    ],
)
async def test_the_servers_own_refusals(
    refusal: server_errors.StatusError, kind: type[VisiongateError], field: str, reason: str
) -> None:
    for error in await failures(refusing(refusal)):
        assert type(error) is kind
        assert (error.code, error.message) == (refusal.code, refusal.message)
        assert (error.field, error.reason, error.request_id) == (field, reason, "server's id")
        assert error.retry_s == (0.25 if kind is visiongate.OverloadedError else None)


BROKEN_RETRY = any_pb2.Any(type_url="type.googleapis.com/google.rpc.RetryInfo", value=b"\xff\xff")
NEGATIVE = error_details_pb2.RetryInfo(retry_delay=duration_pb2.Duration(seconds=-5))
ENDLESS = error_details_pb2.RetryInfo(retry_delay=duration_pb2.Duration(seconds=2**62))
BAD_REQUEST = error_details_pb2.BadRequest(
    field_violations=[error_details_pb2.BadRequest.FieldViolation(field="image")]
)


@pytest.mark.parametrize(
    ("details", "retry_s", "field"),
    [
        (None, None, ""),
        (b"", None, ""),
        (b"\xff\xff\xff", None, ""),
        (packed(), None, ""),
        (packed(code=3, text="another status"), None, ""),
        (packed(BAD_REQUEST, code=8, text="a text that a proxy changed"), None, "image"),
        (packed(error_details_pb2.BadRequest(), code=8, text="the text"), None, ""),
        (status_pb2.Status(details=[BROKEN_RETRY]).SerializeToString(), None, ""),
        (packed(NEGATIVE), 0, ""),
        (packed(ENDLESS), 2.0**62, ""),
    ],
)
async def test_details_that_are_missing_broken_or_another_statuss(
    details: bytes | None, retry_s: float | None, field: str
) -> None:
    metadata = () if details is None else ((DETAILS, details),)
    for error in await failures(ending(CODES.RESOURCE_EXHAUSTED, "the text", *metadata)):
        assert type(error) is visiongate.OverloadedError
        assert (error.code, error.message, error.grpc_message) == (
            CODES.RESOURCE_EXHAUSTED,
            "the text",
            "the text",
        )
        assert (error.retry_s, error.field) == (retry_s, field)
        # Nothing names the call: it has the name that the client gave it.
        assert len(error.request_id) == 32


async def test_a_status_without_text_and_one_that_grpc_does_not_know() -> None:
    for error in await failures(ending(CODES.ABORTED, "")):
        assert type(error) is VisiongateError
        assert str(error) == "ABORTED: the server gave no reason"
    for error in await failures(ending(CODES.PERMISSION_DENIED, "no", ("x-request-id", "named"))):
        assert type(error) is visiongate.UnauthenticatedError
        assert error.request_id == "named"


async def test_a_method_that_is_not_there() -> None:
    for error in await failures(ending(CODES.UNIMPLEMENTED, "Method not found!")):
        assert type(error) is visiongate.UnimplementedError
        assert "does not know /visiongate.v1.ModelService/ListModels: it is not a visiongate" in str(error)
        assert error.grpc_message == "Method not found!"


async def test_a_fault_in_the_handler() -> None:
    def fail(context: grpc.ServicerContext) -> None:
        raise RuntimeError("oops")

    for error in await failures(fail):
        assert type(error) is visiongate.InternalError


@contextmanager
def listening(answer: bytes) -> Iterator[str]:
    """The address of a server of another kind: it says this, and hangs up; or says nothing, and listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    if answer:
                        connection.recv(4096)
                        connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"127.0.0.1:{listener.getsockname()[1]}"
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


async def connection_errors(address: str, **options: Any) -> list[VisiongateError]:
    """What both clients raise; by themselves they wait for a server that is away."""
    with Client(address, timeout=30, **options) as client, pytest.raises(VisiongateError) as caught:
        client.list_models()
    async with AsyncClient(address, timeout=30, **options) as asynchronous:
        with pytest.raises(VisiongateError) as caught_async:
            await asynchronous.list_models()
    return [caught.value, caught_async.value]


def server_credentials(
    ca: trustme.CA, name: str, client_ca: trustme.CA | None = None
) -> grpc.ServerCredentials:
    leaf = ca.issue_cert(name)
    chain = b"".join(pem.bytes() for pem in leaf.cert_chain_pems)
    return grpc.ssl_server_credentials(
        [(leaf.private_key_pem.bytes(), chain)],
        client_ca.cert_pem.bytes() if client_ca else None,
        client_ca is not None,
    )


@pytest.fixture(scope="module")
def ca() -> trustme.CA:
    return trustme.CA()


async def test_tls_to_a_server_that_speaks_none(ca: trustme.CA) -> None:
    with serving() as server:
        for error in await connection_errors(server.address, root_certificates=ca.cert_pem.bytes()):
            assert type(error) is visiongate.ConnectionSetupError
            assert f"{server.address} speaks no TLS: leave out tls=True" in error.message
            assert "WRONG_VERSION_NUMBER" in error.grpc_message


async def test_no_tls_to_a_server_that_speaks_it(ca: trustme.CA) -> None:
    with serving(credentials=server_credentials(ca, "127.0.0.1")) as server:
        for error in await connection_errors(server.address, wait=False):
            assert f"{server.address} closed the connection at once: if it wants TLS, use tls" in str(error)


@pytest.mark.parametrize(
    ("name", "trusted", "says"),
    [
        ("127.0.0.1", False, "is not trusted (unable to get local issuer certificate): root_certificates"),
        ("vision.example.com", True, "is for another name"),
    ],
)
async def test_a_certificate_that_does_not_fit(ca: trustme.CA, name: str, trusted: bool, says: str) -> None:
    roots = (ca if trusted else trustme.CA()).cert_pem.bytes()
    with serving(credentials=server_credentials(ca, name)) as server:
        for error in await connection_errors(server.address, root_certificates=roots):
            assert type(error) is visiongate.ConnectionSetupError
            assert f"the certificate of {server.address} {says}" in error.message


async def test_a_certificate_that_the_client_lacks(ca: trustme.CA) -> None:
    roots = ca.cert_pem.bytes()
    with serving(credentials=server_credentials(ca, "127.0.0.1", ca)) as server:
        for error in await connection_errors(server.address, root_certificates=roots, wait=False):
            assert "if it wants a certificate from the client, give client_certificate" in error.message
        leaf = ca.issue_cert("me@example.com")
        with Client(
            server.address,
            root_certificates=roots,
            client_certificate=leaf.cert_chain_pems[0].bytes(),
            client_key=leaf.private_key_pem.bytes(),
        ) as client:
            assert client.list_models()


async def test_a_server_of_another_kind() -> None:
    with listening(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n") as address:
        for error in await connection_errors(address):
            assert type(error) is visiongate.ConnectionSetupError
            assert f"{address} is not a gRPC server" in error.message


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("127.0.0.1:9", "nothing answers at 127.0.0.1:9: start a server there (visiongate up), or name"),
        ("unix:/nowhere/visiongate.sock", "nothing answers at unix:/nowhere/visiongate.sock: start"),
        ("nowhere.invalid", "no host has the name in nowhere.invalid:50051"),
    ],
)
async def test_a_server_that_is_not_there(address: str, says: str) -> None:
    for error in await connection_errors(address, wait=False):
        assert type(error) is visiongate.UnavailableError
        assert says in error.message
        assert error.grpc_message != error.message


async def test_a_call_that_gets_no_answer_in_time() -> None:
    wake = threading.Event()

    def sleep(context: grpc.ServicerContext) -> None:
        wake.wait(30)

    for error in await failures(sleep, timeout=0.2):
        assert type(error) is visiongate.DeadlineExceededError
        assert "did not answer in time, nor ever before: is a visiongate server there?" in error.message
        wake.set()


NOT_CACHED = error_details_pb2.ErrorInfo(reason="IMAGE_NOT_CACHED", domain="visiongate")
SECOND_IMAGE = error_details_pb2.BadRequest(
    field_violations=[error_details_pb2.BadRequest.FieldViolation(field="images[1].encoded")]
)


def item_status(code: int, text: str, *details: Any) -> status_pb2.Status:
    return status_pb2.Status.FromString(packed(*details, code=code, text=text))


@pytest.mark.parametrize(
    ("status", "kind", "message", "field", "reason"),
    [
        (
            item_status(3, "images[1].encoded: is no image", SECOND_IMAGE),
            visiongate.InvalidArgumentError,
            "images[65].encoded: is no image",
            "images[65].encoded",
            "",
        ),
        (
            item_status(5, "the server keeps no images[1]", NOT_CACHED),
            visiongate.ImageNotCachedError,
            "the server keeps no images[1]",
            "",
            "IMAGE_NOT_CACHED",
        ),
        (item_status(13, "broken"), visiongate.InternalError, "broken", "", ""),
        (item_status(99, ""), visiongate.InternalError, "the server gave no reason", "", ""),
    ],
)
def test_the_status_of_an_item(
    status: status_pb2.Status, kind: type[VisiongateError], message: str, field: str, reason: str
) -> None:
    error = read_item_error(status, "images", 65, "call")
    assert type(error) is kind
    assert (error.message, error.field, error.reason) == (message, field, reason)
    assert (error.grpc_message, error.request_id) == (status.message or message, "call")
