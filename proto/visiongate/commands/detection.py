"""`visiongate detect`."""

from typing import Annotated

import typer

from visiongate import Client
from visiongate.commands.common import BOX_COLUMN, NOTHING_FOUND, AsJson, box_cell, report
from visiongate.commands.options import (
    Caption,
    MaxDetections,
    MinScore,
    MinTokenScore,
    Model,
    NmsIou,
    asks_server,
    note_limit,
)
from visiongate.commands.photos import PhotoArgument, Picture, Save, one_at_a_time, refuse_photos

app = typer.Typer(rich_markup_mode="markdown")


@app.command()
@asks_server
def detect(
    client: Client,
    photo: PhotoArgument,
    phrases: Annotated[
        list[str] | None,
        typer.Argument(
            help="What to look for: a phrase for each kind of thing, in quotes if it has spaces.",
            metavar="PHRASES",
        ),
    ] = None,
    caption: Caption = "",
    min_score: MinScore = None,
    min_token_score: MinTokenScore = None,
    nms_iou: NmsIou = None,
    max_detections: MaxDetections = None,
    model: Model = "",
    as_json: AsJson = False,
    save: Save = None,
) -> None:
    """Find the objects that words name.

    For example:

    ```
    visiongate detect truck.jpg truck wheel "red sign" --save out.png
    visiongate detect truck.jpg --caption "a truck on a road" --json
    ```
    """
    phrases = phrases or []
    refuse_photos(phrases, "phrase", one_at_a_time('visiongate detect "$photo" truck wheel'))
    picture = Picture(photo, save)
    detections = client.detect(
        photo.image,
        phrases,
        caption=caption,
        min_score=min_score,
        min_token_score=min_token_score,
        nms_iou_threshold=nms_iou,
        max_detections=max_detections,
        model=model,
    )
    report(
        detections.as_dicts(),
        ("object", "score", BOX_COLUMN),
        [(item.phrase, f"{item.score:.3f}", box_cell(item.box)) for item in detections],
        as_json,
        NOTHING_FOUND,
    )
    note_limit(detections, max_detections, "--max-detections")
    picture.draw(detections.drawn())
