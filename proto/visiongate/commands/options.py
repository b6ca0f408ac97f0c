"""The options that commands share, first of all those that say which server to ask, and how."""

import functools
import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from visiongate import Client
from visiongate.command_error import CommandError
from visiongate.commands.common import note, waiting
from visiongate.commands.signature import with_options
from visiongate.operations import Operation

R = TypeVar("R")

SERVER = "Server"
WORDS = "Words"
"""Panels of the help."""

MODEL_OWN = "the model's own"
"""The default of thresholds that are stored with a model."""

DEFAULT_LIMIT = 100
"""How many detections or faces a server returns by default."""

Model = Annotated[
    str, typer.Option(help="Model variant, as `visiongate models` lists them.", show_default="the server's")
]
Truncate = Annotated[
    bool, typer.Option("--truncate", help="Cut texts that are too long, instead of failing.")
]
Caption = Annotated[
    str,
    typer.Option(
        help="Free text instead of phrases: the model decides which words belong together.",
        rich_help_panel=WORDS,
    ),
]
MinScore = Annotated[
    float | None,
    typer.Option(help="Least score of a detection, 0 to 1.", show_default=MODEL_OWN, rich_help_panel=WORDS),
]
MinTokenScore = Annotated[
    float | None,
    typer.Option(
        help="With --caption: least score, 0 to 1, of a token that becomes part of a detection's phrase.",
        show_default=MODEL_OWN,
        rich_help_panel=WORDS,
    ),
]
NmsIou = Annotated[
    float | None,
    typer.Option(
        help="Drop the weaker of two boxes of a phrase whose intersection over union is larger, 0 to 1.",
        show_default=MODEL_OWN,
        rich_help_panel=WORDS,
    ),
]
MaxDetections = Annotated[
    int | None,
    typer.Option(
        help="At most this many detections, best first.",
        show_default=str(DEFAULT_LIMIT),
        rich_help_panel=WORDS,
    ),
]


def client_arguments(
    server: Annotated[
        str,
        typer.Option(
            help="Address of the server, HOST:PORT, such as vision.example.com:443.",
            envvar="VISIONGATE_SERVER",
            rich_help_panel=SERVER,
        ),
    ] = "127.0.0.1:50051",
    timeout: Annotated[
        float,
        typer.Option(help="Seconds that the answer may take; inf: no limit.", rich_help_panel=SERVER),
    ] = 120,
    api_key: Annotated[
        str | None,
        typer.Option(
            help="The API key. Other users of this machine can read it in an option, not in the variable.",
            envvar="VISIONGATE_API_KEY",
            rich_help_panel=SERVER,
        ),
    ] = None,
    tls: Annotated[
        bool | None,
        typer.Option(
            help="Encrypt, and trust the authorities that this machine trusts. With --no-tls an API key goes "
            "unencrypted, also to another machine.",
            envvar="VISIONGATE_TLS",
            show_default="with --ca or --cert",
            rich_help_panel=SERVER,
        ),
    ] = None,
    ca: Annotated[
        Path | None,
        typer.Option(
            help="Certificate authorities of the server, PEM.",
            envvar="VISIONGATE_CA",
            rich_help_panel=SERVER,
        ),
    ] = None,
    cert: Annotated[
        Path | None,
        typer.Option(
            help="Certificate to show the server, PEM.",
            envvar="VISIONGATE_CERT",
            rich_help_panel=SERVER,
        ),
    ] = None,
    cert_key: Annotated[
        Path | None,
        typer.Option(
            help="The private key of --cert, PEM.", envvar="VISIONGATE_CERT_KEY", rich_help_panel=SERVER
        ),
    ] = None,
) -> dict[str, Any]:
    """Return what the client is made with. Every command that asks a server has these options."""
    if not timeout > 0:
        raise CommandError(f"--timeout is {timeout:g}: give seconds above 0, or inf for no limit")
    return {
        "address": server,
        "timeout": timeout,
        "api_key": api_key,
        "tls": tls,
        "root_certificates": ca,
        "client_certificate": cert,
        "client_key": cert_key,
    }


class PatientClient(Client):
    """A client that shows on a terminal that it is waiting."""

    def call(self, operation: Operation[R]) -> R:
        with waiting("waiting for the server's answer"):
            return super().call(operation)


def names_server(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of `client_arguments`, and what that returns as its first argument."""
    options = inspect.signature(client_arguments).parameters

    @with_options(command, [*options.values()])
    def run(**values: Any) -> None:
        command(client_arguments(**{name: values.pop(name) for name in options}), **values)

    return run


def asks_server(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of `client_arguments`, and a client of them as its first argument."""

    @names_server
    @functools.wraps(command)
    def run(arguments: dict[str, Any], **values: Any) -> None:
        with PatientClient(**arguments) as client:
            command(client, **values)

    return run


def note_limit(items: Sequence[object], limit: int | None, option: str) -> None:
    """Say so if an answer is as long as its limit allows: there may be more."""
    limit = DEFAULT_LIMIT if limit is None else limit
    if len(items) >= limit > 0:
        note(f"These are as many as {option} allows ({limit}), the best ones: there may be more.")
