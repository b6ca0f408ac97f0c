"""`visiongate mcp`."""

import asyncio
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from visiongate import AsyncClient
from visiongate.batch.extra import how_to_install
from visiongate.command_error import CommandError
from visiongate.commands.common import note
from visiongate.commands.options import names_server
from visiongate_command import end_at_once, handle_stop_signals

app = typer.Typer(rich_markup_mode="markdown")

INSTALL = f"`visiongate mcp` needs the package mcp, version 2: {how_to_install('mcp')}"


@app.command()
@names_server
def mcp(
    client_arguments: dict[str, Any],
    root: Annotated[
        Path | None,
        typer.Option(
            help="The folder whose image files the assistant may name, and those of its subfolders.",
            metavar="FOLDER",
            show_default="no files",
        ),
    ] = None,
    http_port: Annotated[
        int | None,
        typer.Option(
            help="Serve over HTTP at this port of 127.0.0.1, image data only; 0: any free port.",
            min=0,
            max=65535,
            show_default="standard input and output",
        ),
    ] = None,
    allow_uris: Annotated[
        bool,
        typer.Option(
            "--allow-uris",
            help="Pass https:// addresses of images to the server, which fetches what its settings allow.",
        ),
    ] = False,
) -> None:
    """Give the models to an assistant as tools, by the Model Context Protocol.

    Assistants start this command themselves. They are told how in a file of settings. For example:

    ```
    visiongate mcp --root ~/Pictures
    visiongate mcp --http-port 8765
    ```
    """
    if http_port is not None and root is not None:
        raise CommandError(
            "--root does not go with --http-port: everybody on this machine could read its files"
        )
    try:
        from visiongate.mcp import server  # noqa: PLC0415
        from visiongate.mcp.images import Images  # noqa: PLC0415
    except ImportError as error:
        raise CommandError(f"{INSTALL} ({error})") from error
    images = Images(root, allow_uris=allow_uris)
    # An assistant waits for no answer as long as a program does: it is told at once that a server is away.
    client = AsyncClient(**client_arguments, wait=False)
    if http_port is not None:
        try:
            asyncio.run(server.serve_http(client, images, http_port, note))
        except OSError as error:
            raise CommandError(f"--http-port {http_port}: {error.strerror}") from error
        return
    if sys.stdin.isatty():
        note("Waiting for an assistant's messages on standard input.")
    # A thread waits for standard input, and an exception would wait for it. There is nothing to tidy up.
    handle_stop_signals(end_at_once)
    asyncio.run(server.serve_stdio(client, images))
