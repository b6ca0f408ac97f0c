"""The tasks of `visiongate batch` as commands: which options each has, and what it makes of them."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from visiongate.command_error import CommandError
from visiongate.commands import detection, embedding, gaze, segmentation, text
from visiongate.commands.options import WORDS


def _as_they_are(values: dict[str, Any]) -> dict[str, Any]:
    return values


@dataclass(frozen=True, kw_only=True)
class TaskOptions:
    """The options of a task.

    single: the command for one image. settings: those of its options that the task has too, and what the task
    calls each. own: options beside them, which the task calls by their names. read: makes the task's settings
    of the values of all these. help: of the command, Markdown.
    """

    name: str
    single: Callable[..., None]
    settings: Mapping[str, str]
    help: str
    own: Sequence[inspect.Parameter] = ()
    read: Callable[[dict[str, Any]], dict[str, Any]] = _as_they_are

    @property
    def parameters(self) -> list[inspect.Parameter]:
        """The options, as typer reads them."""
        shared = inspect.signature(self.single).parameters
        return [*self.own, *(shared[option] for option in self.settings)]

    def read_values(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the task's settings of values by option. Raise CommandError for options that do not fit."""
        return self.read({self.settings.get(option, option): value for option, value in values.items()})


def _own(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(
        name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=default, annotation=annotation
    )


PHRASE = _own(
    "phrases",
    Annotated[
        list[str] | None,
        typer.Option(
            "--phrase", help="What to look for, such as 'red car'; repeat for more.", rich_help_panel=WORDS
        ),
    ],
    None,
)


def _classify_settings(values: dict[str, Any]) -> dict[str, Any]:
    if not values["labels"]:
        raise CommandError("give what the images may show, as in: --label cat --label 'a red car'")
    return values


def _detect_settings(values: dict[str, Any]) -> dict[str, Any]:
    if bool(values["phrases"]) == bool(values["caption"]):
        raise CommandError("give what to look for: --phrase, any number of times, or --caption")
    return values | {"phrases": values["phrases"] or []}


def _segment_settings(values: dict[str, Any]) -> dict[str, Any]:
    """Check which way the options are for, in the words of options: the task knows its settings alone."""
    of_words = bool(values["phrases"] or values["caption"])
    of_other = WITHOUT_WORDS if of_words else WITH_WORDS
    for name, option in of_other.items():
        if values[name] not in (None, "", 0):
            raise CommandError(
                f"{option} is for everything in sight, and does not go with --phrase and --caption"
                if of_words
                else f"{option} goes with --phrase or --caption"
            )
    mask_nms_iou, nms_iou = values.pop("mask_nms_iou"), values.pop("nms_iou")
    nms_iou_threshold = nms_iou if of_words else mask_nms_iou
    return values | {"phrases": values["phrases"] or [], "nms_iou_threshold": nms_iou_threshold}


def _ocr_settings(values: dict[str, Any]) -> dict[str, Any]:
    order = values["reading_order"]
    return values | {"reading_order": order.value if order else None}


WITH_WORDS = {
    "min_score": "--min-score",
    "min_token_score": "--min-token-score",
    "nms_iou": "--nms-iou",
    "max_detections": "--max-detections",
    "detection_model": "--detection-model",
}
WITHOUT_WORDS = {
    "points_per_side": "--points-per-side",
    "crop_layers": "--crop-layers",
    "min_predicted_iou": "--min-iou",
    "min_stability_score": "--min-stability",
    "mask_nms_iou": "--mask-nms-iou",
    "min_mask_area": "--min-mask-area",
    "min_region_area": "--min-region-area",
    "max_masks": "--max-masks",
}
"""Options of `segment` for its two ways, by the names of their settings."""

TASKS = [
    TaskOptions(
        name="embed",
        single=embedding.embed,
        settings={"normalize": "normalize", "model": "model"},
        help="""Embed images: a vector each, close to those of what means the same.

    The column `embedding` has lists of numbers; `--format npy` writes a NumPy file beside. For example:

    ```
    visiongate batch embed photos --out embeddings --format npy
    visiongate batch embed 'shard-{000..099}.tar' --dtype float16 --out s3://bucket/embeddings --shard 0/4
    ```
    """,
        own=[
            _own(
                "dtype",
                Annotated[
                    str,
                    typer.Option(
                        help="Type of the numbers: float32, or float16, which takes half of the room."
                    ),
                ],
                "float32",
            )
        ],
    ),
    TaskOptions(
        name="classify",
        single=embedding.classify,
        settings={"template": "prompt_template", "top_k": "top_k", "truncate": "truncate", "model": "model"},
        help="""Say which labels fit each image, best first.

    ```
    visiongate batch classify photos --label cat --label dog --label "a red car" --out labels
    ```
    """,
        own=[
            _own(
                "labels",
                Annotated[
                    list[str] | None,
                    typer.Option("--label", help="What an image may show; repeat for more."),
                ],
                None,
            )
        ],
        read=_classify_settings,
    ),
    TaskOptions(
        name="detect",
        single=detection.detect,
        settings={
            "caption": "caption",
            "min_score": "min_score",
            "min_token_score": "min_token_score",
            "nms_iou": "nms_iou_threshold",
            "max_detections": "max_detections",
            "model": "model",
        },
        help="""Find the objects that words name in each image.

    ```
    visiongate batch detect photos --phrase truck --phrase wheel --out objects --format coco
    ```
    """,
        own=[PHRASE],
        read=_detect_settings,
    ),
    TaskOptions(
        name="segment",
        single=segmentation.segment,
        settings={
            "caption": "caption",
            **{name: name for name in WITH_WORDS},
            "points_per_side": "points_per_side",
            "crop_layers": "crop_layers",
            "min_iou": "min_predicted_iou",
            "min_stability": "min_stability_score",
            "mask_nms_iou": "mask_nms_iou",
            "min_mask_area": "min_mask_area",
            "min_region_area": "min_region_area",
            "max_masks": "max_masks",
            "model": "model",
        },
        help="""Cut out what words name in each image; without words, everything in sight.

    Masks are COCO run lengths. For example:

    ```
    visiongate batch segment photos --phrase truck --phrase wheel --out masks --format coco
    visiongate batch segment photos --points-per-side 16 --out everything
    ```
    """,
        own=[PHRASE],
        read=_segment_settings,
    ),
    TaskOptions(
        name="ocr",
        single=text.ocr,
        settings={
            name: name
            for name in (
                "rotated_words",
                "detect_orientation",
                "group_lines",
                "group_blocks",
                "reading_order",
                "min_pixel_score",
                "min_word_score",
                "min_confidence",
                "model",
            )
        },
        help="""Read the text of photos and scans.

    ```
    visiongate batch ocr scans --out text --format jsonl
    ```
    """,
        read=_ocr_settings,
    ),
    TaskOptions(
        name="gaze",
        single=gaze.gaze,
        settings={
            "min_score": "min_score",
            "nms_iou": "nms_iou_threshold",
            "max_faces": "max_faces",
            "small_faces": "small_faces",
            "gaze_model": "gaze_model",
            "face_detection_model": "face_detection_model",
        },
        help="""Tell where each face of each image looks.

    ```
    visiongate batch gaze talk.mp4 --every-nth 25 --out gaze
    ```
    """,
    ),
]
