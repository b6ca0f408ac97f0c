"""The photos of a folder with their labels, from the files of a finished job."""

import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from visiongate.batch.columns import OK
from visiongate.batch.formats.rows import Count, Job
from visiongate.batch.item import Item
from visiongate.batch.output import Output
from visiongate.batch.tasks.detect import detections_of
from visiongate.detections import Detections
from visiongate.folders.classes import Classes


class LabelledPhotos(Job):
    """The rows of a job `detect` or `segment` about the phrases of classes, as formats read a job.

    items: those of the source now, by their ids. Rows of photos that are gone since are left out.
    """

    def __init__(self, output: Output, classes: Classes, items: Mapping[str, Item]) -> None:
        super().__init__(output)
        self.settings = self.settings | {"phrases": list(classes.names)}
        self.items = items
        self._classes = classes

    def rows(self, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Yield the rows that are OK, in order, with these columns and the id."""
        for row in super().rows(list(dict.fromkeys(["id", *columns]))):
            if row["id"] in self.items:
                yield row

    def failures(self) -> Iterator[tuple[str, str]]:
        """Yield the id and the error of each photo that has no labels because it failed."""
        for batch in self.output.batches(["id", "status", "error_message"]):
            for row in batch.to_pylist():
                if row["status"] != OK and row["id"] in self.items:
                    yield row["id"], f"{row['status']}: {row['error_message']}"

    def count(self) -> Count:
        """Count the rows that are OK, and the others."""
        return Count(sum(1 for _ in self.rows([])), sum(1 for _ in self.failures()))

    def detections(self) -> Iterator[tuple[str, Detections]]:
        """Yield the id and the labels of each row that is OK."""
        for row in self.rows(["width", "height", "detections"]):
            found = detections_of(row["detections"], self._classes.phrases, row["width"], row["height"])
            yield row["id"], self._classes.labels(found)


def putter(item: Item, root: Path | None) -> Callable[[Path], None]:
    """Return what puts a photo at a path: a link to its file in the folder `root`, or else a copy."""

    def put(path: Path) -> None:
        file = None if root is None else root / item.id
        if file is not None and file.is_file():
            try:
                path.symlink_to(os.path.abspath(file))
            # Windows lets few users make links, and some file systems have none.
            except OSError:
                shutil.copyfile(file, path)
        else:
            path.write_bytes(item.read())

    return put
