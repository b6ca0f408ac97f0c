"""The `visiongate` command. It asks servers. visiongate-server adds the commands that serve and export."""

import functools
import importlib
import importlib.metadata
import importlib.util
import io
import pkgutil
import sys
from collections.abc import Iterator, Mapping
from importlib.metadata import EntryPoint
from pathlib import Path
from types import FrameType
from typing import Any

import typer
from typer.core import TyperGroup

from visiongate import commands
from visiongate.command_error import CommandError
from visiongate.commands.common import fail
from visiongate.errors import VisiongateError
from visiongate_command import end_at_once, handle_stop_signals

ENTRY_POINTS = "visiongate.commands"
"""The group of entry points that add commands: `name = module:app`, a Typer app that has the command."""

SERVER_COMMANDS = ("up", "serve", "triton", "export", "demo", "settings", "keys", "top", "bench")
"""Commands of visiongate-server. If one is missing, the command line says what to install."""

INSTALL_SERVER = (
    "install visiongate-server beside the client: `pip install ./proto .` in a clone of visiongate, or the "
    "two wheels that `make wheels` makes there"
)


class Commands(TyperGroup):
    """The client's own commands and those of entry points, which are imported when they are called."""

    def list_commands(self, ctx: Any) -> list[str]:
        return [*sorted(super().list_commands(ctx)), *_entry_points()]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        own = super().get_command(ctx, cmd_name)
        if own is not None:
            return own
        added = _entry_points().get(cmd_name)
        if added is not None:
            try:
                return load(added)
            except CommandError as error:
                return _explanation(cmd_name, str(error))
        if cmd_name in SERVER_COMMANDS:
            return _explanation(cmd_name, f"`visiongate {cmd_name}` is part of the server: {INSTALL_SERVER}")
        return None


def _task_apps() -> Iterator[typer.Typer]:
    """Yield the `app` of each module in `visiongate.commands` that has one."""
    for module in pkgutil.iter_modules(commands.__path__):
        task = getattr(importlib.import_module(f"{commands.__name__}.{module.name}"), "app", None)
        if isinstance(task, typer.Typer):
            yield task


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    help="Ask vision foundation models from the shell: serve them with NVIDIA Triton, export them, use them.",
)
for task in _task_apps():
    app.add_typer(task)


def main() -> None:
    """Run the command line. An expected failure is one sentence and exit code 1; a signal N is 128 + N."""
    handle_stop_signals(_Stop())
    for stream in (sys.stdout, sys.stderr):
        # A character that the terminal's encoding lacks is replaced, and does not end the command.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        app()
    except (CommandError, VisiongateError, OSError, ValueError) as error:
        fail(str(error))
        sys.exit(1)


def load(added: EntryPoint) -> Any:
    """Return the command of an entry point. Raise CommandError with the cause if it cannot be imported."""
    try:
        loaded = added.load()
    except (ImportError, AttributeError) as error:
        raise CommandError(_why_not(added, error)) from error
    command: Any = typer.main.get_command(loaded)
    command = getattr(command, "commands", {}).get(added.name, command)
    command.name = added.name
    return command


@functools.cache
def _entry_points() -> Mapping[str, EntryPoint]:
    points = {point.name: point for point in importlib.metadata.entry_points(group=ENTRY_POINTS)}
    order = [name for name in SERVER_COMMANDS if name in points]
    return {name: points[name] for name in (*order, *sorted(points.keys() - set(order)))}


def _why_not(added: EntryPoint, error: Exception) -> str:
    """Say whether another package has the same name, or a dependency is missing."""
    package, *inner = added.module.split(".")
    spec = importlib.util.find_spec(package)
    # A module in place of the package has no search locations.
    locations = [] if spec is None else spec.submodule_search_locations or [spec.origin or ""]
    paths = [Path(location) for location in locations]
    if paths and not any(path.joinpath(*inner).with_suffix(".py").is_file() for path in paths):
        return (
            f"Python finds another package `{package}`, at {paths[0]}, before that of visiongate-server: "
            "rename it, or take its folder out of PYTHONPATH"
        )
    return f"visiongate-server is not complete ({error}): {INSTALL_SERVER}"


def _explanation(name: str, sentence: str) -> Any:
    """Return a command that says why it is missing, whatever its arguments are."""
    absent = typer.Typer(add_completion=False)

    @absent.command(
        name,
        help=sentence,
        add_help_option=False,
        context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
    )
    def explain() -> None:
        raise CommandError(sentence)

    return typer.main.get_command(absent)


class _Stop:
    """A handler of signals. The first one raises an exception, so that the command stops what it started.

    A second one would interrupt that, and does nothing. A third ends the process.
    """

    def __init__(self) -> None:
        self._count = 0

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self._count += 1
        if self._count == 1:
            raise SystemExit(128 + number)
        if self._count > 2:
            end_at_once(number, frame)
