"""A real server with the demo models, and the commands that ask it, in this process."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw
from typer.testing import CliRunner, Result

from gateway.server import Gateway
from gateway.settings import Settings
from visiongate import cli

Ask = Callable[..., Awaitable[Result]]
AskJson = Callable[..., Awaitable[list[dict[str, Any]]]]


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """A red circle and a blue square, in a file whose name looks like Rich's markup."""
    image = Image.new("RGB", (320, 240), "white")
    canvas = ImageDraw.Draw(image)
    canvas.ellipse((30, 60, 130, 160), fill=(220, 30, 30))
    canvas.rectangle((190, 70, 280, 160), fill=(30, 60, 220))
    path = tmp_path / "[sic] :smile:" / "[/] scene.png"
    path.parent.mkdir(parents=True)
    image.save(path)
    return path


@pytest.fixture(scope="session")
async def demo_address(demo_settings: Settings) -> AsyncIterator[str]:
    async with Gateway(demo_settings) as server:
        yield f"127.0.0.1:{server.port}"


@pytest.fixture
def ask(demo_address: str) -> Ask:
    """Runs a command that must not fail."""

    async def run(*arguments: object, stdin: bytes | None = None) -> Result:
        command = [*map(str, arguments), "--server", demo_address]
        # In a thread: the server answers in this one.
        result = await asyncio.to_thread(CliRunner().invoke, cli.app, command, input=stdin)
        assert result.exception is None, repr(result.exception)
        return result

    return run


@pytest.fixture
def ask_json(ask: Ask) -> AskJson:
    """Runs a command with --json, and returns what it prints."""

    async def run(*arguments: object) -> list[dict[str, Any]]:
        result = await ask(*arguments, "--json")
        assert result.stdout.count("\n") == 1
        entries = json.loads(result.stdout)
        assert isinstance(entries, list)
        return entries

    return run
