"""`visiongate cluster`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from visiongate.batch.extra import needs
from visiongate.batch.wording import counted
from visiongate.command_error import CommandError
from visiongate.commands.common import AsJson, report, waiting
from visiongate.commands.folder import (
    NO_PHOTOS,
    FolderArgument,
    Html,
    IndexFolder,
    Photos,
    about_photos,
    check_html,
    end_with_failed,
    picture,
    some_names,
    write_html,
)
from visiongate.commands.options import Model, Truncate
from visiongate.commands.photos import refuse_photos

if TYPE_CHECKING:
    from visiongate.folders.clusters import Clusters
    from visiongate.folders.index import Index

app = typer.Typer(rich_markup_mode="markdown")

OUTLIERS = "outliers"
MIN_SIZE = 3
_SHOWN_NAMES = 3


@app.command()
@about_photos
def cluster(
    photos: Photos,
    folder: FolderArgument,
    clusters: Annotated[
        int | None,
        typer.Option(
            help="Share all photos out to so many groups.",
            min=1,
            show_default="as many as there are, without the photos that are in none",
        ),
    ] = None,
    min_size: Annotated[
        int | None,
        typer.Option(
            help="Without --clusters: how many photos are a group at least.",
            min=2,
            show_default=str(MIN_SIZE),
        ),
    ] = None,
    words: Annotated[
        list[str] | None,
        typer.Option(
            "--words",
            help="A name that a group may get, such as cat: it gets the one that fits best. Repeat for more.",
            metavar="WORDS",
        ),
    ] = None,
    template: Annotated[
        str, typer.Option(help="What the model is asked about a name, which takes the place of {}.")
    ] = "a photo of a {}.",
    truncate: Truncate = False,
    model: Model = "",
    index: IndexFolder = "",
    html: Html = None,
    as_json: AsJson = False,
) -> None:
    """Sort the photos of a folder into groups that show alike, the largest first, and say what is in none.

    Of each group the photo nearest to its centre comes first. The exit code is 1 if a photo cannot be used.

    For example:

    ```
    visiongate cluster photos --html groups.html
    visiongate cluster photos --clusters 8 --words cat --words dog --words "a red car"
    ```
    """
    words = words or []
    refuse_photos(words, "name", "the folder goes without --words")
    if "{}" not in template:
        raise CommandError(f"--template {template!r} has no {{}}, which a name takes the place of")
    if clusters is not None and min_size is not None:
        raise CommandError("--min-size goes without --clusters, which shares all photos out")
    check_html(html)
    with needs("folders"):
        from visiongate.folders.clusters import by_density, by_number  # noqa: PLC0415
    with photos.client() as client:
        found = photos.index(client, folder, index, model)
        with waiting("sorting the photos"):
            if clusters is None:
                groups = by_density(found.vectors, min_size or MIN_SIZE)
            else:
                groups = by_number(found.vectors, clusters)
        with waiting("waiting for the server's answer"):
            texts = [template.replace("{}", word) for word in words]
            vectors = client.embed_texts(texts, truncate=truncate, model=model) if words else None
    names = []
    for group in groups.groups:
        names.append("" if vectors is None else words[int((vectors @ group.centre).argmax())])
    report(
        _entries(found, groups, names),
        ("group", *(("name",) if words else ()), "photos", "such as"),
        _rows(found, groups, names, is_named=bool(words)),
        as_json,
        f"There are no groups among {counted(len(found.ids), 'photo')}." if found.ids else NO_PHOTOS,
    )
    _write_page(html, folder, found, groups, names)
    end_with_failed(found.failed)


def _entries(found: "Index", groups: "Clusters", names: list[str]) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = [
        {
            "group": number,
            "name": name or None,
            "photos": [
                {"photo": found.ids[row], "similarity": round(float(score), 6)}
                for row, score in zip(group.members, group.scores, strict=True)
            ],
        }
        for number, (group, name) in enumerate(zip(groups.groups, names, strict=True), 1)
    ]
    if len(groups.outliers):
        photos = [{"photo": found.ids[row]} for row in groups.outliers]
        entries.append({"group": None, "name": OUTLIERS, "photos": photos})
    return entries


def _rows(found: "Index", groups: "Clusters", names: list[str], is_named: bool) -> list[tuple[str, ...]]:
    members = [group.members for group in groups.groups]
    rows = [
        (
            str(number),
            *((name,) if is_named else ()),
            f"{len(rows):,}",
            some_names((found.ids[row] for row in rows), _SHOWN_NAMES),
        )
        for number, (rows, name) in enumerate(zip(members, names, strict=True), 1)
    ]
    if len(groups.outliers):
        some = some_names((found.ids[row] for row in groups.outliers), _SHOWN_NAMES)
        rows.append((OUTLIERS, *(("",) if is_named else ()), f"{len(groups.outliers):,}", some))
    return rows


def _write_page(path: Path | None, folder: str, found: "Index", groups: "Clusters", names: list[str]) -> None:
    if path is None:
        return
    from visiongate.folders.page import MAX_TILES, Section, Tile  # noqa: PLC0415

    members = [*(group.members for group in groups.groups), groups.outliers]
    readers = found.readers(row for rows in members for row in rows[:MAX_TILES].tolist())
    sections = [
        Section(
            f"Group {number}{f': {name}' if name else ''}",
            f"{counted(len(group.members), 'photo')}, the nearest to the centre first.",
            [
                Tile(picture(readers, row), found.ids[row], badge=f"{score:.3f}")
                for row, score in zip(group.members.tolist(), group.scores, strict=True)
            ],
        )
        for number, (group, name) in enumerate(zip(groups.groups, names, strict=True), 1)
    ]
    if len(groups.outliers):
        tiles = [Tile(picture(readers, row), found.ids[row]) for row in groups.outliers.tolist()]
        sections.append(Section("Outliers", f"{counted(len(tiles), 'photo')} in no group.", tiles))
    write_html(path, f"Groups: {folder}", sections)
