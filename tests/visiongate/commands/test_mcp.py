"""`visiongate mcp`: what it is started with. tests/e2e/test_mcp.py has it at work."""

import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from visiongate.cli import app
from visiongate.command_error import CommandError
from visiongate.commands import mcp


class ClientMadeError(Exception):
    """Instead of a client: with what it would have been made."""


def failure(*arguments: str, **environment: str) -> BaseException:
    result = CliRunner().invoke(app, ["mcp", *arguments], env=environment)
    assert result.exception is not None, result.output
    return result.exception


def test_the_client_has_the_options_of_every_command(monkeypatch: pytest.MonkeyPatch) -> None:
    def make(**keywords: Any) -> None:
        raise ClientMadeError(keywords)

    monkeypatch.setattr(mcp, "AsyncClient", make)
    error = failure("--timeout", "7", VISIONGATE_SERVER="a.test:443", VISIONGATE_TLS="1")
    assert isinstance(error, ClientMadeError)
    (keywords,) = error.args
    # An assistant is told at once that a server is away.
    assert {"address": "a.test:443", "timeout": 7, "tls": True, "wait": False}.items() <= keywords.items()


def test_no_files_are_read_for_http(tmp_path: Path) -> None:
    error = failure("--http-port", "0", "--root", str(tmp_path))
    assert isinstance(error, CommandError)
    assert str(error).startswith("--root does not go with --http-port")


def test_a_root_that_is_no_folder(tmp_path: Path) -> None:
    assert str(failure("--root", str(tmp_path / "none"))) == f"--root {tmp_path / 'none'} is not a folder"


@pytest.mark.parametrize("missing", ["mcp", "mcp.server.mcpserver"])
def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    """Version 1 of the package has no `mcp.server.mcpserver`."""
    for name in list(sys.modules):
        if name.split(".")[0] in ("mcp", "mcp_types") or name.startswith("visiongate.mcp"):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)
    error = failure()
    assert isinstance(error, CommandError)
    assert str(error).startswith(mcp.INSTALL)
