"""`visiongate label`."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from visiongate.batch.extra import needs
from visiongate.command_error import CommandError
from visiongate.commands.common import NOTHING_FOUND, AsJson, note, report
from visiongate.commands.folder import (
    FolderArgument,
    Html,
    Photos,
    about_photos,
    check_html,
    end_with_failed,
    write_html,
)
from visiongate.commands.options import WORDS, MinScore, Model
from visiongate.folders.classes import read_classes

if TYPE_CHECKING:
    from visiongate.batch.store import Store
    from visiongate.folders.labelled import LabelledPhotos

app = typer.Typer(rich_markup_mode="markdown")

FORMATS = ("coco", "yolo")
ANSWERS = "answers"
"""The folder, in that of --out, of the job's Parquet files."""
PREVIEWS = "previews"


@app.command()
@about_photos
def label(
    photos: Photos,
    folder: FolderArgument,
    out: Annotated[
        str,
        typer.Option(metavar="DIR", help="The folder of the data set. It is made; run again, it is updated."),
    ],
    phrase: Annotated[
        list[str] | None,
        typer.Option(help="A class, and what to look for; repeat for more.", rich_help_panel=WORDS),
    ] = None,
    class_: Annotated[
        list[str] | None,
        typer.Option(
            "--class",
            metavar="NAME=PHRASES",
            help='A class with phrases of its own, such as "cup=cup,mug"; repeat for more.',
            rich_help_panel=WORDS,
        ),
    ] = None,
    min_score: MinScore = None,
    formats: Annotated[
        list[str] | None,
        typer.Option("--format", metavar="NAME", help="coco or yolo; repeat for both.", show_default="coco"),
    ] = None,
    masks: Annotated[
        bool | None,
        typer.Option(
            "--masks/--boxes",
            help="Outline each object, or only box it, which is much quicker. YOLO's files hold boxes.",
            show_default="masks for coco",
        ),
    ] = None,
    val: Annotated[
        float,
        typer.Option(
            help="For yolo: the share of the photos that is kept for validation. A photo's part follows from "
            "its name, and never changes.",
            min=0,
            max=0.9,
        ),
    ] = 0.1,
    preview: Annotated[
        int, typer.Option(help="Draw the labels of so many photos into DIR/previews.", min=0)
    ] = 12,
    html: Html = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Ask anew about all photos, whatever DIR has.")
    ] = False,
    detection_model: Annotated[
        str,
        typer.Option(help="Variant of the model that finds objects.", show_default="the server's"),
    ] = "",
    model: Model = "",
    as_json: AsJson = False,
) -> None:
    """Label the photos of a folder by words, for training: COCO with masks, or YOLO with boxes.

    DIR gets `coco/annotations.json`, or `yolo/data.yaml` with images (links) and labels for training and
    validation. Each call writes them anew, so correct labels in a copy. `DIR/answers` has what the models
    said: a call that was stopped goes on, and a later one asks only about photos that are new. Look at
    `DIR/previews` before you train. The exit code is 1 if a photo cannot be used. For example:

    ```
    visiongate label photos --phrase cup --phrase spoon --out labels
    visiongate label photos --class "cup=cup,mug" --out cups --format yolo --html look.html
    yolo detect train data=cups/yolo/data.yaml model=yolo11n.pt
    ```
    """
    chosen = list(dict.fromkeys(formats or ["coco"]))
    for name in chosen:
        if name not in FORMATS:
            raise CommandError(f"--format is {name!r}: it must be {' or '.join(FORMATS)}")
    if masks and "coco" not in chosen:
        raise CommandError(
            "--masks is for COCO, and yolo's files hold boxes: add --format coco, or leave it out"
        )
    classes = read_classes(phrase or [], class_ or [])
    with needs("folders"):
        from visiongate.batch.filesystem import is_url  # noqa: PLC0415
        from visiongate.batch.output import Output  # noqa: PLC0415
        from visiongate.batch.store import open_store  # noqa: PLC0415
        from visiongate.batch.tasks import make_task  # noqa: PLC0415
        from visiongate.folders.found import count, sections  # noqa: PLC0415
        from visiongate.folders.labelled import LabelledPhotos  # noqa: PLC0415
    settings = {"phrases": classes.phrases, "min_score": min_score}
    if "coco" in chosen if masks is None else masks:
        task = make_task("segment", **settings, detection_model=detection_model, model=model)
    elif model:
        raise CommandError(
            "--model makes masks, and there are only boxes: name --detection-model, or add --masks"
        )
    else:
        task = make_task("detect", **settings, model=detection_model)
    if "yolo" in chosen and is_url(out):
        raise CommandError(f"--format yolo links to photos, which {out} cannot: give --out a folder here")
    store = open_store(out)
    _check_folder(store)
    check_html(html)
    source = photos.source(folder)
    work = photos.work(overwrite=overwrite)
    answers = f"{out.rstrip('/')}/{ANSWERS}"
    with work.clients() as clients:
        work.run(task, source, answers, clients)
    labelled = LabelledPhotos(Output(open_store(answers)), classes, {item.id: item for item in source})
    found = count(labelled)
    _write_formats(labelled, store, chosen, val, _root(folder))
    if preview:
        _write_previews(labelled, store, preview)
    report(
        [
            {"class": name, "objects": found.objects[name], "photos": found.photos[name]}
            for name in classes.names
        ],
        ("class", "objects", "photos"),
        [(name, f"{found.objects[name]:,}", f"{found.photos[name]:,}") for name in classes.names],
        as_json,
        "",
    )
    if found.unlabelled and not found.objects:
        note(NOTHING_FOUND)
    if html is not None:
        write_html(html, f"Labels of {source.name}", sections(labelled, found))
    end_with_failed(list(labelled.failures()))


