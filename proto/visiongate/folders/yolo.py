"""A data set as trainers of YOLO take it: images and labels in two trees alike, for training and validation.

data.yaml              the classes, and where the images are
images/train/a/b.jpg   the photo a/b.jpg: a link to it, or a copy
labels/train/a/b.txt   a line for each object of it: class, centre and size of its box, 0 to 1
images/val/...         photos that are kept for validation
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from visiongate.detections import Detections

ENDINGS = frozenset({".bmp", ".dng", ".heic", ".jpeg", ".jpg", ".mpo", ".png", ".tif", ".tiff", ".webp"})
"""Of the images that trainers read."""

MAX_NAME_BYTES = 200
PARTS = ("train", "val")


@dataclass(frozen=True, slots=True)
class Labelled:
    """A photo with its labels. id: its id in the job. put: puts its image at a path, by a link or a copy."""

    id: str
    labels: Detections
    put: Callable[[Path], None]


def is_for_validation(name: str, share: float) -> bool:
    """Return whether a photo is kept for validation. It depends on the id alone, and so never changes."""
    number = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8])
    return number < share * 2**64


def write_data_set(
    folder: Path, place: Path, photos: Iterable[Labelled], classes: Sequence[str], val: float
) -> dict[str, int]:
    """Write a data set into an empty folder, and return how many photos each part has.

    place: where the folder will be; data.yaml names that. val: the share of the photos that is kept for
    validation, 0 to less than 1. If a part has none, data.yaml names the other one in its place: trainers
    want both. Raises OSError if something cannot be written.
    """
    counts = dict.fromkeys(PARTS, 0)
    for tree in ("images", "labels"):
        for part in PARTS:
            (folder / tree / part).mkdir(parents=True)
    names = _Names()
    for photo in photos:
        part = PARTS[is_for_validation(photo.id, val)]
        counts[part] += 1
        image, label = (
            folder / tree / part / name
            for tree, name in zip(("images", "labels"), names.of(photo.id), strict=True)
        )
        for path in (image, label):
            path.parent.mkdir(parents=True, exist_ok=True)
        photo.put(image)
        label.write_text(photo.labels.to_yolo())
    (folder / "data.yaml").write_text(_data_yaml(place, classes, counts), encoding="utf-8")
    return counts


class _Names:
    """Gives each photo a path of its own in the data set, near to its id."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def of(self, name: str) -> tuple[PurePosixPath, PurePosixPath]:
        """Return the paths of a photo's image and of its label file, below those of its part."""
        folders = [
            # Trainers find a label by putting "labels" in place of the last folder that is named "images".
            f"{part}_" if part.lower() == "images" else _short(part)
            for part in name.split("/")[:-1]
            if part not in ("", ".", "..")
        ]
        path = PurePosixPath(name.rpartition("/")[2].lstrip(".") or "image")
        ending = path.suffix if path.suffix.lower() in ENDINGS else ""
        stem = path.stem if ending else path.name
        # The name ends at its last dot for trainers; a photo must end as images do, or they skip it.
        ending = ending or ".jpg"
        stem, number = _short(stem), 1
        parent = PurePosixPath(*folders)
        # a.jpg and a.png would share one label file. Some file systems do not tell a from A.
        while str(unique := parent / (stem if number == 1 else f"{stem}-{number}")).lower() in self._taken:
            number += 1
        self._taken.add(str(unique).lower())
        return unique.with_name(unique.name + ending), unique.with_name(unique.name + ".txt")


def _short(name: str) -> str:
    """Return a name that file systems take."""
    data = name.encode()
    if len(data) <= MAX_NAME_BYTES:
        return name
    return data[: MAX_NAME_BYTES - 9].decode(errors="ignore") + "-" + hashlib.sha256(data).hexdigest()[:8]


def _data_yaml(place: Path, classes: Sequence[str], counts: Mapping[str, int]) -> str:
    """Return the file that names parts and classes. JSON's strings are YAML's, whatever is in them."""
    train, val = (f"images/{part if counts[part] else _other(part)}" for part in PARTS)
    lines = [
        # Trainers read relative paths from a folder of their own.
        f"path: {json.dumps(str(place.resolve()))}",
        f"train: {train}",
        f"val: {val}",
        "names:",
        *(f"  {index}: {json.dumps(name)}" for index, name in enumerate(classes)),
    ]
    return "\n".join(lines) + "\n"


def _other(part: str) -> str:
    return PARTS[1 - PARTS.index(part)]
