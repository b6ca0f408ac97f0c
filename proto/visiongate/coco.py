"""COCO files of the objects in many images."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from visiongate.detections import Detections


class CocoDataset:
    """The objects found in many images, for a COCO file: labels for training, or for COCO's own scoring.

    `classes` are the phrases of the calls, the same for all. All ids start at 1.
    """

    def __init__(self, classes: Sequence[str]) -> None:
        self._classes = tuple(classes)
        self._images: list[dict[str, Any]] = []
        self._annotations: list[dict[str, Any]] = []

    def add(self, file_name: str, detections: Detections) -> int:
        """Add an image and its objects. Return the image's id.

        Raises ValueError if the objects were found by other phrases, or by a caption.
        """
        if detections.classes != self._classes:
            raise ValueError(
                f"the objects of {file_name} have the classes {list(detections.classes)}, and the data set "
                f"has {list(self._classes)}"
            )
        image_id = len(self._images) + 1
        self._images.append(
            {"id": image_id, "file_name": file_name, "width": detections.width, "height": detections.height}
        )
        self._annotations += detections.to_coco(image_id, len(self._annotations) + 1)
        return image_id

    def as_dict(self) -> dict[str, Any]:
        """Return what JSON holds: images, annotations and categories, as pycocotools loads them."""
        return {
            "images": list(self._images),
            "annotations": list(self._annotations),
            "categories": [{"id": number, "name": name} for number, name in enumerate(self._classes, 1)],
        }

    def save(self, path: str | os.PathLike[str]) -> None:
        Path(path).write_text(json.dumps(self.as_dict()))
