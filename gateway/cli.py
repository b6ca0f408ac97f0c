"""The server's commands, added to the client's `visiongate`: up, serve, triton, settings, top and others.

The commands that serve import the server themselves. That takes seconds, which settings, keys and help can do
without.
"""

import asyncio
import contextlib
import importlib.util
import inspect
import json
import logging
import os
import sys
from collections.abc import Callable, Container, Coroutine, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from gateway.address import checked_host
from gateway.commands import bench, keys, top
from gateway.commands.gpus import Gpus, takes_gpus
from gateway.settings import Settings, group, metavar
from gateway.settings_sources import (
    CACHE_VARIABLE,
    CONFIG_VARIABLE,
    Loaded,
    flag,
    load,
    shown,
    variable,
)
from gateway.stopping import StopSignals, until_first
from visiongate import cli
from visiongate.address import join
from visiongate.command_error import CommandError
from visiongate.commands.common import AsJson, note, print_json, say, table
from visiongate.commands.signature import with_options
from visiongate.fonts import FONT_VARIABLE

app = typer.Typer(rich_markup_mode="markdown")
app.add_typer(keys.app)
app.add_typer(top.app)
app.add_typer(bench.app)


CACHE_HELP = (
    f"Triton itself is installed once, in the user's cache folder. {CACHE_VARIABLE} names another folder, "
    "which must have 500 MB free, 3 GB with --gpu, and allow programs to run."
)

ServerArguments = Annotated[
    list[str] | None, typer.Argument(metavar="-- ARGUMENTS", help="Further arguments for tritonserver.")
]
ModelControl = Annotated[
    Literal["none", "explicit", "poll"],
    typer.Option(
        help="none: all models, as they are now. explicit: those that it is told to load. poll: all models, "
        "as the repository changes."
    ),
]
Demo = Annotated[bool, typer.Option("--demo", help="Serve the demo models: small, for drawn scenes.")]


