"""The `visiongate` command. It asks servers; visiongate-server adds the commands that serve and export."""

import functools
import importlib.metadata
import importlib.util
import io
import sys
from collections.abc import Mapping
from importlib.metadata import EntryPoint
from pathlib import Path
from types import FrameType
from typing import Any

import typer
from typer.core import TyperGroup

from visiongate.command_error import CommandError
from visiongate.commands import detection, embedding, gaze, models, segmentation, text
from visiongate.commands.common import fail
from visiongate.errors import VisiongateError
from visiongate_command import end_at_once, handle_stop_signals

ENTRY_POINTS = "visiongate.commands"
"""The group of entry points that add commands: `name = module:app`, an app of typer's with that command."""

SERVER_COMMANDS = ("up", "serve", "triton", "export", "demo", "settings", "keys")
"""Commands of visiongate-server, so that their absence can be explained."""

INSTALL_SERVER = (
    "install visiongate-server beside the client: `pip install ./proto .` in a clone of visiongate, or the "
    "two wheels that `make wheels` makes there"
)


class Commands(TyperGroup):
    """The client's own commands and those of entry points, which are imported when they are asked for."""

    def list_commands(self, ctx: Any) -> list[str]:
        return [*super().list_commands(ctx), *_entry_points()]

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


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    help="Ask vision foundation models from the shell: serve them with NVIDIA Triton, export them, use them.",
)
for task in (models, detection, segmentation, embedding, gaze, text):
    app.add_typer(task.app)


def main() -> None:
    """Run the command line. An expected failure is one sentence and exit code 1; a signal N is 128 + N."""
    handle_stop_signals(_Stop())
    for stream in (sys.stdout, sys.stderr):
        # A terminal without a character shows another, and the command goes on.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        app()
    except (CommandError, VisiongateError, OSError, ValueError) as error:
        fail(str(error))
        sys.exit(1)


def load(added: EntryPoint) -> Any:
    """Return the command of an entry point. Raise CommandError, naming the culprit, if it is absent."""
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
    found = {added.name: added for added in importlib.metadata.entry_points(group=ENTRY_POINTS)}
    order = [name for name in SERVER_COMMANDS if name in found]
    return {name: found[name] for name in (*order, *sorted(found.keys() - set(order)))}


def _why_not(added: EntryPoint, error: Exception) -> str:
    """Tell a package of the same name from a missing dependency."""
    package, *inner = added.module.split(".")
    spec = importlib.util.find_spec(package)
    # A module in place of the package has no search locations.
    found = [] if spec is None else spec.submodule_search_locations or [spec.origin or ""]
    places = [Path(place) for place in found]
    if places and not any(place.joinpath(*inner).with_suffix(".py").is_file() for place in places):
        return (
            f"Python finds another package `{package}`, at {places[0]}, before that of visiongate-server: "
            "rename it, or take its folder out of PYTHONPATH"
        )
    return f"visiongate-server is not whole ({error}): {INSTALL_SERVER}"


def _explanation(name: str, sentence: str) -> Any:
    """A command that says why it is not there, however it is called."""
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
    """Handles signals: the first is an exception, so that what was started is stopped on the way out.

    A second one would interrupt just that, and does nothing. A third ends the process.
    """

    def __init__(self) -> None:
        self._count = 0

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self._count += 1
        if self._count == 1:
            raise SystemExit(128 + number)
        if self._count > 2:
            end_at_once(number, frame)
