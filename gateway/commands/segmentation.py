"""`visiongate segment`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from gateway.commands.common import (
    BOX_COLUMN,
    AsJson,
    Photo,
    Save,
    Server,
    Timeout,
    groups,
    numbers,
    report,
    save_picture,
)
from gateway.commands.detection import BoxThreshold, MaxDetections, NmsIou
from visiongate import Client, Mask, SegmentedObject, draw

app = typer.Typer()

MASK_COLUMNS = ("object", "score", "predicted IoU", "pixels", BOX_COLUMN)


@app.command()
def segment(
    photo: Photo,
    phrase: Annotated[
        list[str] | None, typer.Option(help="Cut out what this names; repeat for more.")
    ] = None,
    box: Annotated[
        list[str] | None,
        typer.Option(help="Cut out what fills this box: x_min,y_min,x_max,y_max; repeat for more."),
    ] = None,
    point: Annotated[
        list[str] | None,
        typer.Option(
            help="Cut out what lies here: x,y, and more points of the object after spaces; repeat for more."
        ),
    ] = None,
    multimask: Annotated[bool, typer.Option(help="Three masks a box or point, best first.")] = False,
    box_threshold: BoxThreshold = None,
    nms_iou: NmsIou = None,
    max_detections: MaxDetections = None,
    server: Server = "127.0.0.1:50051",
    timeout: Timeout = 120,
    as_json: AsJson = False,
    save: Save = None,
) -> None:
    """Cut objects out: those that words name, or what boxes or points point at.

    For example:

    visiongate segment truck.jpg --phrase truck --phrase wheel --save out.png

    visiongate segment truck.jpg --box 75,275,1725,850

    visiongate segment truck.jpg --point "500,375 1125,625"
    """
    if sum(map(bool, (phrase, box, point))) != 1:
        raise ValueError("give one of --phrase, --box and --point (any number of times)")
    with Client(server, timeout=timeout) as client:
        if phrase:
            objects = client.segment_phrases(
                photo,
                phrase,
                box_threshold=box_threshold,
                nms_iou_threshold=nms_iou,
                max_detections=max_detections,
            )
            report_objects(photo, objects, as_json, save)
            return
        boxes = np.array([_coordinates(text, 4) for text in box]) if box else None
        points = [np.array([_coordinates(pair, 2) for pair in text.split()]) for text in point or ()]
        regions = client.segment(photo, boxes=boxes, points=points or None, multimask=multimask)
    report(
        [{"masks": [mask.as_dict() for mask in region]} for region in regions],
        MASK_COLUMNS,
        [_mask_row(f"prompt {index}", "", mask) for index, region in enumerate(regions) for mask in region],
        as_json,
    )
    save_picture(
        photo,
        save,
        [
            draw.Item(
                index,
                f"{index}: IoU {region[0].predicted_iou:.2f}",
                boxes[index] if boxes is not None else None,
                region[0].pixels,
                points[index] if points else None,
            )
            for index, region in enumerate(regions)
        ],
    )


def report_objects(photo: Path, objects: Sequence[SegmentedObject], as_json: bool, save: Path | None) -> None:
    """Prints, and draws where `save` says, what words named."""
    report(
        [item.as_dict() for item in objects],
        MASK_COLUMNS,
        [_mask_row(item.detection.phrase, f"{item.detection.score:.3f}", item.mask) for item in objects],
        as_json,
    )
    colors = groups([item.detection.phrase for item in objects])
    save_picture(
        photo,
        save,
        [
            draw.Item(
                group,
                f"{item.detection.phrase} {item.detection.score:.2f}",
                item.detection.box,
                item.mask.pixels,
            )
            for group, item in zip(colors, objects, strict=True)
        ],
    )


def _mask_row(name: str, score: str, mask: Mask) -> tuple[str, ...]:
    return name, score, f"{mask.predicted_iou:.3f}", str(mask.area), numbers(mask.box)


def _coordinates(text: str, count: int) -> list[float]:
    try:
        values = [float(value) for value in text.split(",")]
    except ValueError:
        values = []
    if len(values) != count:
        raise ValueError(f"{text!r} is not {count} numbers with commas between them, such as 10,20")
    return values
