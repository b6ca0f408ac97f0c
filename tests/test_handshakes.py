"""Failed handshakes with a real server of gRPC's, whose words come on standard error."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import trustme
from prometheus_client import REGISTRY

import visiongate_command
from gateway.handshakes import REASONS, Handshakes

PROGRAM = """
import json, socket, ssl, sys, time
import logging
from concurrent import futures
import grpc
from gateway import library_output, logs
from gateway.handshakes import Handshakes
from gateway.settings import Settings

folder = sys.argv[1]
names = "key", "certificate", "authority"
key, certificate, authority = (open(f"{folder}/{name}", "rb").read() for name in names)
logs.configure(Settings(log_format="json"))
handshakes = Handshakes()

class Echo(grpc.GenericRpcHandler):
    def service(self, details):
        return grpc.unary_unary_rpc_method_handler(lambda request, context: request)

def connect(host, context=None, data=b"GET / HTTP/1.1\\r\\n\\r\\n"):
    with socket.create_connection(("127.0.0.1", port), source_address=(host, 0)) as connection:
        try:
            if context is not None:
                connection = context.wrap_socket(connection, server_hostname="127.0.0.1")
            connection.sendall(data)
            while connection.recv(100):
                pass
        except OSError:
            pass

with library_output.logged(handshakes.explain):
    server = grpc.server(futures.ThreadPoolExecutor(2), handlers=[Echo()])
    credentials = grpc.ssl_server_credentials([(key, certificate)], authority, True)
    port = server.add_secure_port("127.0.0.1:0", credentials)
    server.start()
    good = grpc.ssl_channel_credentials(authority, key, certificate)
    with grpc.secure_channel(f"127.0.0.1:{port}", good) as channel:
        channel.unary_unary("/a/b")(b"")
    connect("127.0.0.2")
    time.sleep(0.5)
    connect("127.0.0.3", data=b"PRI * HTTP/2.0\\r\\n\\r\\nSM\\r\\n\\r\\n" + bytes(9))
    time.sleep(0.5)
    context = ssl.create_default_context(cafile=f"{folder}/authority")
    context.set_alpn_protocols(["h2"])
    connect("127.0.0.4", context)
    time.sleep(0.5)
    server.stop(None).wait()
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tls")
    ca = trustme.CA()
    issued = ca.issue_cert("127.0.0.1")
    (path / "key").write_bytes(issued.private_key_pem.bytes())
    (path / "certificate").write_bytes(issued.cert_chain_pems[0].bytes())
    (path / "authority").write_bytes(ca.cert_pem.bytes())
    return path


@pytest.mark.parametrize("is_traced", [True, False])
def test_each_has_a_line_with_its_reason_and_its_peer(folder: Path, is_traced: bool) -> None:
    variables = {"GRPC_TRACE": "handshaker"} if is_traced else {}
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(folder)],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    messages = [json.loads(line)["message"] for line in result.stderr.splitlines()]
    lines = [re.sub(r"(?<=127\.0\.0\..):\d+$", "", message) for message in messages]
    reasons = [
        "the client speaks no TLS",
        "the client speaks no TLS",
        "the client showed no certificate",
    ]
    peers = [f"127.0.0.{number}" if is_traced else "an unknown peer" for number in (2, 3, 4)]
    said = [
        f"a TLS handshake failed: {reason}; from {peer}" for reason, peer in zip(reasons, peers, strict=True)
    ]
    assert lines == said


@pytest.mark.parametrize(
    ("arguments", "environment", "expected"),
    [
        (["serve", "--tls-certificate", "a.pem"], {}, True),
        (["up"], {"VISIONGATE_TLS_KEY": "a"}, True),
        (["serve", "--config=a.toml"], {}, True),
        (["serve"], {"VISIONGATE_CONFIG": "a.toml"}, True),
        (["serve", "--port", "1"], {"OTHER_TLS": "a"}, False),
        (["detect", "--tls-certificate", "a.pem"], {}, False),
        ([], {}, False),
    ],
)
def test_handshakes_are_traced_where_there_may_be_any(
    arguments: list[str], environment: dict[str, str], expected: bool
) -> None:
    assert visiongate_command.may_use_tls(arguments, environment) is expected


@pytest.mark.parametrize(
    ("words", "reason", "says"),
    [
        (
            "SSL_ERROR_SSL: error:1000009c:SSL routines:OPENSSL_internal:HTTP_REQUEST: x",
            "HTTP_REQUEST",
            "no TLS",
        ),
        (
            "SSL_ERROR_SSL: error:1:SSL routines:OPENSSL_internal:NEWS: x",
            "OTHER",
            "failed: NEWS; from an unknown",
        ),
        ("SSL_ERROR_SYSCALL", "OTHER", "no reason given"),
    ],
)
def test_reasons_are_counted(words: str, reason: str, says: str) -> None:
    def counted() -> float:
        return REGISTRY.get_sample_value("visiongate_handshake_failures_total", {"reason": reason}) or 0

    before = counted()
    line = f"I1128 18:17:55.734029 6936 ssl_transport_security.cc:2563] Handshake failed with error {words}"
    assert says in (Handshakes().explain(line) or "")
    assert counted() == before + 1
    assert reason in REASONS


def test_other_lines_stay() -> None:
    assert Handshakes().explain("Fax4Decode: Bad code word") is None
