"""Addresses of the web in lists."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from visiongate.batch.inputs import open_source, web


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        match self.path:
            case "/a%20b.jpg" | "/%C3%BC.jpg?x=1&y=%2F":
                self._send(200, self.path.encode())
            case "/there":
                self._send(302, b"", Location="/a%20b.jpg")
            case "/empty":
                self._send(200, b"")
            case "/busy":
                self._send(503, b"")
            case "/secret":
                self._send(403, b"no")
            case "/large":
                self._send(200, b"x" * 3_000_000)
            case "/cut":
                self._send(200, b"x" * 10, **{"Content-Length": "1000"})
            case "/silent":
                silence.wait(30)
            case _:
                self._send(404, b"nothing")

    def _send(self, status: int, data: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(data))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        pass


silence = threading.Event()


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        silence.set()
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("path", "asked"),
    [
        ("a b.jpg", "/a%20b.jpg"),
        ("a%20b.jpg", "/a%20b.jpg"),
        ("there", "/a%20b.jpg"),
        ("ü.jpg?x=1&y=%2F", "/%C3%BC.jpg?x=1&y=%2F"),
    ],
)
def test_address(site: str, path: str, asked: str) -> None:
    (item,) = open_source([f"{site}/{path}"])
    assert item.id == f"{site}/{path}"
    assert item.read() == asked.encode()


def test_list_of_addresses(site: str, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text(f"{site}/a b.jpg\n{site}/nothing\n")
    first, second = open_source([str(tmp_path / "list.txt")])
    assert first.read() == b"/a%20b.jpg"
    with pytest.raises(FileNotFoundError, match=f"^{site}/nothing answers 404 Not Found$"):
        second.read()


@pytest.mark.parametrize(
    ("path", "error", "sentence"),
    [
        ("busy", ConnectionError, "/busy answers 503 Service Unavailable"),
        ("empty", ValueError, "/empty is empty"),
        ("secret", PermissionError, "/secret answers 403 Forbidden"),
        ("large", ValueError, "/large has more than 2 MiB"),
        ("cut", ConnectionError, "/cut breaks off: 990 bytes of it are missing"),
        ("silent", TimeoutError, "/silent sends nothing for 0.2 seconds"),
    ],
)
def test_failure(
    site: str, path: str, error: type[Exception], sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web, "_SILENCE_S", 0.2)
    monkeypatch.setattr(web, "MAX_FILE_BYTES", 2 << 20)
    (item,) = open_source([f"{site}/{path}"])
    with pytest.raises(error, match=sentence):
        item.read()


@pytest.mark.parametrize(
    "address", ["http://127.0.0.1:9/x", "http://[::", "http:///x", "https://nothing.invalid/x"]
)
def test_no_server(address: str) -> None:
    (item,) = open_source([address])
    with pytest.raises(OSError, match=r"^http.* cannot be (reached|read): "):
        item.read()
