"""How commands print: sentences, tables, JSON, and a sign of life while a server works.

Phrases, texts, file names and a server's messages come from others, and may look like Rich's markup. They are
printed as they are. This module alone prints, so that no command can forget it.

The answer goes to standard output. All that is said about it goes to standard error.
"""

import json
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from numpy.typing import NDArray
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.measure import Measurement
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Column, Table
from rich.text import Text

from visiongate.json_values import finite


def _console(*, stderr: bool = False) -> Console:
    return Console(stderr=stderr, markup=False, highlight=False, emoji=False)


console = _console()
errors = _console(stderr=True)

AsJson = Annotated[
    bool,
    typer.Option(
        "--json",
        help="Print JSON for programs: one line, a list with an object for each result.",
    ),
]

BOX_COLUMN = "box (x_min, y_min, x_max, y_max)"
NOTHING_FOUND = "Nothing found. A lower --min-score finds more."

# A page that is wide enough for any table; Rich wants a number.
UNBOUNDED = 1_000_000
# Control characters could command the terminal. Surrogates, by which Python spells file names that are not
# UTF-8, cannot be written.
UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
# In a table a row is one line, whatever a file is called.
UNPRINTABLE_IN_CELLS = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


def say(sentence: str | Text, style: str = "") -> None:
    """Print a line of the answer."""
    console.print(printable(sentence, style), soft_wrap=True)


def note(sentence: str) -> None:
    """Say something about the answer, on standard error."""
    errors.print(printable(sentence), soft_wrap=True)


def fail(sentence: str) -> None:
    """Say why the command failed, on standard error."""
    errors.print(Text("error:", "bold red"), printable(sentence), soft_wrap=True)


def printable(text: str | Text, style: str = "", unprintable: re.Pattern[str] = UNPRINTABLE) -> Text:
    """Return a text as it is. Characters that would command the terminal become escapes."""
    if isinstance(text, Text):
        return text
    return Text(unprintable.sub(lambda match: ascii(match[0])[1:-1], text), style)


def _cell(text: str | Text) -> Text:
    return printable(text, unprintable=UNPRINTABLE_IN_CELLS)


def table(columns: Sequence[str], rows: Iterable[Sequence[str | Text]]) -> None:
    """Print a table. A terminal folds long cells; a file or a pipe gets each row on one line."""
    grid = Table(*(Column(name, overflow="fold") for name in columns))
    for row in rows:
        grid.add_row(*map(_cell, row))
    if not console.is_terminal:
        grid.width = Measurement.get(console, console.options.update(width=UNBOUNDED), grid).maximum
    console.print(grid, crop=False)


@contextmanager
def live_page() -> Iterator[Callable[[str, Iterable[tuple[Sequence[str], Iterable[Sequence[str]]]]], None]]:
    """Lend what shows a title and tables, of columns and rows, on the whole screen in place of the last."""
    with Live(console=console, screen=True, auto_refresh=False) as live:

        def show(title: str, tables: Iterable[tuple[Sequence[str], Iterable[Sequence[str]]]]) -> None:
            parts: list[RenderableType] = [printable(title)]
            for columns, rows in tables:
                grid = Table(*columns, box=None, pad_edge=False)
                for row in rows:
                    grid.add_row(*map(_cell, row))
                parts += ["", grid]
            live.update(Group(*parts), refresh=True)

        yield show


def box_cell(box: NDArray[Any]) -> str:
    """Return a box in whole pixels, for a table."""
    return ", ".join(f"{value:.0f}" for value in box)


def report(
    entries: Sequence[dict[str, Any]],
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    as_json: bool,
    nothing: str,
) -> None:
    """Print the answer: entries as JSON for programs, or rows for people; `nothing` if it is empty.

    The entries hold all that the rows show. Those of items with an error have no row.
    """
    if as_json:
        print_json(entries)
    elif not entries:
        note(nothing)
    elif rows:
        table(columns, rows)


def print_json(entries: Sequence[dict[str, Any]]) -> None:
    """Print a list of objects on one line. NaN and infinity, which JSON does not know, become null."""
    entries = finite(entries)
    text = json.dumps(entries, ensure_ascii=False, allow_nan=False)
    try:
        # Of a standard output that is closed Python makes None.
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        text = json.dumps(entries, allow_nan=False)
    print(text)


@contextmanager
def waiting(what: str) -> Iterator[None]:
    """Show on a terminal what the command waits for, and since when. Nothing may be printed meanwhile."""
    if not errors.is_interactive:
        yield
        return
    columns = SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn()
    with Progress(*columns, console=errors, transient=True) as progress:
        progress.add_task(what, total=None)
        yield


# Of a log that nobody watches.
LINE_EVERY_S = 10.0


@contextmanager
def progress_line() -> Iterator[Callable[[str, int, int | None], None]]:
    """Lend what says how far long work is: a sentence, how much is done, and how much there is, if known.

    A terminal shows a bar, with the sentence beside it. Elsewhere there is a line some times a minute. All
    this goes to standard error. Nothing else may be printed meanwhile.
    """
    if not errors.is_interactive:
        due = time.monotonic() + LINE_EVERY_S

        def print_line(sentence: str, done: int, total: int | None) -> None:
            nonlocal due
            if time.monotonic() >= due:
                due = time.monotonic() + LINE_EVERY_S
                note(sentence)

        yield print_line
        return
    columns = BarColumn(), TextColumn("{task.description}", markup=False)
    with Progress(*columns, console=errors, transient=True) as progress:
        bar = progress.add_task("", total=None)
        yield lambda sentence, done, total: progress.update(
            bar, description=printable(sentence).plain, completed=done, total=total
        )


@contextmanager
def progress_log() -> Iterator[Callable[[dict[str, Any]], None]]:
    """Lend what prints an object as a line of JSON on standard error, some times a minute, for programs."""
    due = time.monotonic() + LINE_EVERY_S

    def print_entry(entry: dict[str, Any]) -> None:
        nonlocal due
        if time.monotonic() >= due:
            due = time.monotonic() + LINE_EVERY_S
            print(json.dumps(finite(entry), allow_nan=False), file=sys.stderr, flush=True)

    yield print_entry
