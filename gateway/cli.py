"""The commands that serve, added to the client's `visiongate`: up, serve, triton, settings, keys.

What serves is imported by the commands that do: it takes seconds, which settings, keys and help need not.
"""

import asyncio
import functools
import importlib.util
import inspect
import json
import os
import sys
from collections.abc import Callable, Container, Coroutine, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from gateway.address import join
from gateway.commands import keys
from gateway.settings import CACHE_VARIABLE, Loaded, Settings, flag, group, load, metavar, shown, variable
from gateway.stopping import StopSignals, until_first
from visiongate import cli
from visiongate.command_error import CommandError
from visiongate.commands.common import AsJson, note, print_json, say, table
from visiongate.fonts import FONT_VARIABLE

app = typer.Typer()
app.add_typer(keys.app)


CACHE_HELP = (
    f"Triton itself is prepared once, in the user's cache folder: {CACHE_VARIABLE} names another one, "
    "which must have 500 MB free and let programs be run."
)

Demo = Annotated[bool, typer.Option("--demo", help="Serve the demo models: small, for drawn scenes.")]


def takes_settings(
    only: Container[str] = Settings.model_fields, without: Container[str] = ()
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Gives a command an option for each of these settings, and the settings in force as its first argument.

    What the environment says of others is not looked at.
    """
    names = [name for name in Settings.model_fields if name in only]
    options = [_config_option(), *(_option(name) for name in names if name not in without)]
    ignored = {variable(name) for name in Settings.model_fields if name not in names}

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        _, *own = inspect.signature(command).parameters.values()

        @functools.wraps(command)
        def run(**values: Any) -> None:
            given = {option.name: values.pop(option.name) for option in options}
            file = given.pop("config")
            flags = {name: value for name, value in given.items() if value is not None}
            environment = {name: value for name, value in os.environ.items() if name not in ignored}
            command(load(flags, environment, file, _other_variables()), **values)

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
    return variables | {CACHE_VARIABLE, FONT_VARIABLE}


@app.command("serve")
@takes_settings()
def serve_command(loaded: Loaded) -> None:
    """Start the gateway in front of a running Triton.

    Every option is a setting: also a variable VISIONGATE_… of the environment, and a key of the TOML file.
    See `visiongate settings`.
    """
    _serve(loaded.settings)


@app.command(epilog=CACHE_HELP)
@takes_settings(without=["triton"])
def up(loaded: Loaded, demo: Demo = False) -> None:
    """Start Triton from pip and the gateway together: all that one machine needs."""
    from gateway.embedded import EmbeddedTriton, in_front_of  # noqa: PLC0415
    from gateway.server import check  # noqa: PLC0415

    if loaded.sources["triton"] != "default":
        note(f"up starts a Triton of its own: the setting triton ({loaded.sources['triton']}) is not used")
    settings = loaded.settings.model_copy(update={"repository": _repository(loaded, demo)})
    check(settings)
    with EmbeddedTriton(settings.repository, progress=note) as triton:
        _serve(in_front_of(triton, settings), triton.death())


@app.command("triton", epilog=CACHE_HELP)
@takes_settings(only=["repository"])
def triton_command(
    loaded: Loaded,
    demo: Demo = False,
    grpc_port: Annotated[int, typer.Option(min=0, max=65535, help="0: a free one.")] = 8001,
    http_port: Annotated[int, typer.Option(min=0, max=65535, help="0: a free one.")] = 8000,
    metrics_port: Annotated[int, typer.Option(min=0, max=65535, help="0: a free one.")] = 8002,
) -> None:
    """Start a real Triton server from pip on this machine, without Docker, on loopback."""
    from gateway.embedded import EmbeddedTriton  # noqa: PLC0415

    with EmbeddedTriton(
        _repository(loaded, demo),
        grpc_port=grpc_port,
        http_port=http_port,
        metrics_port=metrics_port,
        log=lambda line: print(line, file=sys.stderr),
        progress=note,
    ) as triton:
        say(
            f"Triton answers gRPC at {triton.grpc_address}, HTTP at {triton.http_address}, "
            f"metrics at {triton.metrics_address}; Ctrl-C stops it."
        )

        async def wait() -> None:
            with StopSignals() as stop:
                await until_first(stop.first.wait(), triton.death())

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
        print_json(entries)
        return
    rows = []
    for name, info in fields:
        rows.append(
            (name, shown(getattr(loaded.settings, name)), loaded.sources[name], info.description or "")
        )
    table(("setting", "value", "from", "meaning"), rows)
    note("max_images is --max-images, VISIONGATE_MAX_IMAGES and, in a TOML file, max_images.")


def _repository(loaded: Loaded, demo: bool) -> Path:
    """The setting, or where the demo models are. Raises CommandError."""
    if not demo:
        return loaded.settings.repository
    if loaded.sources["repository"] == "flag":
        raise CommandError("--demo and --repository both say what to serve: leave one of them out")
    # Not by an import: the gateway knows nothing of the exporter.
    found = importlib.util.find_spec("export")
    for folder in found.submodule_search_locations or () if found else ():
        repository = Path(folder, "demo", "repository")
        if repository.is_dir():
            return repository
    raise CommandError(f"the demo models are missing: {cli.INSTALL_SERVER}")


def _serve(settings: Settings, *watches: Coroutine[Any, Any, None]) -> None:
    """Serves until a signal, or until a watch ends. Raises SystemExit where the signal came before."""
    from gateway import logs  # noqa: PLC0415
    from gateway.processes import serve_with_processes  # noqa: PLC0415
    from gateway.server import serve  # noqa: PLC0415

    logs.configure(settings)
    has_started = False

    def started(port: int, served: str) -> None:
        nonlocal has_started
        has_started = True
        say(f"visiongate answers at {join(settings.host, port)} ({served}); Ctrl-C stops it.")

    async def run() -> int:
        with StopSignals() as stop:
            serving = (
                serve(settings, lambda gateway: started(gateway.port, gateway.served), stop)
                if settings.processes == 1
                else serve_with_processes(settings, started, stop)
            )
            await until_first(serving, *watches)
            return 0 if has_started else stop.exit_code

    if code := asyncio.run(run()):
        raise SystemExit(code)
