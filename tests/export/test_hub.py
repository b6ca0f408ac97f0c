"""What a hub can answer, each in one sentence: a real client of a hub on this machine."""

import errno
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from huggingface_hub import constants

from export import bert_tokenizer, hub
from export.errors import ExportError

# Repository names, and how this hub refuses them.
REFUSALS = {
    "of/gated": (403, "GatedRepo"),
    "of/none": (404, "RepoNotFound"),
    "of/known": (404, "RevisionNotFound"),
    "of/empty": (404, "EntryNotFound"),
    "of/busy": (503, ""),
}


class Refusing(BaseHTTPRequestHandler):
    def do_HEAD(self) -> None:
        name = "/".join(self.path.split("/")[1:3])
        status, reason = REFUSALS[name]
        self.send_response(status)
        self.send_header("X-Error-Code", reason)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_HEAD  # noqa: N815

    def log_message(self, *_arguments: object) -> None:
        pass


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    # Between its attempts the client would wait for seconds.
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _seconds: None)
    with ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setattr(constants, "ENDPOINT", url)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}"
        )
        yield url
        server.shutdown()


def refusal(name: str, revision: str | None = None) -> str:
    with pytest.raises(ExportError) as caught:
        bert_tokenizer.from_hub(name, revision)
    sentence = str(caught.value)
    assert sentence.startswith(f"Cannot fetch the tokenizer of {name}: ")
    assert "\n" not in sentence
    return sentence


@pytest.mark.usefixtures("endpoint")
@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("of/gated", "accept its terms on its page at the hub, then set HF_TOKEN to your token."),
        (
            "of/none",
            "the hub has no repository of that name, or a private one: for a private one, set",
        ),
        ("of/known", "it has no revision 'nope'."),
        ("of/empty", "it lacks a file that is needed."),
        ("of/busy", "it cannot be reached: try again, or give weights on this machine"),
    ],
)
def test_refusals(name: str, says: str) -> None:
    assert says in refusal(name, "nope")


@pytest.mark.usefixtures("endpoint")
def test_nobody_there(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    nowhere = f"http://127.0.0.1:{port}"
    monkeypatch.setattr(constants, "ENDPOINT", nowhere)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", nowhere + "/{repo_id}/resolve/{revision}/{filename}"
    )
    assert "it cannot be reached: try again" in refusal("of/known")


def test_offline_by_choice(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    assert "it is not in the cache, and HF_HUB_OFFLINE keeps us from the hub" in refusal("of/known")


def test_docTRs_downloads() -> None:  # noqa: N802
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(urllib.error.URLError) as caught:
        urllib.request.urlopen(f"http://127.0.0.1:{port}")
    assert "db_resnet50: it cannot be reached" in str(hub.fault("db_resnet50", caught.value))


def test_a_full_disk_of_the_cache() -> None:
    error = RuntimeError("Data processing error")
    error.__cause__ = OSError(errno.ENOSPC, "No space left on device")
    says = "Cannot fetch it: the disk of the cache is full: make room, or set HF_HOME to a folder elsewhere."
    assert str(hub.fault("it", error)) == says
