"""`visiongate ocr`."""

import json
import unicodedata
from pathlib import Path
from typing import Annotated

import typer

from visiongate import Client, Page, draw
from visiongate.commands.common import AsJson, Save, asks_server, console, save_picture

app = typer.Typer()


@app.command()
@asks_server
def ocr(
    client: Client,
    photos: Annotated[list[Path], typer.Argument(help="The image files.", exists=True, dir_okay=False)],
    rotated: Annotated[bool, typer.Option("--rotated", help="Find words at any angle.")] = False,
    find_orientation: Annotated[
        bool,
        typer.Option("--find-orientation", help="Read pages that lie on their side or upside down, too."),
    ] = False,
    blocks: Annotated[bool, typer.Option("--blocks", help="Group lines into blocks.")] = False,
    bin_threshold: Annotated[
        float | None,
        typer.Option(help="Least probability of a text pixel, 0 to 1.", show_default="the model's"),
    ] = None,
    box_threshold: Annotated[
        float | None,
        typer.Option(help="Least mean probability of a word, 0 to 1.", show_default="the model's"),
    ] = None,
    model: Annotated[str, typer.Option(help="Model variant.", show_default="the repository's")] = "",
    as_json: AsJson = False,
    save: Save = None,
) -> None:
    """Read the text of photos and scans.

    For example:

    visiongate ocr receipt.jpg --save out.png

    visiongate ocr page-1.png page-2.png --blocks > text.txt
    """
    if save is not None and len(photos) > 1:
        raise ValueError("--save draws on one photo: give one")
    pages = client.recognize_text(
        photos,
        rotated=rotated,
        blocks=blocks,
        find_orientation=find_orientation,
        bin_threshold=bin_threshold,
        box_threshold=box_threshold,
        model=model,
    )
    if as_json:
        entries = [{"photo": str(photo)} | page.as_dict() for photo, page in zip(photos, pages, strict=True)]
        print(json.dumps(entries, ensure_ascii=False))
    else:
        _print(photos, pages)
    save_picture(photos[0], save, _items(pages[0]))


def _print(photos: list[Path], pages: list[Page]) -> None:
    for photo, page in zip(photos, pages, strict=True):
        if len(photos) > 1:
            console.print(f"{photo}:", style="bold", markup=False, highlight=False, soft_wrap=True)
        if page.blocks:
            # Plain: what was read may look like markup.
            print(page.text)
        else:
            console.print("No text found. A lower --bin-threshold finds more.")


def _items(page: Page) -> list[draw.Item]:
    """A colour for each line, so that its words show as one."""
    lines = [line for block in page.blocks for line in block]
    return [
        draw.Item(index, _plain(word.text), polygon=word.quadrilateral)
        for index, line in enumerate(lines)
        for word in line
    ]


def _plain(text: str) -> str:
    """Without accents: Pillow's own font has boxes for most letters that carry one."""
    return "".join(char for char in unicodedata.normalize("NFKD", text) if not unicodedata.combining(char))
