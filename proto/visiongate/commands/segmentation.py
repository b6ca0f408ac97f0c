"""`visiongate segment`."""

import functools
from typing import Annotated, Any

import typer

from visiongate import Client
from visiongate.command_error import CommandError
from visiongate.commands import masks
from visiongate.commands.common import AsJson
from visiongate.commands.options import (
    WORDS,
    Caption,
    MaxDetections,
    MinScore,
    MinTokenScore,
    Model,
    NmsIou,
    asks_server,
    note_limit,
)
from visiongate.commands.photos import PhotoArgument, Picture, Save, refuse_photos
from visiongate.commands.prompts import read_prompts

app = typer.Typer(rich_markup_mode="markdown")

PROMPTS = "Boxes and points"
EVERYTHING = "Everything in sight"
WAYS = {
    WORDS: ("--phrase", "--caption"),
    PROMPTS: ("--box", "--point", "--background"),
    EVERYTHING: ("--everything",),
}
"""The panels of the help, each a way to say what to cut out, and the options that choose it."""

word_option = functools.partial(typer.Option, rich_help_panel=WORDS)
prompt_option = functools.partial(typer.Option, rich_help_panel=PROMPTS)
grid_option = functools.partial(typer.Option, rich_help_panel=EVERYTHING)

Texts = list[str] | None


@app.command()
@asks_server
def segment(
    client: Client,
    context: typer.Context,
    photo: PhotoArgument,
    phrase: Annotated[Texts, word_option(help="Cut out what this names; repeat for more.")] = None,
    caption: Caption = "",
    min_score: MinScore = None,
    min_token_score: MinTokenScore = None,
    nms_iou: NmsIou = None,
    max_detections: MaxDetections = None,
    detection_model: Annotated[
        str, word_option(help="Variant of the model that finds objects.", show_default="the server's")
    ] = "",
    box: Annotated[
        Texts,
        prompt_option(
            metavar="BOX",
            help="Cut out what fills this box: x_min,y_min,x_max,y_max in pixels; repeat for more.",
        ),
    ] = None,
    point: Annotated[
        Texts,
        prompt_option(
            metavar="POINTS",
            help="Cut out what these points lie on, one or more: 'x,y x,y'; repeat for more objects.",
        ),
    ] = None,
    background: Annotated[
        Texts,
        prompt_option(
            metavar="POINTS",
            help="Points that do not belong to the object. The first --box, --point and --background go "
            "together, the second ones too, and so on.",
        ),
    ] = None,
    multimask: Annotated[
        bool,
        prompt_option(
            "--multimask",
            help="Three masks a prompt, best first: a part, the whole, a group. --save draws the best.",
        ),
    ] = False,
    everything: Annotated[
        bool,
        grid_option(
            "--everything",
            help="Cut out all there is, from a grid of points. This can take minutes: mind --timeout.",
        ),
    ] = False,
    points_per_side: Annotated[
        int | None, grid_option(help="Points along each side of the grid.", show_default="32")
    ] = None,
    crop_layers: Annotated[
        int,
        grid_option(
            help="Search crops of the photo too, for small objects: 0 to 3 layers, each with four times as "
            "many crops as the last."
        ),
    ] = 0,
    min_iou: Annotated[
        float | None, grid_option(help="Drop masks of lower predicted IoU, 0 to 1.", show_default="0.88")
    ] = None,
    min_stability: Annotated[
        float | None, grid_option(help="Drop masks of lower stability, 0 to 1.", show_default="0.95")
    ] = None,
    mask_nms_iou: Annotated[
        float | None,
        grid_option(
            help="Drop the weaker of two masks whose boxes have a larger intersection over union, 0 to 1.",
            show_default="0.7",
        ),
    ] = None,
    min_mask_area: Annotated[int, grid_option(help="Drop masks of fewer pixels.")] = 0,
    min_region_area: Annotated[
        int, grid_option(help="Fill holes, and remove separate parts, of fewer pixels; 0: none.")
    ] = 0,
    max_masks: Annotated[
        int | None, grid_option(help="At most this many masks, best first.", show_default="all")
    ] = None,
    model: Model = "",
    as_json: AsJson = False,
    save: Save = None,
) -> None:
    """Cut objects out: those that words name, what boxes or points point at, or everything in sight.

    Options of the three ways do not mix. With --json the masks are COCO run lengths. For example:

    ```
    visiongate segment truck.jpg --phrase truck --phrase wheel --save out.png
    visiongate segment truck.jpg --box 75,275,1725,850
    visiongate segment truck.jpg --point "500,375 1125,625" --background "10,10"
    visiongate segment truck.jpg --box 75,275,1725,850 --background "500,375"
    visiongate segment truck.jpg --everything --timeout 600 --save out.png
    ```
    """
    way = _way(context)
    refuse_photos(phrase or [], "phrase", "segment takes one photo a call")
    picture = Picture(photo, save)
    if way == WORDS:
        objects = client.segment_phrases(
            photo.image,
            phrase or [],
            caption=caption,
            min_score=min_score,
            min_token_score=min_token_score,
            nms_iou_threshold=nms_iou,
            max_detections=max_detections,
            detection_model=detection_model,
            segmentation_model=model,
        )
        masks.report_objects(objects, as_json, picture)
        note_limit(objects, max_detections, "--max-detections")
    elif way == PROMPTS:
        prompts = read_prompts(box or [], point or [], background or [])
        regions = client.segment(
            photo.image,
            boxes=prompts.boxes,
            points=prompts.points,
            labels=prompts.labels,
            multimask=multimask,
            model=model,
        )
        masks.report_regions(prompts, regions, as_json, picture)
    else:
        grid_masks = client.segment_everything(
            photo.image,
            points_per_side=points_per_side,
            crop_layers=crop_layers,
            min_predicted_iou=min_iou,
            min_stability_score=min_stability,
            nms_iou_threshold=mask_nms_iou,
            min_mask_area=min_mask_area,
            min_region_area=min_region_area,
            max_masks=max_masks,
            model=model,
        )
        masks.report_everything(grid_masks, as_json, picture)
        if max_masks is not None:
            note_limit(grid_masks, max_masks, "--max-masks")


def _way(context: typer.Context) -> str:
    """Return the way that the options choose. Raise CommandError if they choose none, or mix them."""
    options: dict[str, list[str]] = {way: [] for way in WAYS}
    for option in context.command.params:
        panel = getattr(option, "rich_help_panel", None)
        source: Any = context.get_parameter_source(str(option.name))
        if panel in options and source.name == "COMMANDLINE":
            options[panel].append(option.opts[0])
    chosen = [way for way, choosers in WAYS.items() if set(options[way]) & set(choosers)]
    if len(chosen) != 1:
        raise CommandError(
            "give one way to say what is cut out: --phrase or --caption, --box and --point, or --everything"
        )
    (way,) = chosen
    for other, names in options.items():
        if other != way and names:
            raise CommandError(
                f"{names[0]} does not go with {options[way][0]}: it is for {' and '.join(WAYS[other])}"
            )
    return way
