"""`visiongate detect`."""

from typing import Annotated

import typer

from visiongate import Client, draw
from visiongate.commands.common import (
    BOX_COLUMN,
    AsJson,
    Photo,
    Save,
    asks_server,
    groups,
    numbers,
    report,
    save_picture,
)

app = typer.Typer()

BoxThreshold = Annotated[
    float | None, typer.Option(help="Least score of a detection, 0 to 1.", show_default="the model's")
]
NmsIou = Annotated[
    float | None,
    typer.Option(
        help="Drop the weaker of two boxes of a phrase that overlap more, 0 to 1; 1 drops none.",
        show_default="the model's",
    ),
]
MaxDetections = Annotated[
    int | None, typer.Option(help="Most detections; further ones are left out.", show_default="100")
]


@app.command()
@asks_server
def detect(
    client: Client,
    photo: Photo,
    phrases: Annotated[
        list[str] | None, typer.Argument(help="What to look for: truck wheel 'red sign'")
    ] = None,
    caption: Annotated[str, typer.Option(help="Free text instead of phrases.")] = "",
    box_threshold: BoxThreshold = None,
    nms_iou: NmsIou = None,
    max_detections: MaxDetections = None,
    model: Annotated[str, typer.Option(help="Model variant.", show_default="the repository's")] = "",
    as_json: AsJson = False,
    save: Save = None,
) -> None:
    """Find the objects that words name."""
    detections = client.detect(
        photo,
        phrases or (),
        caption=caption,
        box_threshold=box_threshold,
        nms_iou_threshold=nms_iou,
        max_detections=max_detections,
        model=model,
    )
    report(
        [detection.as_dict() for detection in detections],
        ("object", "score", BOX_COLUMN),
        [(item.phrase, f"{item.score:.3f}", numbers(item.box)) for item in detections],
        as_json,
    )
    colors = groups([detection.phrase for detection in detections])
    save_picture(
        photo,
        save,
        [
            draw.Item(group, f"{item.phrase} {item.score:.2f}", box=item.box)
            for group, item in zip(colors, detections, strict=True)
        ],
    )
