import contextlib
import os
import pty
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from gateway import metrics
from gateway.commands import top
from gateway.heartbeat import Heartbeat
from gateway.settings import Settings
from gateway.status_server import StatusServer
from visiongate.command_error import CommandError


@pytest.fixture
def address() -> Iterator[str]:
    """A gateway's metrics port, without the gateway."""
    with StatusServer(Settings(metrics_port=0), Heartbeat()) as server:
        yield f"127.0.0.1:{server.port}"


def run(*arguments: str) -> Result:
    return CliRunner().invoke(top.app, [*arguments, "--once", "--interval", "0.1"])


def test_once_prints_the_tables_of_a_gateway(address: str) -> None:
    metrics.CACHE_BYTES.labels("of this test").set(1023)
    printed = run(address)
    assert printed.exit_code == 0, printed.output
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in printed.stdout.splitlines()]
    assert ["of this test", "0", "-", "1023 B"] in rows
    assert "calls in flight" in [row[0] for row in rows if row]


def test_once_is_a_command_of_visiongate(address: str) -> None:
    command = [str(Path(sys.executable).parent / "visiongate"), "top", address, "--once", "--interval", "0.1"]
    assert "calls in flight" in subprocess.run(command, capture_output=True, text=True, check=True).stdout
    with socket.create_server(("127.0.0.1", 0)) as closed:
        absent = f"127.0.0.1:{closed.getsockname()[1]}"
    failed = subprocess.run([*command[:2], absent, "--once"], capture_output=True, text=True, check=False)
    assert failed.returncode == 1
    assert failed.stdout == ""
    assert failed.stderr.startswith(f"error: nothing to read at http://{absent}/metrics (")
    assert failed.stderr.count("\n") == 1


def test_on_a_terminal_it_goes_on_until_it_is_stopped() -> None:
    """It waits for a gateway that is not there yet, shows it, and says so when it has gone."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    screen, terminal = pty.openpty()
    process = subprocess.Popen(
        [str(Path(sys.executable).parent / "visiongate"), "top", f"127.0.0.1:{port}", "--interval", "0.1"],
        stdout=terminal,
        stderr=terminal,
        env=os.environ | {"TERM": "xterm", "COLUMNS": "200", "LINES": "60"},
    )

    os.close(terminal)  # so that reading fails once the command has ended

    def wait_for(words: str) -> None:
        """Read what is shown until the words are in it."""
        seen = ""
        while words not in seen:
            seen = seen[-len(words) :] + os.read(screen, 4096).decode(errors="replace")

    with process:
        wait_for("this goes on trying")
        with StatusServer(Settings(metrics_port=port), Heartbeat()):
            wait_for("calls in flight")
        wait_for("this goes on trying")
        process.send_signal(signal.SIGINT)
        # A terminal holds some 4 KiB: who does not read it keeps the command from ending.
        with contextlib.suppress(OSError):
            while os.read(screen, 4096):
                pass
        assert process.wait(30) == 128 + signal.SIGINT
    os.close(screen)


@pytest.mark.parametrize(
    ("address", "url"),
    [
        ("127.0.0.1:9090", "http://127.0.0.1:9090/metrics"),
        ("[::1]:9090", "http://[::1]:9090/metrics"),
        ("https://host", "https://host/metrics"),
        ("http://host:1/", "http://host:1/metrics"),
        ("http://host/vision/metrics", "http://host/vision/metrics"),
    ],
)
def test_addresses(address: str, url: str) -> None:
    assert top.metrics_url(address) == url


@pytest.mark.parametrize("address", ["", ":9090", "ftp://host", "host:port", "host:99999"])
def test_addresses_that_make_no_sense(address: str) -> None:
    with pytest.raises(CommandError, match="give HOST:PORT or a URL"):
        top.metrics_url(address)


@pytest.mark.parametrize(
    ("status", "body", "says"),
    [
        (404, "", "answers with HTTP status 404"),
        (200, "<html>\n<p>hello</p>", "is not Prometheus' text format"),
        (200, "other_total 1\n", "are not a visiongate gateway's"),
    ],
)
def test_other_servers_are_told_from_gateways(status: int, body: str, says: str) -> None:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            with pytest.raises(CommandError, match=says):
                top.scrape(f"http://127.0.0.1:{server.server_port}/metrics")
        finally:
            server.shutdown()
            thread.join()
