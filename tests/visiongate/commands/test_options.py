"""The options of all commands that ask a server reach its client."""

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from visiongate.cli import app
from visiongate.commands import common


class ClientMadeError(Exception):
    """Instead of a client: with what it would have been made."""


@pytest.fixture(autouse=True)
def client(monkeypatch: pytest.MonkeyPatch) -> None:
    def make(*arguments: Any, **keywords: Any) -> None:
        raise ClientMadeError(arguments, keywords)

    monkeypatch.setattr(common, "Client", make)


def arguments(command: list[str], **environment: str) -> tuple[str, dict[str, Any]]:
    """What the command makes its client with."""
    result = CliRunner().invoke(app, command, env=environment)
    assert isinstance(result.exception, ClientMadeError), result.output
    (server,), keywords = result.exception.args
    return server, keywords


OPTIONS = {
    "VISIONGATE_SERVER": "vision.example.com:443",
    "VISIONGATE_API_KEY": "vg_key",
    "VISIONGATE_TLS": "1",
    "VISIONGATE_CA": "ca.pem",
    "VISIONGATE_CERT": "cert.pem",
    "VISIONGATE_CERT_KEY": "key.pem",
}
MEANT = (
    "vision.example.com:443",
    {
        "timeout": 7,
        "api_key": "vg_key",
        "tls": True,
        "root_certificates": Path("ca.pem"),
        "client_certificate": Path("cert.pem"),
        "client_key": Path("key.pem"),
    },
)


def test_by_options() -> None:
    names = ["--server", "--api-key", "--tls", "--ca", "--cert", "--cert-key"]
    flags = [word for name, value in zip(names, OPTIONS.values(), strict=True) for word in (name, value)]
    flags.remove("1")
    assert arguments(["models", "--timeout", "7", *flags]) == MEANT


@pytest.mark.parametrize(
    "command",
    [
        ["models"],
        ["detect", __file__, "cup"],
        ["segment", __file__, "--phrase", "cup"],
        ["embed", __file__],
        ["classify", __file__, "cup"],
        ["compare", __file__, "cup"],
        ["gaze", __file__],
        ["ocr", __file__],
    ],
)
def test_by_environment_for_every_command(command: list[str]) -> None:
    assert arguments([*command, "--timeout", "7"], **OPTIONS) == MEANT


def test_nothing_given() -> None:
    server, keywords = arguments(["models"])
    assert server == "127.0.0.1:50051"
    assert keywords.pop("timeout") == 120
    assert set(keywords.values()) == {None}
    assert arguments(["models", "--no-tls"])[1]["tls"] is False
