"""/metrics, /livez and /readyz over HTTP."""

import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.client import HTTPResponse

import pytest

from gateway import metrics
from gateway.ports import ListenError
from gateway.settings import Settings
from gateway.status_server import StatusServer


@pytest.fixture
def readiness(monkeypatch: pytest.MonkeyPatch) -> dict[str, bool]:
    """What the metrics say of services; tests change it."""
    services: dict[str, bool] = {}
    monkeypatch.setattr(metrics, "readiness", services.copy)
    return services


@pytest.fixture
def server(readiness: dict[str, bool]) -> Iterator[StatusServer]:
    with StatusServer(Settings(metrics_port=0)) as running:
        yield running


def get(server: StatusServer, path: str) -> tuple[int, str, str]:
    """Status, content type and body."""
    try:
        response: HTTPResponse | urllib.error.HTTPError = urllib.request.urlopen(
            f"http://127.0.0.1:{server.port}{path}", timeout=10
        )
    except urllib.error.HTTPError as error:
        response = error
    with response:
        return response.status or 0, response.headers["Content-Type"], response.read().decode()


def test_metrics(server: StatusServer) -> None:
    status, content_type, body = get(server, "/metrics")
    assert status == 200
    assert content_type.startswith("text/plain")
    assert "# TYPE visiongate_calls_total counter" in body


def test_alive_while_not_ready(server: StatusServer) -> None:
    assert get(server, "/livez")[0] == 200
    assert get(server, "/readyz")[0::2] == (503, "starting\n")


def test_ready_when_the_whole_server_is(server: StatusServer, readiness: dict[str, bool]) -> None:
    readiness |= {metrics.WHOLE_SERVER: True, "a.Service": True, "b.Service": False}
    assert get(server, "/readyz")[0::2] == (200, "a.Service ready\nb.Service not ready\n")
    readiness[metrics.WHOLE_SERVER] = False
    assert get(server, "/readyz")[0] == 503


def test_nothing_else(server: StatusServer) -> None:
    assert get(server, "/")[0] == 404
    assert get(server, "/metricsx")[0] == 404
    assert get(server, "/livez?verbose")[0] == 200


def test_a_slow_client_holds_up_nobody(server: StatusServer) -> None:
    with socket.create_connection(("127.0.0.1", server.port)) as slow:
        slow.sendall(b"GET /metr")
        assert get(server, "/livez")[0] == 200


def test_a_failure_leaves_a_trace_in_the_log_and_the_server_running(
    server: StatusServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(metrics, "readiness", lambda: 1 // 0)
    with pytest.raises(OSError):  # noqa: PT011
        get(server, "/readyz")
    assert "ZeroDivisionError" in caplog.text
    assert get(server, "/livez")[0] == 200


def test_it_stops_listening() -> None:
    with StatusServer(Settings(metrics_port=0)) as running:
        port = running.port
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))


def test_without_a_port_nothing_listens() -> None:
    with StatusServer(Settings(metrics_port=None)) as none, pytest.raises(AssertionError):
        _ = none.port


def test_a_taken_port_is_one_clear_sentence(server: StatusServer) -> None:
    taken = StatusServer(Settings(metrics_port=server.port))
    with (
        pytest.raises(ListenError, match=f"127.0.0.1:{server.port}: the port is in use.*--metrics-port"),
        taken,
    ):
        pass
