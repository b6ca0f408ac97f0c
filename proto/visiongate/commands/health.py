"""`visiongate health`."""

import functools
import importlib
import pkgutil
import time
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import grpc
import typer
from grpc_health.v1 import health_pb2

from visiongate import Client, v1
from visiongate.commands.common import AsJson, fail, report
from visiongate.commands.options import asks_server
from visiongate.errors import UnavailableError, VisiongateError
from visiongate.operations import Operation

NOT_READY, NOT_ASKED = 1, 2
"""Exit codes. The second one is also that of a command line that makes no sense."""

PAUSE_S = 0.5
_WHOLE = ""
_PACKAGE = "visiongate.v1"
_SERVING = health_pb2.HealthCheckResponse.SERVING

app = typer.Typer(rich_markup_mode="markdown")


def _fails_otherwise(command: Callable[..., None]) -> Callable[..., None]:
    """Give the command's failures an exit code of their own: 1 means that a service is not ready."""

    @functools.wraps(command)
    def run(**values: Any) -> None:
        try:
            command(**values)
        except (VisiongateError, OSError, ValueError) as error:
            fail(str(error))
            raise typer.Exit(NOT_ASKED) from error

    return run


@app.command()
@_fails_otherwise
@asks_server
def health(
    client: Client,
    service: Annotated[
        str | None,
        typer.Argument(help="A service, such as DetectionService.", show_default="all of them"),
    ] = None,
    wait: Annotated[
        float, typer.Option(help="Seconds to wait until it is ready, also for a server that starts.", min=0)
    ] = 0,
    as_json: AsJson = False,
) -> None:
    """Ask a server whether it is ready, by gRPC's health protocol.

    The exit code is 0 if it is ready, 1 if it is not, and 2 if it cannot be asked. Without a service that is
    about the server as a whole. No API key is needed. A script that has just started a server waits for it:

    ```
    visiongate health --wait 60 && visiongate detect photo.jpg cup
    ```
    """
    names = [_full_name(service)] if service else [*_services(), _WHOLE]
    deadline = time.monotonic() + wait
    while True:
        left_s = deadline - time.monotonic()
        try:
            states = _ask(client, names)
        except UnavailableError:
            if left_s <= 0:
                raise
        else:
            if states[names[-1]] or left_s <= 0:
                break
        time.sleep(min(PAUSE_S, max(0.0, left_s)))
    report(
        [{"service": name, "ready": bool(states[name])} for name in names],
        ("service", "state"),
        [(name or "the server as a whole", _words(states[name])) for name in names],
        as_json,
        "",
    )
    if not states[names[-1]]:
        raise typer.Exit(NOT_READY)


def _ask(client: Client, names: Sequence[str]) -> dict[str, bool | None]:
    """Return whether each service is ready; None for one of several that the server does not know."""
    once = client.with_options(wait=False)
    states: dict[str, bool | None] = {}
    for name in names:
        try:
            states[name] = once.call(_check(name))
        except VisiongateError as error:
            if error.code is not grpc.StatusCode.NOT_FOUND:
                raise
            if len(names) == 1:
                known = ", ".join(known.removeprefix(f"{_PACKAGE}.") for known in _services())
                raise ValueError(f"the server has no service {name}; this client knows {known}") from error
            states[name] = None
    return states


def _check(service: str) -> Operation[bool]:
    return Operation(
        "/grpc.health.v1.Health/Check",
        health_pb2.HealthCheckRequest(service=service),
        health_pb2.HealthCheckResponse,
        lambda response, _: response.status == _SERVING,
    )


def _words(is_ready: bool | None) -> str:
    return "the server does not have it" if is_ready is None else "ready" if is_ready else "not ready"


def _full_name(service: str) -> str:
    return service if "." in service else f"{_PACKAGE}.{service}"


def _services() -> list[str]:
    """Return the full names of the API's services."""
    modules = [module.name for module in pkgutil.iter_modules(v1.__path__)]
    files = [
        importlib.import_module(f"{v1.__name__}.{name}").DESCRIPTOR
        for name in modules
        if name.endswith("_pb2")
    ]
    return sorted(service.full_name for file in files for service in file.services_by_name.values())
