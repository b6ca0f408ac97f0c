"""/metrics, /livez, /readyz and /readyz/SERVICE over HTTP."""

import asyncio
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.client import HTTPResponse

import pytest
from prometheus_client import CollectorRegistry, Gauge

from gateway import heartbeat, metrics
from gateway.heartbeat import Heartbeat
from gateway.ports import ListenError
from gateway.settings import Settings
from gateway.status_server import StatusServer


@pytest.fixture
def readiness(monkeypatch: pytest.MonkeyPatch) -> dict[str, bool]:
    """What the metrics say of services; tests change it."""
    services: dict[str, bool] = {}
    monkeypatch.setattr(metrics, "readiness", lambda registry: dict(services))
    return services


@pytest.fixture
def server(readiness: dict[str, bool]) -> Iterator[StatusServer]:
    with StatusServer(Settings(metrics_port=0), Heartbeat()) as running:
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


def test_metrics_and_readiness_are_those_of_the_registry_given() -> None:
    registry = CollectorRegistry()
    Gauge("visiongate_ready", "", ["grpc_service"], registry=registry).labels("only.Here").set(1)
    with StatusServer(Settings(metrics_port=0), Heartbeat(), registry) as server:
        assert "visiongate_calls" not in get(server, "/metrics")[2]
        assert get(server, "/readyz/Here")[0::2] == (200, "only.Here ready\n")


def test_readiness_names_tritons_that_do_not_answer() -> None:
    registry = CollectorRegistry()
    Gauge("visiongate_ready", "", ["grpc_service"], registry=registry).labels("").set(0)
    up = Gauge("visiongate_triton_up", "", ["server"], registry=registry)
    up.labels("10.0.0.7:8001").set(0)
    up.labels("10.0.0.8:8001").set(1)
    with StatusServer(Settings(metrics_port=0), Heartbeat(), registry) as server:
        assert get(server, "/readyz")[0::2] == (503, "Triton 10.0.0.7:8001 does not answer\n")


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
    monkeypatch.setattr(metrics, "readiness", lambda registry: 1 // 0)
    with pytest.raises(OSError):  # noqa: PT011
        get(server, "/readyz")
    assert "ZeroDivisionError" in caplog.text
    assert get(server, "/livez")[0] == 200


@pytest.mark.parametrize("name", ["Text", "b.Text"])
def test_one_service_can_be_asked_about(server: StatusServer, readiness: dict[str, bool], name: str) -> None:
    assert get(server, f"/readyz/{name}")[0::2] == (503, "starting\n")
    readiness |= {metrics.WHOLE_SERVER: False, "b.Text": True, "b.Gaze": False}
    assert get(server, f"/readyz/{name}?verbose")[0::2] == (200, "b.Text ready\n")
    readiness |= {metrics.WHOLE_SERVER: True, "b.Text": False, "b.Gaze": True}
    assert get(server, f"/readyz/{name}/")[0::2] == (503, "b.Text not ready\n")


@pytest.mark.parametrize("name", ["b", "ext", "text", "b.Text/x"])
def test_an_unknown_service_is_answered_with_those_that_there_are(
    server: StatusServer, readiness: dict[str, bool], name: str
) -> None:
    readiness |= {metrics.WHOLE_SERVER: True, "b.Text": True, "b.Gaze": True}
    assert get(server, f"/readyz/{name}")[0::2] == (404, "no such service; there are b.Text, b.Gaze\n")


@pytest.mark.parametrize("path", ["/", "/livez/x", "/metrics/x", "/ready"])
def test_other_paths_are_answered_with_those_that_there_are(server: StatusServer, path: str) -> None:
    assert get(server, path)[0::2] == (404, "/metrics, /livez, /readyz or /readyz/SERVICE\n")


def test_it_stops_listening() -> None:
    with StatusServer(Settings(metrics_port=0), Heartbeat()) as running:
        port = running.port
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))


def test_without_a_port_nothing_listens() -> None:
    with StatusServer(Settings(metrics_port=None), Heartbeat()) as none, pytest.raises(AssertionError):
        _ = none.port


def test_a_taken_port_is_one_clear_sentence(server: StatusServer) -> None:
    taken = StatusServer(Settings(metrics_port=server.port), Heartbeat())
    with (
        pytest.raises(ListenError, match=f"127.0.0.1:{server.port}: the port is in use.*--metrics-port"),
        taken,
    ):
        pass


async def test_a_loop_that_stands_still_is_neither_alive_nor_ready(
    readiness: dict[str, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread that answers goes on, and may not speak for the loop."""
    readiness |= {metrics.WHOLE_SERVER: True}
    monkeypatch.setattr(heartbeat, "INTERVAL_S", 0.01)
    monkeypatch.setattr(heartbeat, "MAX_SILENCE_S", 0.5)
    beats = Heartbeat()
    with StatusServer(Settings(metrics_port=0), beats) as server:
        async with beats.beating():
            assert (await asyncio.to_thread(get, server, "/livez"))[0] == 200
            assert (await asyncio.to_thread(get, server, "/readyz"))[0] == 200
            # From here on this test keeps the loop, until it has been silent for long enough.
            while not beats.stands_still:
                time.sleep(0.01)  # noqa: ASYNC251
            for path in ("/livez", "/readyz", "/readyz/Text"):
                status, _, body = get(server, path)
                assert (status, body[:31]) == (503, "the event loop has stood still ")
            assert get(server, "/metrics")[0] == 200
            await asyncio.sleep(0.05)
            assert (await asyncio.to_thread(get, server, "/livez"))[0] == 200
