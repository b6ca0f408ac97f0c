"""`visiongate ocr`."""

from collections.abc import Iterator, Sequence
from typing import Annotated

import typer

from visiongate import Client, Page, draw
from visiongate.command_error import CommandError
from visiongate.commands.common import AsJson, note, print_json, say
from visiongate.commands.options import MODEL_OWN, Model, asks_server
from visiongate.commands.photos import PHOTO_HELP, Photo, Picture, Save

app = typer.Typer(rich_markup_mode="markdown")


@app.command()
@asks_server
def ocr(
    client: Client,
    photos: Annotated[
        list[Photo], typer.Argument(parser=Photo.named, metavar="PHOTOS", help=f"{PHOTO_HELP} Any number.")
    ],
    rotated: Annotated[bool, typer.Option("--rotated", help="Find words at any angle.")] = False,
    find_orientation: Annotated[
        bool,
        typer.Option(
            "--find-orientation",
            help="Read pages that lie on their side or upside down, too; takes four times as long.",
        ),
    ] = False,
    lines: Annotated[
        bool,
        typer.Option("--lines/--no-lines", help="Group words into lines, or leave a page's words on one."),
    ] = True,
    blocks: Annotated[bool, typer.Option("--blocks", help="Group lines into blocks.")] = False,
    bin_threshold: Annotated[
        float | None,
        typer.Option(help="Least probability of a text pixel, 0 to 1.", show_default=MODEL_OWN),
    ] = None,
    box_threshold: Annotated[
        float | None,
        typer.Option(help="Least mean probability of a word, 0 to 1.", show_default=MODEL_OWN),
    ] = None,
    model: Model = "",
    as_json: AsJson = False,
    save: Save = None,
) -> None:
    """Read the text of photos and scans. With --json each word comes with its place.

    For example:

    ```
    visiongate ocr receipt.jpg --save out.png
    visiongate ocr page-1.png page-2.png --blocks > text.txt
    ```
    """
    if save is not None and len(photos) > 1:
        raise CommandError(f"--save draws on one photo, and here are {len(photos)}: give one")
    picture = Picture(photos[0], save)
    pages = client.recognize_text(
        [photo.image for photo in photos],
        rotated=rotated,
        lines=lines,
        blocks=blocks,
        find_orientation=find_orientation,
        bin_threshold=bin_threshold,
        box_threshold=box_threshold,
        model=model,
    )
    if as_json:
        print_json(
            [{"photo": photo.name} | page.as_dict() for photo, page in zip(photos, pages, strict=True)]
        )
    else:
        _print(photos, pages)
    picture.draw(_items(pages[0]))


def _print(photos: Sequence[Photo], pages: Sequence[Page]) -> None:
    """Print the text alone, below the name of each photo where there are several."""
    for photo, page in zip(photos, pages, strict=True):
        if len(photos) > 1:
            say(f"{photo.name}:", style="bold")
        if page.blocks:
            say(page.text)
        else:
            note(f"No text found in {photo.name}. A lower --bin-threshold finds more.")


def _items(page: Page) -> Iterator[draw.Item]:
    """Yield the words, in a colour for each line."""
    lines = [line for block in page.blocks for line in block]
    for index, line in enumerate(lines):
        for word in line:
            yield draw.Item(index, word.text, polygon=word.quadrilateral)
