"""What `visiongate segment` prints and draws."""

from collections.abc import Sequence

from visiongate import Detections, GridMask, Mask, draw
from visiongate.commands.common import BOX_COLUMN, NOTHING_FOUND, box_cell, report
from visiongate.commands.photos import Picture
from visiongate.commands.prompts import Prompts

COLUMNS = ("object", "score", "predicted IoU", "pixels", BOX_COLUMN)


def report_objects(objects: Detections, as_json: bool, picture: Picture) -> None:
    """Print and draw the objects that words named."""
    report(
        objects.as_dicts(),
        COLUMNS,
        [_row(item.phrase, f"{item.score:.3f}", item.mask) for item in objects if item.mask is not None],
        as_json,
        NOTHING_FOUND,
    )
    picture.draw(objects.drawn())


def report_regions(
    prompts: Prompts, regions: Sequence[Sequence[Mask]], as_json: bool, picture: Picture
) -> None:
    """Print the masks of each prompt, and draw the best of each."""
    report(
        [{"masks": [mask.as_dict() for mask in region]} for region in regions],
        ("prompt", *COLUMNS[2:]),
        [(str(index), *_row("", "", mask)[2:]) for index, region in enumerate(regions) for mask in region],
        as_json,
        "No masks came back.",
    )
    picture.draw(
        draw.Item(
            index,
            f"{index}: IoU {region[0].predicted_iou:.2f}",
            box=None if prompts.boxes is None else prompts.boxes[index],
            mask=region[0].pixels,
            points=None if prompts.points is None else prompts.points[index],
            labels=None if prompts.labels is None else prompts.labels[index],
        )
        for index, region in enumerate(regions)
    )


def report_everything(grid_masks: Sequence[GridMask], as_json: bool, picture: Picture) -> None:
    """Print and draw the masks that a grid of points led to."""
    report(
        [item.as_dict() for item in grid_masks],
        ("object", "stability", *COLUMNS[2:]),
        [_row(str(index), f"{item.stability_score:.3f}", item.mask) for index, item in enumerate(grid_masks)],
        as_json,
        "Nothing found. A lower --min-iou or --min-stability finds more.",
    )
    # Small ones on top, or large ones would hide them. No captions, or they would hide everything.
    order = sorted(enumerate(grid_masks), key=lambda pair: pair[1].mask.area)
    picture.draw(
        draw.Item(index, mask=item.mask.pixels, color=draw.distinct_color(index)) for index, item in order
    )


def _row(name: str, score: str, mask: Mask) -> tuple[str, ...]:
    return name, score, f"{mask.predicted_iou:.3f}", str(mask.area), box_cell(mask.box)
