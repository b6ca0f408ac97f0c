"""`visiongate duplicates`."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from visiongate.batch.wording import counted
from visiongate.commands.common import AsJson, note, report, waiting
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
    write_html,
)
from visiongate.commands.options import Model

if TYPE_CHECKING:
    from visiongate.folders.duplicates import Copy
    from visiongate.folders.index import Index

# What was only compressed anew, or made half as large, is at least as similar; other photos of the same thing
# seldom are. How similar depends on the model.
THRESHOLD = 0.97

app = typer.Typer(rich_markup_mode="markdown")


@app.command()
@about_photos
def duplicates(
    photos: Photos,
    folder: FolderArgument,
    threshold: Annotated[
        float,
        typer.Option(
            help="Least similarity of photos that are nearly the same: a cosine, 0 to 1. Copies have 1, and "
            "what is the right one for others depends on the model.",
            min=0,
            max=1,
        ),
    ] = THRESHOLD,
    model: Model = "",
    index: IndexFolder = "",
    html: Html = None,
    as_json: AsJson = False,
) -> None:
    """Find the photos of a folder that are the same, or nearly, and say which of each group to keep.

    The one to keep is the one of most pixels. All others of its group are as similar to it as --threshold
    says. Nothing is deleted. The exit code is 1 if a photo cannot be used.

    For example:

    ```
    visiongate duplicates photos --html duplicates.html
    visiongate duplicates photos --threshold 0.98 --json
    ```
    """
    check_html(html)
    with photos.client() as client:
        found = photos.index(client, folder, index, model)
    from visiongate.folders.duplicates import duplicates as find  # noqa: PLC0415

    with waiting("comparing the photos"):
        groups = find(found, threshold)
    nothing = f"No duplicates among {counted(len(found.ids), 'photo')}. A lower --threshold finds more."
    if not found.ids:
        nothing = NO_PHOTOS
    report(
        [{"photos": [_entry(found, copy, is_first=copy is group[0]) for copy in group]} for group in groups],
        ("group", "photo", "size", "similarity"),
        [
            (str(number), found.ids[copy.row], _size(found, copy.row), _how_similar(copy, copy is group[0]))
            for number, group in enumerate(groups, 1)
            for copy in group
        ],
        as_json,
        nothing,
    )
    spare = sum(len(group) - 1 for group in groups)
    summary = (
        f"{counted(len(groups), 'group')} among {counted(len(found.ids), 'photo')}: with one of each kept, "
        f"{counted(spare, 'photo')} could go."
    )
    if groups:
        note(summary)
    _write_page(html, folder, found, groups, summary if groups else nothing)
    end_with_failed(found.failed)


def _write_page(
    path: Path | None, folder: str, found: "Index", groups: list[list["Copy"]], summary: str
) -> None:
    if path is None:
        return
    from visiongate.folders.page import Section, Tile  # noqa: PLC0415

    readers = found.readers(copy.row for group in groups for copy in group)
    sections = [
        Section(
            f"Group {number}",
            counted(len(group), "photo"),
            [
                Tile(
                    picture(readers, copy.row),
                    found.ids[copy.row],
                    badge=_how_similar(copy, copy is group[0]),
                    detail=_size(found, copy.row),
                )
                for copy in group
            ],
        )
        for number, group in enumerate(groups, 1)
    ]
    write_html(path, f"Duplicates: {folder}", sections, summary)


def _entry(found: "Index", copy: "Copy", is_first: bool) -> dict[str, Any]:
    width, height = found.sizes[copy.row]
    return {
        "photo": found.ids[copy.row],
        "keep": is_first,
        "exact": copy.is_exact,
        "similarity": round(copy.similarity, 6),
        "width": width,
        "height": height,
        "sha256": found.hashes[copy.row],
    }


def _size(found: "Index", row: int) -> str:
    width, height = found.sizes[row]
    return f"{width} × {height}"


def _how_similar(copy: "Copy", is_first: bool) -> str:
    if is_first or copy.is_exact:
        return "keep" if is_first else "same file"
    # Rounded down: 1 would say that they are equal.
    return f"{math.floor(copy.similarity * 1000) / 1000:.3f}"