def takes_settings(
    only: Container[str] = Settings.model_fields, without: Container[str] = ()
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command an option for each setting, and the settings in force as its first argument.

    only: the settings that the command reads; environment variables of others are ignored. without: settings
    among them that get no option.
    """
    names = [name for name in Settings.model_fields if name in only]
    options = [_config_option(), *(_option(name) for name in names if name not in without)]
    ignored = {variable(name) for name in Settings.model_fields if name not in names}

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @with_options(command, options)
        def run(**values: Any) -> None:
            flags = {option.name: values.pop(option.name) for option in options}
            file = flags.pop("config")
            flags = {name: value for name, value in flags.items() if value is not None}
            environment = {name: value for name, value in os.environ.items() if name not in ignored}
            command(load(flags, environment, file, _other_variables()), **values)

        return run

    return decorate


def _config_option() -> inspect.Parameter:
    option = typer.Option(
        "--config",
        help="TOML file of settings, by their names with underscores: max_images = 8.",
        envvar=CONFIG_VARIABLE,
        metavar="FILE",
    )
    kind = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter("config", kind, default=None, annotation=Annotated[Path | None, option])


def _option(name: str) -> inspect.Parameter:
    """Return the option of a setting. `load` converts the text: it can say where a wrong value comes from."""
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
    """Return the environment variables VISIONGATE_… that are not settings."""

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

    Every option is a setting. It can also be set by an environment variable VISIONGATE_… and by a key of the
    TOML file. See `visiongate settings`.
    """
    with _logging(loaded.settings):
        _serve(loaded.settings)


@app.command(epilog=CACHE_HELP)
@takes_settings(without=["triton"])
@takes_gpus
def up(gpus: Gpus | None, loaded: Loaded, demo: Demo = False) -> None:
    """Start Triton from pip and the gateway together, on one machine, on its CPU or with --gpu on its GPUs.

    A Triton that dies is started anew.
    """
    from gateway.embedded import EmbeddedTriton, in_front_of, keep_running  # noqa: PLC0415
    from gateway.process import check  # noqa: PLC0415

    with _logging(loaded.settings) as tell:
        if loaded.sources["triton"] != "default":
            tell(f"up starts its own Triton: the setting triton ({loaded.sources['triton']}) is not used")
        settings = loaded.settings.model_copy(update={"repository": _repository(loaded, demo)})
        check(settings)
        with EmbeddedTriton(settings.repository, gpus=gpus, progress=tell) as triton:
            _serve(in_front_of(triton, settings), keep_running(triton))


@app.command("triton", epilog=CACHE_HELP)
@takes_settings(only=["repository"])
@takes_gpus
def triton_command(
    gpus: Gpus | None,
    loaded: Loaded,
    arguments: ServerArguments = None,
    demo: Demo = False,
    model_control: ModelControl = "none",
    host: Annotated[
        str,
        typer.Option(
            help="Address to listen on, such as ::1 or 10.0.0.7; 0.0.0.0 or :: for every interface. Whoever "
            "reaches it may use it: Triton has no keys and no TLS."
        ),
    ] = "127.0.0.1",
    grpc_port: Annotated[int, typer.Option(min=0, max=65535, help="0 picks a free one.")] = 8001,
    http_port: Annotated[int, typer.Option(min=0, max=65535, help="0 picks a free one.")] = 8000,
    metrics_port: Annotated[int, typer.Option(min=0, max=65535, help="0 picks a free one.")] = 8002,
) -> None:
    """Start a real Triton server from pip on this machine, without Docker.

    With --host gateways of other hosts reach it. A Triton that dies is started anew. With --model-control
    explicit it starts without models, and loads and unloads them when it is told to:

    ```
    curl -X POST 127.0.0.1:8000/v2/repository/models/clip_text/load
    curl -X POST 127.0.0.1:8000/v2/repository/models/clip_text/unload
    ```

    What is after -- goes to tritonserver as it is; paths must be absolute, as it runs in a folder of its own.
    This loads a model at each start, and has more in the log:

    ```
    visiongate triton --model-control explicit -- --load-model=clip_text --log-verbose=1
    ```
    """
    from gateway.embedded import EmbeddedTriton, keep_running  # noqa: PLC0415

    if arguments and not arguments[0].startswith("-"):
        raise CommandError(f"{arguments[0]} is no option: what is after -- are tritonserver's (--help)")
    try:
        host = checked_host(host)
    except ValueError as error:
        raise CommandError(f"--host is {host!r}: {error}") from None
    with EmbeddedTriton(
        _repository(loaded, demo),
        host=host,
        grpc_port=grpc_port,
        http_port=http_port,
        metrics_port=metrics_port,
        model_control=model_control,
        gpus=gpus,
        extra_arguments=arguments or (),
        log=lambda line: print(line, file=sys.stderr),
        progress=note,
    ) as triton:
        if not triton.is_on_loopback:
            note("Triton has no keys and no TLS: let nobody but gateways reach its ports.")

        async def wait() -> None:
            with StopSignals() as stop:
                say(
                    f"Triton answers gRPC at {triton.grpc_address}, HTTP at {triton.http_address}, "
                    f"metrics at {triton.metrics_address}; Ctrl-C stops it."
                )
                await until_first(stop.first.wait(), keep_running(triton))

        asyncio.run(wait())


@app.command("settings")
@takes_settings()
def settings_command(loaded: Loaded, as_json: AsJson = False) -> None:
    """Show every setting of the gateway: the value in force, where it comes from, and what it means.

    A flag of `visiongate serve` and `up` (--max-images 8) goes before an environment variable
    (VISIONGATE_MAX_IMAGES=8), then comes a key of the TOML file (max_images = 8), then the default. Flags
    given here show what they would do there.
    """
    # By way of JSON, in which paths and infinity are texts.
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
    rows = [
        (name, shown(getattr(loaded.settings, name)), loaded.sources[name], info.description or "")
        for name, info in fields
    ]
    table(("setting", "value", "from", "meaning"), rows)
    note("max_images is written --max-images, VISIONGATE_MAX_IMAGES, or max_images in a TOML file.")


def _repository(loaded: Loaded, demo: bool) -> Path:
    """Return the model repository: the setting, or that of the demo models. Raises CommandError."""
    if not demo:
        return loaded.settings.repository
    if loaded.sources["repository"] == "flag":
        raise CommandError("--demo and --repository both say what to serve: leave one of them out")
    # The gateway must not import the exporter: the package is only located.
    package = importlib.util.find_spec("export")
    for folder in package.submodule_search_locations or () if package else ():
        repository = Path(folder, "demo", "repository")
        if repository.is_dir():
            return repository
    raise CommandError(f"the demo models are missing: {cli.INSTALL_SERVER}")


@contextlib.contextmanager
def _logging(settings: Settings) -> Iterator[Callable[[str], None]]:
    """Set up the log of a server, and lend what tells its operator something.

    That is a line for people, or one of the log if that is for programs. So is the error that ends a server.
    """
    from gateway import logs  # noqa: PLC0415

    logs.configure(settings)
    if settings.log_format == "text":
        yield note
        return
    logger = logging.getLogger("gateway.cli")
    try:
        yield logger.info
    except (CommandError, OSError, ValueError) as error:
        logger.error("%s", error)
        raise SystemExit(1) from error


def _serve(settings: Settings, *beside: Coroutine[Any, Any, None]) -> None:
    """Serve until a signal comes, and do other work beside it, whose error ends it.

    Raises SystemExit if the signal comes during the start.
    """
    from gateway.http.front import url  # noqa: PLC0415
    from gateway.logs import tell_start  # noqa: PLC0415
    from gateway.process import serve  # noqa: PLC0415
    from gateway.processes import serve_with_processes  # noqa: PLC0415

    tell_start(settings)
    has_started = False

    def started(at: Settings, served: str) -> None:
        nonlocal has_started
        has_started = True
        http = "" if at.http_port is None else f" and {url(at, at.http_port)}"
        sentence = f"visiongate answers at {join(at.host, at.port)}{http} ({served}); Ctrl-C stops it."
        if settings.log_format == "text":
            say(sentence)
        else:
            logging.getLogger("gateway.cli").info("%s", sentence)

    async def run() -> int:
        with StopSignals() as stop:
            serving = (
                serve(settings, started, stop)
                if settings.processes == 1
                else serve_with_processes(settings, started, stop)
            )
            await until_first(serving, *(_until_stop(work, stop) for work in beside))
            return 0 if has_started else stop.exit_code

    if code := asyncio.run(run()):
        raise SystemExit(code)


async def _until_stop(work: Coroutine[Any, Any, None], stop: StopSignals) -> None:
    """Do the work until a signal asks to stop. Then wait: calls in flight may finish meanwhile."""
    await until_first(work, stop.first.wait())
    await asyncio.Event().wait()
