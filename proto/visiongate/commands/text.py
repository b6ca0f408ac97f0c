"""`visiongate ocr`."""

from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated

import typer

from visiongate import Client, Page
from visiongate.command_error import CommandError
from visiongate.commands.common import AsJson, note, print_json, say
from visiongate.commands.items import end_with_errors, item_entries
from visiongate.commands.options import MODEL_OWN, Model, asks_server
from visiongate.commands.photos import PHOTO_HELP, Photo, Picture, Save
from visiongate.drawn_answers import word_items

app = typer.Typer(rich_markup_mode="markdown")


class ReadingOrder(StrEnum):
    """In which order a page's lines are read."""

    rows = "rows"
    columns = "columns"


@app.command()
@asks_server
def ocr(
    client: Client,
    photos: Annotated[
        list[Photo], typer.Argument(parser=Photo.named, metavar="PHOTOS", help=f"{PHOTO_HELP} Any number.")
    ],
    rotated_words: Annotated[bool, typer.Option("--rotated-words", help="Find words at any angle.")] = False,
    detect_orientation: Annotated[
        bool,
        typer.Option(
            "--detect-orientation",
            help="Read pages that lie on their side or upside down, too; takes four times as long.",
        ),
    ] = False,
    group_lines: Annotated[
        bool, typer.Option(help="Group words into lines, or leave all words of a page on one.")
    ] = True,
    group_blocks: Annotated[bool, typer.Option("--group-blocks", help="Group lines into blocks.")] = False,
    reading_order: Annotated[
        ReadingOrder | None,
        typer.Option(
            help="rows: from the top to the bottom of the page. columns: each column to its end.",
            show_default=MODEL_OWN,
        ),
    ] = None,
    min_pixel_score: Annotated[
        float | None,
        typer.Option(help="Least probability of a word's pixel, 0 to 1.", show_default=MODEL_OWN),
    ] = None,
    min_word_score: Annotated[
        float | None,
        typer.Option(help="Least mean probability of a word's pixels, 0 to 1.", show_default=MODEL_OWN),
    ] = None,
    min_confidence: Annotated[
        float | None,
        typer.Option(help="Least confidence of a word or a line, 0 to 1.", show_default=MODEL_OWN),
    ] = None,
    model: Model = "",
    as_json: AsJson = False,
    save: Save = None,
) -> None:
    """Read the text of photos and scans. With --json each word comes with its place.

    For example:

    ```
    visiongate ocr receipt.jpg --save out.png
    visiongate ocr page-1.png page-2.png --group-blocks > text.txt
    visiongate ocr newspaper.jpg --reading-order columns
    ```
    """
    if save is not None and len(photos) > 1:
        raise CommandError(f"--save draws on one photo, and here are {len(photos)}: give one")
    picture = Picture(photos[0], save)
    pages = client.recognize_text(
        [photo.image for photo in photos],
        rotated_words=rotated_words,
        min_pixel_score=min_pixel_score,
        min_word_score=min_word_score,
        min_confidence=min_confidence,
        group_lines=group_lines,
        group_blocks=group_blocks,
        reading_order=reading_order.value if reading_order else None,
        detect_orientation=detect_orientation,
        model=model,
        strict=False,
    )
    items = [("photo", photo.name) for photo in photos]
    if as_json:
        print_json(item_entries(items, (page.as_dict() for page in pages), pages.errors))
    else:
        _print(
            [
                (photo.name, page)
                for index, (photo, page) in enumerate(zip(photos, pages, strict=True))
                if index not in pages.errors
            ],
            has_headings=len(photos) > 1,
        )
    end_with_errors(items, pages.errors)
    picture.draw(word_items(pages[0]))


def _print(named_pages: Sequence[tuple[str, Page]], *, has_headings: bool) -> None:
    """Print the text alone. If there are several photos, their names are headings."""
    for name, page in named_pages:
        if has_headings:
            say(f"{name}:", style="bold")
        if page.blocks:
            say(page.text)
        else:
            note(f"No text found in {name}. A lower --min-pixel-score finds more.")