def _check_folder(store: "Store") -> None:
    """Raise CommandError for a folder that is something else."""
    names = store.names()
    if names and ANSWERS not in names:
        raise CommandError(
            f"{store.name} is not empty, and holds no labels: give --out a new or empty folder"
        )


def _root(folder: str) -> Path | None:
    """Return the folder of this machine that ids are relative to, if it is one."""
    root = Path(folder)
    return root if root.is_dir() else None


def _write_formats(
    labelled: "LabelledPhotos", store: "Store", formats: Iterable[str], val: float, root: Path | None
) -> None:
    from visiongate.batch.formats import coco  # noqa: PLC0415
    from visiongate.batch.formats.folder import new_folder  # noqa: PLC0415
    from visiongate.folders.labelled import putter  # noqa: PLC0415
    from visiongate.folders.yolo import Labelled, write_data_set  # noqa: PLC0415

    for name in formats:
        with new_folder(store, name) as folder:
            if name == "coco":
                about = coco.write(labelled, folder)
            else:
                counts = write_data_set(
                    folder,
                    Path(store.name) / name,
                    (
                        Labelled(id_, labels, putter(labelled.items[id_], root))
                        for id_, labels in labelled.detections()
                    ),
                    labelled.settings["phrases"],
                    val,
                )
                about = (
                    f"data.yaml with {counts['train']:,} photos to train on, {counts['val']:,} to validate"
                )
        note(f"{store.path(name)} has {about}")
        if name == "yolo" and not all(counts.values()):
            note("One part has no photos: data.yaml names the other for both. Another --val splits them.")
    for name in FORMATS:
        if name not in formats and name in store.names():
            note(f"{store.path(name)} is of an earlier call: --format {name} renews it")


def _write_previews(labelled: "LabelledPhotos", store: "Store", count: int) -> None:
    from visiongate.batch.formats.folder import new_folder  # noqa: PLC0415
    from visiongate.folders.previews import preview, preview_name, sample  # noqa: PLC0415

    wanted = sample((row["id"] for row in labelled.rows([])), count)
    numbers = {name: number for number, name in enumerate(wanted, 1)}
    drawn = 0
    with new_folder(store, PREVIEWS) as folder:
        for name, labels in labelled.detections():
            # An id that is there twice is drawn once.
            if (number := numbers.pop(name, 0)) == 0:
                continue
            try:
                picture = preview(labelled.items[name].read(), labels)
            except (OSError, ValueError) as error:
                note(f"{name} has no preview: {error}")
                continue
            picture.save(folder / preview_name(number, name), quality=90)
            drawn += 1
    note(f"{store.path(PREVIEWS)} has {drawn} photos with their labels: look at them before you train")
