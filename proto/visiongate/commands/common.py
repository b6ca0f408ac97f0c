"""What the commands share: options, tables, JSON, and pictures of the answers."""

import functools
import inspect
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from PIL import Image, ImageOps
from rich.console import Console
from rich.table import Table

from visiongate import Client, draw

console = Console()
errors = Console(stderr=True)

BOX_COLUMN = "box (x_min, y_min, x_max, y_max)"

Photo = Annotated[Path, typer.Argument(help="The image file.", exists=True, dir_okay=False)]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Save = Annotated[Path | None, typer.Option(help="Draw the answer on the image and write it here.")]

SERVER_PANEL = "Server"


def connect(
    server: Annotated[
        str,
        typer.Option(help="The gateway's address.", envvar="VISIONGATE_SERVER", rich_help_panel=SERVER_PANEL),
    ] = "127.0.0.1:50051",
    timeout: Annotated[
        float, typer.Option(help="Seconds to wait for the answer.", rich_help_panel=SERVER_PANEL)
    ] = 120,
    api_key: Annotated[
        str | None,
        typer.Option(
            help="The API key. Users of this machine can read it in an option, not in the variable.",
            envvar="VISIONGATE_API_KEY",
            rich_help_panel=SERVER_PANEL,
        ),
    ] = None,
    tls: Annotated[
        bool | None,
        typer.Option(
            help="Encrypt, and trust the authorities that this machine trusts. --no-tls sends an API key "
            "unencrypted to another machine, too.",
            envvar="VISIONGATE_TLS",
            show_default="with --ca or --cert",
            rich_help_panel=SERVER_PANEL,
        ),
    ] = None,
    ca: Annotated[
        Path | None,
        typer.Option(
            help="Certificate authorities of the server, PEM.",
            envvar="VISIONGATE_CA",
            rich_help_panel=SERVER_PANEL,
        ),
    ] = None,
    cert: Annotated[
        Path | None,
        typer.Option(
            help="Certificate to show the server, PEM.",
            envvar="VISIONGATE_CERT",
            rich_help_panel=SERVER_PANEL,
        ),
    ] = None,
    cert_key: Annotated[
        Path | None,
        typer.Option(
            help="The private key of --cert, PEM.", envvar="VISIONGATE_CERT_KEY", rich_help_panel=SERVER_PANEL
        ),
    ] = None,
) -> Client:
    """A client, by the options of every command that asks a server."""
    return Client(
        server,
        timeout=timeout,
        api_key=api_key,
        tls=tls,
        root_certificates=ca,
        client_certificate=cert,
        client_key=cert_key,
    )


def asks_server(command: Callable[..., None]) -> Callable[..., None]:
    """Gives a command the options of `connect`, and what that returns as its first argument."""
    options = inspect.signature(connect).parameters
    _, *own = inspect.signature(command).parameters.values()

    @functools.wraps(command)
    def run(**values: Any) -> None:
        with connect(**{name: values.pop(name) for name in options}) as client:
            command(client, **values)

    # typer reads both.
    parameters = [*own, *options.values()]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


def report(
    entries: list[dict[str, Any]],
    columns: Sequence[str],
    rows: Sequence[tuple[str, ...]],
    as_json: bool,
    hint: str = "A lower --box-threshold finds more.",
) -> None:
    """Prints the answer, as JSON for programs or as a table for people; the hint where it is empty."""
    if as_json:
        print(json.dumps(entries, ensure_ascii=False))
    elif rows:
        table = Table(*columns)
        for row in rows:
            table.add_row(*row)
        console.print(table)
    else:
        console.print(f"Nothing found. {hint}", highlight=False)


def save_picture(photo: Path, path: Path | None, items: list[draw.Item]) -> None:
    """Draws the answer on the photo, where a path is given."""
    if path is None:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with Image.open(photo) as image:
        draw.draw(ImageOps.exif_transpose(image), items).save(path)
    errors.print(f"wrote {path}", highlight=False, soft_wrap=True)


def groups(phrases: Sequence[str]) -> list[int]:
    """A number for each distinct phrase, so that its objects share a colour."""
    order = list(dict.fromkeys(phrases))
    return [order.index(phrase) for phrase in phrases]


def numbers(values: np.ndarray[Any, Any]) -> str:
    return ", ".join(f"{value:.0f}" for value in values)


def coordinates(text: str, count: int) -> list[float]:
    """The numbers of an option such as --box; ValueError where they are not `count` of them."""
    try:
        values = [float(value) for value in text.split(",")]
    except ValueError:
        values = []
    if len(values) != count:
        raise ValueError(f"{text!r} is not {count} numbers with commas between them, such as 10,20")
    return values
