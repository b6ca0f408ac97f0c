"""The `visiongate` command: serve models, export them, and ask a server from the shell."""

import asyncio
import importlib
import logging
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError
from rich.table import Table

from gateway.catalog import CatalogError
from gateway.commands import detection, embedding, gaze, models, segmentation, text
from gateway.commands.common import console, errors
from gateway.embedded import EmbeddedTriton, EmbeddedTritonError
from gateway.server import Gateway, serve, stop_signal
from gateway.settings import Settings
from visiongate import VisiongateError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    help="Serve vision foundation models over gRPC with NVIDIA Triton, and ask them from the shell.",
)
for task in (models, detection, segmentation, embedding, gaze, text):
    app.add_typer(task.app)

Repository = Annotated[Path, typer.Option(help="Triton's model repository.")]
Host = Annotated[str | None, typer.Option(help="Address to listen on.", show_default="127.0.0.1")]
Port = Annotated[int | None, typer.Option(help="Port to listen on; 0: a free one.", show_default="50051")]
REPOSITORY = Path("model_repository")


def main() -> None:
    """Entry point of the `visiongate` command: expected failures are one sentence and exit code 1."""
    try:
        app()
    except (
        CatalogError,
        EmbeddedTritonError,
        VisiongateError,
        ValidationError,
        OSError,
        ValueError,
    ) as error:
        errors.print("[bold red]error:[/]", end=" ")
        errors.print(str(error), markup=False, highlight=False, soft_wrap=True)
        sys.exit(1)


@app.command("serve")
def serve_command(
    triton: Annotated[
        str | None, typer.Option(help="Triton's gRPC address.", show_default="127.0.0.1:8001")
    ] = None,
    repository: Annotated[
        Path | None,
        typer.Option(
            help="The model repository that Triton serves, or a copy of its small files.",
            show_default=str(REPOSITORY),
        ),
    ] = None,
    host: Host = None,
    port: Port = None,
) -> None:
    """Start the gateway in front of a running Triton.

    Every other setting is an environment variable VISIONGATE_…: see `visiongate settings`.
    """
    _serve(_settings(triton=triton, repository=repository, host=host, port=port))


@app.command()
def up(repository: Repository = REPOSITORY, host: Host = None, port: Port = None) -> None:
    """Start Triton from pip and the gateway together: all that one machine needs."""
    with EmbeddedTriton(repository, progress=_progress) as triton:
        settings = _settings(triton=triton.grpc_address, repository=repository, host=host, port=port)
        _serve(settings, _death(triton))


@app.command("triton")
def triton_command(
    repository: Repository = REPOSITORY,
    grpc_port: Annotated[int, typer.Option(help="0: a free one.")] = 8001,
    http_port: Annotated[int, typer.Option(help="0: a free one.")] = 8000,
    metrics_port: Annotated[int, typer.Option(help="0: a free one.")] = 8002,
) -> None:
    """Start a real Triton server from pip on this machine, without Docker, on loopback."""
    with EmbeddedTriton(
        repository,
        grpc_port=grpc_port,
        http_port=http_port,
        metrics_port=metrics_port,
        log=lambda line: print(line, file=sys.stderr),
        progress=_progress,
    ) as triton:
        console.print(
            f"Triton answers gRPC at {triton.grpc_address}, HTTP at {triton.http_address}, "
            f"metrics at {triton.metrics_address}; Ctrl-C stops it.",
            highlight=False,
            soft_wrap=True,
        )
        asyncio.run(_first(stop_signal(), _death(triton)))


PASSED_ON: dict[str, Any] = {
    "context_settings": {"allow_extra_args": True, "ignore_unknown_options": True},
    "add_help_option": False,
}


@app.command("export", **PASSED_ON)
def export_command(context: typer.Context) -> None:
    """Turn foundation models into ONNX in a Triton model repository."""
    _pass_on("export.__main__", "export", context)


@app.command("demo", **PASSED_ON)
def demo_command(context: typer.Context) -> None:
    """See all models answer on one drawn picture; measure how true they are; train them."""
    _pass_on("export.demo.__main__", "demo", context)


@app.command("settings")
def settings_command() -> None:
    """Show every setting of the gateway: its value in force and what it means."""
    settings = Settings()
    table = Table("environment variable", "value", "meaning")
    for name, info in Settings.model_fields.items():
        table.add_row(f"VISIONGATE_{name.upper()}", str(getattr(settings, name)), info.description)
    console.print(table)


def _pass_on(module: str, name: str, context: typer.Context) -> None:
    """Run a command of the exporter's side."""
    try:
        # By name: the gateway must run, and be installed, without PyTorch.
        command = importlib.import_module(module)
    except ImportError as error:
        raise ValueError(f"this needs more packages: pip install 'visiongate[export]' ({error})") from error
    command.app(args=context.args, prog_name=f"visiongate {name}")


def _settings(**flags: Any) -> Settings:
    """The settings in force: flags that were given go before the environment."""
    return Settings(**{name: value for name, value in flags.items() if value is not None})


def _progress(message: str) -> None:
    errors.print(message, highlight=False, markup=False, soft_wrap=True)


def _serve(settings: Settings, *watches: Coroutine[Any, Any, None]) -> None:
    """Serves until a signal, or until a watch ends."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")

    def started(gateway: Gateway) -> None:
        served = ", ".join(f"{variant.family.name} {variant.name}" for variant in gateway.catalog.variants)
        console.print(
            f"visiongate answers at {settings.host}:{gateway.port} ({served}); Ctrl-C stops it.",
            highlight=False,
            soft_wrap=True,
        )

    asyncio.run(_first(serve(settings, started), *watches))


async def _death(triton: EmbeddedTriton) -> None:
    """Ends, with an error, when Triton does."""
    while triton.poll() is None:  # noqa: ASYNC110
        await asyncio.sleep(0.5)
    raise EmbeddedTritonError(f"Triton died with exit code {triton.poll()}: {triton.explanation()}")


async def _first(*work: Coroutine[Any, Any, None]) -> None:
    """Runs all until the first ends, then cancels the others."""
    tasks = [asyncio.create_task(item) for item in work]
    done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()
    await asyncio.gather(*pending, return_exceptions=True)
    for task in done:
        task.result()
