"""`visiongate gaze`."""

import math
from typing import Annotated

import typer

from visiongate import Client
from visiongate.commands.common import BOX_COLUMN, AsJson, box_cell, report
from visiongate.commands.options import DEFAULT_LIMIT, asks_server, note_limit
from visiongate.commands.photos import PhotoArgument, Picture, Save
from visiongate.commands.prompts import read_boxes
from visiongate.drawn_answers import face_items

app = typer.Typer(rich_markup_mode="markdown")


@app.command()
@asks_server
def gaze(
    client: Client,
    photo: PhotoArgument,
    box: Annotated[
        list[str] | None,
        typer.Option(
            help="A face that is known already: x_min,y_min,x_max,y_max in pixels; repeat for more. By "
            "default the server searches for faces.",
            metavar="BOX",
        ),
    ] = None,
    min_score: Annotated[
        float | None, typer.Option(help="Least score of a face, 0 to 1.", show_default="0.6")
    ] = None,
    nms_iou: Annotated[
        float | None,
        typer.Option(
            help="Drop the weaker of two faces whose intersection over union is larger, 0 to 1.",
            show_default="0.3",
        ),
    ] = None,
    max_faces: Annotated[
        int | None,
        typer.Option(help="At most this many faces, the best ones.", show_default=str(DEFAULT_LIMIT)),
    ] = None,
    small_faces: Annotated[
        bool,
        typer.Option(
            "--small-faces",
            help="Search the photo at twice the size. It finds smaller faces, and false ones in a face that "
            "fills the photo.",
        ),
    ] = False,
    gaze_model: Annotated[
        str, typer.Option(help="Variant of the model that tells the gaze.", show_default="the server's")
    ] = "",
    face_detection_model: Annotated[
        str, typer.Option(help="Variant of the model that finds faces.", show_default="the server's")
    ] = "",
    as_json: AsJson = False,
    save: Save = None,
) -> None:
    """Tell where each face looks.

    Yaw is positive towards the left edge of the photo, pitch upwards; both are zero for a look into the
    camera. For example:

    ```
    visiongate gaze group.jpg --save out.png
    visiongate gaze group.jpg --box 178,65,269,176 --json
    ```
    """
    picture = Picture(photo, save)
    faces = client.estimate_gaze(
        photo.image,
        boxes=read_boxes(box) if box else None,
        min_score=min_score,
        nms_iou_threshold=nms_iou,
        max_faces=max_faces,
        small_faces=small_faces,
        gaze_model=gaze_model,
        face_detection_model=face_detection_model,
    )
    report(
        [face.as_dict() for face in faces],
        ("face", "score", "yaw", "pitch", BOX_COLUMN),
        [
            (
                str(index),
                "" if face.score is None else f"{face.score:.3f}",
                _angle(face.yaw),
                _angle(face.pitch),
                box_cell(face.box),
            )
            for index, face in enumerate(faces)
        ],
        as_json,
        "No face found. A lower --min-score or --small-faces finds more.",
    )
    if not box:
        note_limit(faces, max_faces, "--max-faces")
    picture.draw(face_items(faces))


def _angle(radians: float) -> str:
    return f"{radians:+.3f} rad ({math.degrees(radians):+.1f}°)"
