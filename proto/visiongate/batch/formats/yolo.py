"""YOLO's label files: a text file with the boxes of each image, and data.yaml with the classes."""

import hashlib
import re
from pathlib import Path

from visiongate.batch.formats.rows import NAMELESS, Job
from visiongate.batch.inputs import endings
from visiongate.batch.wording import counted
from visiongate.command_error import CommandError

LABELS = "labels"
DATA = "data.yaml"


def write(job: Job, folder: Path) -> str:
    """Write labels/<id>.txt for each image, without the ending of its name, and data.yaml.

    Raise CommandError for two images whose labels would be the same file.
    """
    _check_names(job)
    count = job.count()
    classes = [NAMELESS] if "masks" in job.schema.names else job.settings["phrases"]
    objects = 0
    (folder / LABELS).mkdir()
    for id_, detections in job.detections():
        classes = detections.classes
        path = folder / LABELS / label_name(id_)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(detections.to_yolo())
        objects += len(detections)
    names = "".join(f"\n  {number}: {_quoted(name)}" for number, name in enumerate(classes))
    (folder / DATA).write_text(
        "# Put the images into a folder images, beside labels.\n"
        f"path: .\ntrain: images\nval: images\nnames:{names or ' {}'}\n"
    )
    images = f"{counted(count.ok, 'image')} with {counted(objects, 'object')}"
    return f"label files of {images}, and {DATA}{count.about_failed}"


def label_name(id_: str) -> str:
    """Return the path of an image's label file below labels; it never leads out of there."""
    if endings.ending(id_) in endings.IMAGES:
        id_ = id_[: id_.rindex(".")]
    parts = [part for part in id_.replace("\0", "%00").split("/") if part not in ("", ".")]
    return "/".join("%2e%2e" if part == ".." else part for part in parts or ["_"]) + ".txt"


def _quoted(text: str) -> str:
    """Return a text as YAML has it, in ASCII alone. JSON's escapes would halve characters beyond 16 bits."""
    plain = text.replace("\\", r"\\").replace('"', r"\"")
    return '"' + re.sub(r"[^ -~]", lambda match: f"\\U{ord(match[0]):08x}", plain) + '"'


def _check_names(job: Job) -> None:
    # Digests take less memory than names. An input that is there twice has the same labels twice.
    seen: dict[bytes, bytes] = {}
    for row in job.rows(["id"]):
        name = label_name(row["id"])
        if seen.setdefault(_digest(name), own := _digest(row["id"])) != own:
            raise CommandError(
                f"{row['id']} and another image would both have the label file {name}: YOLO cannot tell them "
                "apart; rename one, or use the format coco"
            )


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=16).digest()
