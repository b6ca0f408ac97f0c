"""`visiongate segment`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from visiongate import Client, Detection, GridMask, Mask, draw
from visiongate.commands.common import (
    BOX_COLUMN,
    AsJson,
    Photo,
    Save,
    asks_server,
    coordinates,
    groups,
    numbers,
    report,
    save_picture,
)
from visiongate.commands.detection import BoxThreshold, MaxDetections, NmsIou

app = typer.Typer()

MASK_COLUMNS = ("object", "score", "predicted IoU", "pixels", BOX_COLUMN)


@app.command()
@asks_server
def segment(
    client: Client,
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
    everything: Annotated[
        bool, typer.Option("--everything", help="Cut out everything in sight, from a grid of points.")
    ] = False,
    multimask: Annotated[bool, typer.Option(help="Three masks a box or point, best first.")] = False,
    points_per_side: Annotated[
        int | None, typer.Option(help="Of --everything: the grid's points a side.", show_default="32")
    ] = None,
    crop_layers: Annotated[
        int, typer.Option(help="Of --everything: layers of crops searched too, for small objects; 0 to 3.")
    ] = 0,
    min_iou: Annotated[
        float | None,
        typer.Option(help="Of --everything: drop masks of lower predicted IoU.", show_default="0.88"),
    ] = None,
    min_stability: Annotated[
        float | None,
        typer.Option(help="Of --everything: drop masks of lower stability score.", show_default="0.95"),
    ] = None,
    min_region_area: Annotated[
        int, typer.Option(help="Of --everything: fill holes, remove parts of fewer pixels; 0: none.")
    ] = 0,
    max_masks: Annotated[
        int | None, typer.Option(help="Of --everything: the most masks, best first.", show_default="all")
    ] = None,
    box_threshold: BoxThreshold = None,
    nms_iou: NmsIou = None,
    max_detections: MaxDetections = None,
    as_json: AsJson = False,
    save: Save = None,
) -> None:
    """Cut objects out: those that words name, what boxes or points point at, or everything in sight.

    For example:

    visiongate segment truck.jpg --phrase truck --phrase wheel --save out.png

    visiongate segment truck.jpg --box 75,275,1725,850

    visiongate segment truck.jpg --point "500,375 1125,625"

    visiongate segment truck.jpg --everything --timeout 600 --save out.png
    """
    if sum(map(bool, (phrase, box, point, everything))) != 1:
        raise ValueError("give one of --phrase, --box and --point (any number of times), or --everything")
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
    if everything:
        found = client.segment_everything(
            photo,
            points_per_side=points_per_side,
            crop_layers=crop_layers,
            min_predicted_iou=min_iou,
            min_stability_score=min_stability,
            min_region_area=min_region_area,
            max_masks=max_masks,
        )
        _report_everything(photo, found, as_json, save)
        return
    boxes = np.array([coordinates(text, 4) for text in box]) if box else None
    points = [np.array([coordinates(pair, 2) for pair in text.split()]) for text in point or ()]
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


def report_objects(photo: Path, objects: Sequence[Detection], as_json: bool, save: Path | None) -> None:
    """Prints, and draws where `save` says, what words named."""
    report(
        [item.as_dict() for item in objects],
        MASK_COLUMNS,
        [_mask_row(item.phrase, f"{item.score:.3f}", item.mask) for item in objects if item.mask],
        as_json,
    )
    colors = groups([item.phrase for item in objects])
    save_picture(
        photo,
        save,
        [
            draw.Item(
                group,
                f"{item.phrase} {item.score:.2f}",
                item.box,
                item.mask.pixels if item.mask else None,
            )
            for group, item in zip(colors, objects, strict=True)
        ],
    )


def _report_everything(photo: Path, found: Sequence[GridMask], as_json: bool, save: Path | None) -> None:
    report(
        [item.as_dict() for item in found],
        ("object", "stability", *MASK_COLUMNS[2:]),
        [_mask_row(str(index), f"{item.stability_score:.3f}", item.mask) for index, item in enumerate(found)],
        as_json,
        hint="A lower --min-iou or --min-stability finds more.",
    )
    # Small ones on top, or large ones would hide them; captions would hide everything.
    items = [
        draw.Item(index, mask=item.mask.pixels, color=draw.distinct_color(index))
        for index, item in sorted(enumerate(found), key=lambda pair: pair[1].mask.area)
    ]
    save_picture(photo, save, items)


def _mask_row(name: str, score: str, mask: Mask) -> tuple[str, ...]:
    return name, score, f"{mask.predicted_iou:.3f}", str(mask.area), numbers(mask.box)
