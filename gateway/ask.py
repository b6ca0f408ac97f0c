"""The commands that ask a server about a photo: tables, JSON, and pictures of the answers."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from PIL import Image, ImageOps
from rich.console import Console
from rich.table import Table

from visiongate import Client, Mask, SegmentedObject, draw

console = Console()
errors = Console(stderr=True)
app = typer.Typer()

BOX_COLUMN = "box (x_min, y_min, x_max, y_max)"
MASK_COLUMNS = ("object", "score", "predicted IoU", "pixels", BOX_COLUMN)

Server = Annotated[str, typer.Option("--server", help="The gateway's address.", envvar="VISIONGATE_SERVER")]
Timeout = Annotated[float, typer.Option(help="Seconds to wait for the answer.")]
Photo = Annotated[Path, typer.Argument(help="The image file.", exists=True, dir_okay=False)]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Save = Annotated[Path | None, typer.Option(help="Draw the answer on the image and write it here.")]
BoxThreshold = Annotated[
    float | None, typer.Option(help="Least score of a detection, 0 to 1.", show_default="0.35")
]
NmsIou = Annotated[
    float | None,
    typer.Option(help="Drop the weaker of two boxes of a phrase that overlap more.", show_default="off"),
]
MaxDetections = Annotated[int | None, typer.Option(help="Most detections.", show_default="100")]


@app.command()
def models(server: Server = "127.0.0.1:50051", timeout: Timeout = 10, as_json: AsJson = False) -> None:
    """List the models that a server offers."""
    with Client(server, timeout=timeout) as client:
        offered = client.list_models()
    report(
        [model.as_dict() for model in offered],
        ("task", "family", "variant", "default", "ready", "input size"),
        [
            (
                model.task,
                model.family,
                model.variant,
                "yes" if model.is_default else "",
                "yes" if model.ready else "no",
                str(model.input_size),
            )
            for model in offered
        ],
        as_json,
    )


@app.command()
def detect(
    photo: Photo,
    phrases: Annotated[
        list[str] | None, typer.Argument(help="What to look for: truck wheel 'red sign'")
    ] = None,
    caption: Annotated[str, typer.Option(help="Free text instead of phrases.")] = "",
    box_threshold: BoxThreshold = None,
    nms_iou: NmsIou = None,
    max_detections: MaxDetections = None,
    model: Annotated[str, typer.Option(help="Model variant.", show_default="the repository's")] = "",
    server: Server = "127.0.0.1:50051",
    timeout: Timeout = 120,
    as_json: AsJson = False,
    save: Save = None,
) -> None:
    """Find the objects that words name."""
    with Client(server, timeout=timeout) as client:
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
        [(item.phrase, f"{item.score:.3f}", _numbers(item.box)) for item in detections],
        as_json,
    )
    groups = _groups([detection.phrase for detection in detections])
    save_picture(
        photo,
        save,
        [
            draw.Item(group, f"{item.phrase} {item.score:.2f}", box=item.box)
            for group, item in zip(groups, detections, strict=True)
        ],
    )


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
    groups = _groups([item.detection.phrase for item in objects])
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
            for group, item in zip(groups, objects, strict=True)
        ],
    )


def report(
    entries: list[dict[str, Any]], columns: Sequence[str], rows: Sequence[tuple[str, ...]], as_json: bool
) -> None:
    """Prints the answer, as JSON for programs or as a table for people."""
    if as_json:
        print(json.dumps(entries, ensure_ascii=False))
    elif rows:
        table = Table(*columns)
        for row in rows:
            table.add_row(*row)
        console.print(table)
    else:
        console.print("Nothing found. A lower --box-threshold finds more.")


def save_picture(photo: Path, path: Path | None, items: list[draw.Item]) -> None:
    """Draws the answer on the photo, where a path is given."""
    if path is None:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with Image.open(photo) as image:
        draw.draw(ImageOps.exif_transpose(image), items).save(path)
    errors.print(f"wrote {path}", highlight=False, soft_wrap=True)


def _mask_row(name: str, score: str, mask: Mask) -> tuple[str, ...]:
    return name, score, f"{mask.predicted_iou:.3f}", str(mask.area), _numbers(mask.box)


def _groups(phrases: Sequence[str]) -> list[int]:
    """A number for each distinct phrase, so that its objects share a colour."""
    order = list(dict.fromkeys(phrases))
    return [order.index(phrase) for phrase in phrases]


def _numbers(values: np.ndarray[Any, Any]) -> str:
    return ", ".join(f"{value:.0f}" for value in values)


def _coordinates(text: str, count: int) -> list[float]:
    try:
        values = [float(value) for value in text.split(",")]
    except ValueError:
        values = []
    if len(values) != count:
        raise ValueError(f"{text!r} is not {count} numbers with commas between them, such as 10,20")
    return values
