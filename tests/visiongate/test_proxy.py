"""Proxies that the environment names: what reaches them, and what never does."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest
import trustme

import visiongate
from client_server import serving
from visiongate import AsyncClient, Client
from visiongate.connection import PROXY_VARIABLES

KEY = "vg_secret"
# A documentation address: nothing answers there but through the proxy.
REMOTE = "192.0.2.1:50051"
# Nothing answers at either. A proxy that should not be asked would be asked at once.
NOWHERE = "ipv4:127.0.0.1:9,192.0.2.1:9"


@dataclass
class Proxy:
    """A proxy that takes CONNECT, and reads along. `asked` are the addresses, `heard` all bytes."""

    port: int
    target: str
    asked: list[str] = field(default_factory=list)
    heard: bytearray = field(default_factory=bytearray)


@contextmanager
def proxying(target: str, status: str = "200 OK") -> Iterator[Proxy]:
    """A proxy whose every way ends at `target`."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        proxy = Proxy(listener.getsockname()[1], target)
        threads: list[threading.Thread] = []
        ends: list[socket.socket] = [listener]

        def pump(source: socket.socket, sink: socket.socket, listens: bool) -> None:
            try:
                while data := source.recv(65536):
                    if listens:
                        proxy.heard.extend(data)
                    sink.sendall(data)
            except OSError:
                pass
            shut(sink)

        def serve() -> None:
            while True:
                try:
                    caller, _ = listener.accept()
                except OSError:
                    return
                ends.append(caller)
                head = caller.recv(65536)
                proxy.heard.extend(head)
                if not head.startswith(b"CONNECT "):
                    shut(caller)
                    continue
                proxy.asked.append(head.split()[1].decode())
                caller.sendall(f"HTTP/1.1 {status}\r\n\r\n".encode())
                if "200" not in status:
                    shut(caller)
                    continue
                host, _, port = target.rpartition(":")
                server = socket.create_connection((host, int(port)))
                ends.append(server)
                start(pump, caller, server, True)
                start(pump, server, caller, False)

        def start(function: Any, *arguments: Any) -> None:
            thread = threading.Thread(target=function, args=arguments)
            threads.append(thread)
            thread.start()

        start(serve)
        try:
            yield proxy
        finally:
            for end in ends:
                shut(end)
            for thread in threads:
                thread.join()
            for end in ends:
                end.close()


def shut(end: socket.socket) -> None:
    with suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*PROXY_VARIABLES, "no_proxy", "no_grpc_proxy", "VISIONGATE_API_KEY", "VISIONGATE_TLS"):
        monkeypatch.delenv(name, raising=False)


def point_to(monkeypatch: pytest.MonkeyPatch, variable: str, proxy: Proxy) -> None:
    if variable.startswith("GRPC_ADDRESS"):
        monkeypatch.setenv(variable, f"127.0.0.1:{proxy.port}")
        monkeypatch.setenv(f"{variable}_ENABLED_ADDRESSES", "127.0.0.0/8,192.0.2.0/24")
    else:
        monkeypatch.setenv(variable, f"http://127.0.0.1:{proxy.port}")


async def ask(address: str, **options: Any) -> list[int | visiongate.VisiongateError]:
    """What both clients get: the number of models, or an error."""
    options = {"timeout": 20, "wait": False} | options
    outcomes: list[int | visiongate.VisiongateError] = []
    with Client(address, **options) as client:
        try:
            outcomes.append(len(client.list_models()))
        except visiongate.VisiongateError as error:
            outcomes.append(error)
    async with AsyncClient(address, **options) as asynchronous:
        try:
            outcomes.append(len(await asynchronous.list_models()))
        except visiongate.VisiongateError as error:
            outcomes.append(error)
    return outcomes


@pytest.mark.parametrize("variable", PROXY_VARIABLES)
async def test_what_goes_to_this_machine_goes_there_by_itself(
    monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    with serving() as server, proxying(server.address) as proxy:
        point_to(monkeypatch, variable, proxy)
        for address in (server.address, f"localhost:{server.port}", f"ipv4:{server.address}"):
            assert await ask(address, api_key=KEY) == [1, 1]
            assert await ask(address) == [1, 1]
    assert not proxy.heard


@pytest.mark.parametrize("variable", PROXY_VARIABLES)
async def test_a_key_never_goes_unencrypted_through_a_proxy(
    monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    with serving() as server, proxying(server.address) as proxy:
        point_to(monkeypatch, variable, proxy)
        # A closed port of this machine under a name that is not this machine's would do as well.
        for outcome in await ask(NOWHERE, timeout=1, api_key=KEY, tls=False):
            assert isinstance(outcome, visiongate.VisiongateError)
        assert not proxy.heard
        assert not server.requests
        with pytest.raises(ValueError, match="unencrypted: use TLS"):
            Client(REMOTE, api_key=KEY)
        monkeypatch.setenv("VISIONGATE_API_KEY", KEY)
        with pytest.raises(ValueError, match="unencrypted: use TLS"):
            Client(REMOTE)
        monkeypatch.setenv("VISIONGATE_TLS", "0")
        for outcome in await ask(NOWHERE, timeout=1):
            assert isinstance(outcome, visiongate.VisiongateError)
        assert not proxy.heard


@pytest.mark.parametrize("variable", PROXY_VARIABLES)
async def test_other_machines_are_reached_through_the_proxy(
    monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    ca = trustme.CA()
    leaf = ca.issue_cert("192.0.2.1")
    credentials = grpc.ssl_server_credentials(
        [(leaf.private_key_pem.bytes(), leaf.cert_chain_pems[0].bytes())]
    )
    with serving() as server, proxying(server.address) as proxy:
        point_to(monkeypatch, variable, proxy)
        assert await ask(REMOTE) == [1, 1]
        assert set(proxy.asked) == {REMOTE}
    # With TLS the proxy sees nothing of what is in it.
    with serving(credentials=credentials) as server, proxying(server.address) as proxy:
        point_to(monkeypatch, variable, proxy)
        assert await ask(REMOTE, api_key=KEY, root_certificates=ca.cert_pem.bytes()) == [1, 1]
        assert server.metadata[0]["authorization"] == f"Bearer {KEY}"
        assert set(proxy.asked) == {REMOTE}
        assert KEY.encode() not in proxy.heard


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "HTTPS_PROXY", "GRPC_PROXY", "ALL_PROXY", "all_proxy"])
async def test_variables_that_grpc_does_not_read(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    with serving() as server, proxying(server.address) as proxy:
        point_to(monkeypatch, variable, proxy)
        assert await ask(server.address, api_key=KEY) == [1, 1]
        await ask(NOWHERE, timeout=1, api_key=KEY, tls=False)
        await ask(NOWHERE, timeout=1)
    assert not proxy.heard


async def test_a_proxy_that_refuses_or_is_away_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving() as server, proxying(server.address, "403 Forbidden") as proxy:
        point_to(monkeypatch, "https_proxy", proxy)
        for error in await ask(REMOTE):
            assert isinstance(error, visiongate.UnavailableError)
            assert error.message == (
                f"the proxy does not let the call through to {REMOTE} (HTTP status 403); the variable "
                "https_proxy names a proxy on the way"
            )
    monkeypatch.setenv("https_proxy", "http://user:password@127.0.0.1:9")
    for error in await ask(REMOTE):
        assert isinstance(error, visiongate.UnavailableError)
        assert "the variable https_proxy names a proxy on the way" in error.message
        assert "password" not in error.message + error.grpc_message
