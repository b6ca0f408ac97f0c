"""What the commands about a folder of photos share: its index, and the page that shows their answer."""

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from visiongate import Client
from visiongate.batch.extra import needs
from visiongate.commands.common import fail, note, waiting
from visiongate.commands.jobs import Work, input_arguments, patient_options
from visiongate.commands.options import client_arguments
from visiongate.commands.photos import check_output, writing
from visiongate.commands.signature import with_options

if TYPE_CHECKING:
    from visiongate.batch.item import Source
    from visiongate.batch.job import Summary
    from visiongate.folders.index import Index
    from visiongate.folders.page import Section

FOLDER_HELP = "A folder of photos, with the folders in it, or any other input of `visiongate batch`."
FolderArgument = Annotated[
    str,
    typer.Argument(metavar="FOLDER", help=FOLDER_HELP),
]
IndexFolder = Annotated[
    str,
    typer.Option(
        "--index",
        help="Keep the embeddings here, in a folder or at an address such as s3://bucket/folder. A photo "
        "takes 2 to 3 kB there and in memory, if the model's embeddings have 512 numbers.",
        metavar="DIR",
        show_default="in ~/.cache/visiongate/index",
    ),
]
Html = Annotated[
    Path | None,
    typer.Option(help="Write a page of thumbnails here: one file, to look at in a browser.", metavar="FILE"),
]

NO_PHOTOS = "There is no photo that can be used."

# More would hide the answer.
_NAMED_FAILURES = 20


@dataclass(frozen=True)
class Photos:
    """How the photos of a command are read, and which server is asked about them. See `about_photos`."""

    source_options: Mapping[str, Any]
    client_options: Mapping[str, Any]

    def client(self) -> Client:
        """Return a client of the server."""
        return Client(**self.client_options)

    def source(self, folder: str) -> "Source":
        """Return what a user named. Raise CommandError, OSError or ValueError if it cannot be read."""
        with needs("folders"):
            from visiongate.batch.inputs import open_source  # noqa: PLC0415
        return open_source([folder], **self.source_options)

    def work(self, *, overwrite: bool = False) -> "Work":
        """Return work for the server. What failed before is asked about anew.

        However many photos fail, the work goes on: the command says which.
        """
        settings = {"retry_failed": True, "max_failure_rate": 1, "overwrite": overwrite}
        server = {**self.client_options, "address": [self.client_options["address"]]}
        return Work({}, settings, server, json_log=False)

    def index(self, client: Client, folder: str, index: str, model: str) -> "Index":
        """Return the index of what a user named, brought up to date."""
        with needs("folders"):
            from visiongate.folders.index import open_index  # noqa: PLC0415
        work = self.work()

        def do(task: Any, source: Any, out: str, clients: Any, **settings: Any) -> "Summary":
            asked = replace(work, settings={**work.settings, **settings})
            return asked.run(task, source, out, clients)

        return open_index(self.source(folder), client, folder=index, model=model, on_note=note, do=do)


def about_photos(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of inputs and of a server, and a `Photos` as its first argument."""
    inputs = inspect.signature(input_arguments).parameters
    server = patient_options()

    @with_options(command, [*inputs.values(), *server.values()])
    def run(**values: Any) -> None:
        read = input_arguments(**{name: values.pop(name) for name in inputs})
        asked = client_arguments(**{name: values.pop(name) for name in server})
        command(Photos(read, asked), **values)

    return run


def check_html(path: Path | None) -> None:
    """Make the folder of a page. Raise CommandError if it cannot be written, or a package is missing."""
    if path is not None:
        with needs("folders"):
            import jinja2  # noqa: F401, PLC0415
        check_output("--html", path, [])


def write_html(path: Path | None, title: str, sections: Sequence["Section"], note_below: str = "") -> None:
    """Write the page of an answer, if there is to be one."""
    if path is None:
        return
    from visiongate.folders.page import write_page  # noqa: PLC0415

    with waiting("writing the page"), writing("--html", path):
        write_page(path, title, sections, note=note_below)
    note(f"wrote {path}")


def picture(readers: Mapping[int, Callable[[], bytes]], row: int) -> bytes | Callable[[], bytes]:
    """Return what a tile shows of a row: nothing if the photo is gone meanwhile."""
    return readers.get(row, b"")


def end_with_failed(failed: Sequence[tuple[str, str]]) -> None:
    """Say which photos have no answer, and end with exit code 1. Without any this does nothing."""
    for name, message in failed[:_NAMED_FAILURES]:
        fail(f"{name}: {message}")
    if len(failed) > _NAMED_FAILURES:
        fail(f"{len(failed) - _NAMED_FAILURES:,} more photos could not be used, either")
    if failed:
        raise typer.Exit(1)


def some_names(names: Iterable[str], limit: int) -> str:
    """Return the first names for a cell of a table, and whether there are more."""
    names = list(names)
    return ", ".join(names[:limit]) + (", …" if len(names) > limit else "")
