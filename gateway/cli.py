"""The commands that serve, added to the client's `visiongate`: up, serve, triton, settings, keys."""

import asyncio
import functools
import inspect
import json
import os
import sys
from collections.abc import Callable, Container, Coroutine, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from gateway import logs
from gateway.commands import keys
from gateway.embedded import EmbeddedTriton, EmbeddedTritonError
from gateway.server import StopSignals, serve, until_first
from gateway.settings import Loaded, Settings, flag, group, load, metavar, shown
from gateway.workers import serve_with_workers
from visiongate import cli
from visiongate.commands.common import AsJson, console, errors

app = typer.Typer()
app.add_typer(keys.app)


def takes_settings(without: Container[str] = ()) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Gives a command an option for each setting, and the settings in force as its first argument."""
    options = [_config_option(), *(_option(name) for name in Settings.model_fields if name not in without)]

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        _, *own = inspect.signature(command).parameters.values()

        @functools.wraps(command)
        def run(**values: Any) -> None:
            given = {option.name: values.pop(option.name) for option in options}
            file = given.pop("config")
            flags = {name: value for name, value in given.items() if value is not None}
            command(load(flags, os.environ, file, _other_variables()), **values)

        # typer reads both.
        parameters = [*own, *options]
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return run

    return decorate


def _config_option() -> inspect.Parameter:
    option = typer.Option(
        "--config",
        help="TOML file of settings, by their names with underscores: max_images = 8.",
        envvar="VISIONGATE_CONFIG",
        metavar="FILE",
    )
    kind = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter("config", kind, default=None, annotation=Annotated[Path | None, option])


def _option(name: str) -> inspect.Parameter:
    """A setting's option. Its text is not converted here: `load` says where a wrong value comes from."""
    info = Settings.model_fields[name]
    option = typer.Option(
        flag(name),
        help=info.description,
        metavar=metavar(name),
        show_default=shown(info.default) or False,
        rich_help_panel=group(name),
    )
    kind = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(name, kind, default=None, annotation=Annotated[str | None, option])


def _other_variables() -> set[str]:
    """The environment variables that are options of commands that ask a server, or no options at all."""

    def options(command: Any) -> Iterator[Any]:
        yield from command.params
        for inner in getattr(command, "commands", {}).values():
            yield from options(inner)

    commands = map(typer.main.get_command, (cli.app, app))
    variables = {option.envvar for command in commands for option in options(command) if option.envvar}
    return variables | {"VISIONGATE_CACHE_DIR"}


@app.command("serve")
@takes_settings()
def serve_command(loaded: Loaded) -> None:
    """Start the gateway in front of a running Triton.

    Every option is a setting: also a variable VISIONGATE_… of the environment, and a key of the TOML file.
    See `visiongate settings`.
    """
    _serve(loaded.settings)


@app.command()
@takes_settings(without=["triton"])
def up(loaded: Loaded) -> None:
    """Start Triton from pip and the gateway together: all that one machine needs."""
    if loaded.sources["triton"] != "default":
        _progress(
            f"up starts a Triton of its own: the setting triton ({loaded.sources['triton']}) is not used"
        )
    with EmbeddedTriton(loaded.settings.repository, progress=_progress) as triton:
        _serve(loaded.settings.model_copy(update={"triton": triton.grpc_address}), _death(triton))


@app.command("triton")
def triton_command(
    repository: Annotated[Path, typer.Option(help="Triton's model repository.")] = Path("model_repository"),
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

        async def wait() -> None:
            await until_first(StopSignals().first.wait(), _death(triton))

        asyncio.run(wait())


@app.command("settings")
@takes_settings()
def settings_command(loaded: Loaded, as_json: AsJson = False) -> None:
    """Show every setting of the gateway: its value in force, where that comes from, and what it means.

    Settings are flags of `visiongate serve` and `up` (--max-images 8), over variables of the environment
    (VISIONGATE_MAX_IMAGES=8), over keys of a TOML file (max_images = 8), over defaults. The same flags
    given here show what they would do there.
    """
    # Through JSON: paths and infinity are texts there.
    values = json.loads(loaded.settings.model_dump_json())
    fields = Settings.model_fields.items()
    if as_json:
        entries = [
            {
                "name": name,
                "value": shown(values[name]) if isinstance(values[name], str) else values[name],
                "source": loaded.sources[name],
                "meaning": info.description,
            }
            for name, info in fields
        ]
        print(json.dumps(entries, ensure_ascii=False))
        return
    table = Table(
        *("setting", "value", "from", "meaning"),
        caption="max_images is --max-images, VISIONGATE_MAX_IMAGES and, in a TOML file, max_images.",
    )
    for name, info in fields:
        value = shown(getattr(loaded.settings, name))
        table.add_row(name, Text(value), loaded.sources[name], Text(info.description or ""))
    console.print(table)


def _progress(message: str) -> None:
    errors.print(message, highlight=False, markup=False, soft_wrap=True)


def _serve(settings: Settings, *watches: Coroutine[Any, Any, None]) -> None:
    """Serves until a signal, or until a watch ends."""
    logs.configure(settings)

    def started(port: int, served: str) -> None:
        console.print(
            f"visiongate answers at {settings.host}:{port} ({served}); Ctrl-C stops it.",
            highlight=False,
            soft_wrap=True,
        )

    serving = (
        serve(settings, lambda gateway: started(gateway.port, gateway.served))
        if settings.workers == 1
        else serve_with_workers(settings, started)
    )
    asyncio.run(until_first(serving, *watches))


async def _death(triton: EmbeddedTriton) -> None:
    """Ends, with an error, when Triton does."""
    while triton.poll() is None:  # noqa: ASYNC110
        await asyncio.sleep(0.5)
    raise EmbeddedTritonError(f"Triton died with exit code {triton.poll()}: {triton.explanation()}")
