"""The finished rows of a job, as the formats read them."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from visiongate.answer import AnswerInfo, ImageInfo
from visiongate.batch.columns import OK
from visiongate.batch.files import METADATA_KEY
from visiongate.batch.output import Output
from visiongate.batch.tasks.detect import detections_of
from visiongate.batch.tasks.types import read_mask_value
from visiongate.batch.wording import counted
from visiongate.detections import Detection, Detections

NAMELESS = "object"
"""The class of masks that no words asked for."""


class Job:
    """A job by its files: its task, its settings and its rows."""

    def __init__(self, output: Output) -> None:
        self.output = output
        self.schema = output.schema()
        about = json.loads(self.schema.metadata[METADATA_KEY.encode()])
        self.task: str = about["task"]
        self.settings: dict[str, Any] = about["settings"]

    def rows(self, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Yield the rows that are OK, in order, with these columns."""
        for batch in self.output.batches([*columns, "status"]):
            yield from (row for row in batch.to_pylist() if row["status"] == OK)

    def count(self) -> "Count":
        """Count the rows that are OK, and the others."""
        all_rows = ok = 0
        for batch in self.output.batches(["status"]):
            all_rows += len(batch)
            ok += batch["status"].to_pylist().count(OK)
        return Count(ok, all_rows - ok)

    def detections(self) -> Iterator[tuple[str, Detections]]:
        """Yield the id and the objects of each row that is OK.

        Their classes are one list. That of a caption grows with each phrase that the caption led to; that of
        masks without words has one class.
        """
        if "masks" in self.schema.names:
            for row in self.rows(["id", "width", "height", "masks"]):
                yield row["id"], _nameless(row)
            return
        phrases = self.settings["phrases"]
        classes = dict.fromkeys(phrases)
        for row in self.rows(["id", "width", "height", "detections"]):
            if not phrases:
                classes |= dict.fromkeys(entry["phrase"] for entry in row["detections"])
            yield (
                row["id"],
                detections_of(row["detections"], phrases or list(classes), row["width"], row["height"]),
            )


@dataclass(frozen=True, slots=True)
class Count:
    """How many rows are OK, and how many are of inputs that failed."""

    ok: int
    failed: int

    @property
    def about_failed(self) -> str:
        """The end of a sentence."""
        if not self.failed:
            return ""
        return f"; {counted(self.failed, 'input')} that failed {'is' if self.failed == 1 else 'are'} left out"


def _nameless(row: dict[str, Any]) -> Detections:
    masks = [read_mask_value(entry["mask"]) for entry in row["masks"]]
    items = [Detection(mask.box.astype(np.float32), NAMELESS, mask.predicted_iou, 0, mask) for mask in masks]
    info = AnswerInfo(images=(ImageInfo("", row["width"], row["height"]),))
    return Detections(items, [NAMELESS], info, has_masks=True)
