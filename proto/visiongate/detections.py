"""Objects that words name: one by one, as arrays, and as other libraries take them."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageOps

from visiongate.answer import AnswerInfo
from visiongate.masks import Mask

if TYPE_CHECKING:
    import supervision

    from visiongate import draw


@dataclass(frozen=True, eq=False, slots=True)
class Detection:
    """An object: `box` float32 [4], x_min, y_min, x_max, y_max in pixels of the image.

    `phrase_index` is the phrase's index in the request, None if the request gave a caption. `mask` are the
    object's pixels if `segment_phrases` found it, else None.
    """

    box: NDArray[np.float32]
    phrase: str
    score: float
    phrase_index: int | None
    mask: Mask | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return what JSON holds."""
        entry = {
            "phrase": self.phrase,
            "phrase_index": self.phrase_index,
            "score": round(self.score, 4),
            "box": [round(float(value), 2) for value in self.box],
        }
        return entry if self.mask is None else entry | {"mask": self.mask.as_dict()}


class Detections(Sequence[Detection]):
    """The objects that words name in one image, best first: a sequence of `Detection`, also as arrays.

    A slice, or an array of indices or booleans, picks some of them: `found[found.confidence > 0.5]`.

    classes: the phrases that `class_id` indexes: those of the request; for a caption, the distinct phrases
    that were found, in the order of their first detection. info: what came with the answer.
    """

    def __init__(
        self, items: Sequence[Detection], classes: Sequence[str], info: AnswerInfo, *, has_masks: bool
    ) -> None:
        self._items = tuple(items)
        self.classes = tuple(classes)
        self.info = info
        self._has_masks = has_masks

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[Detection]:
        return iter(self._items)

    @overload
    def __getitem__(self, index: int | np.integer[Any]) -> Detection: ...

    @overload
    def __getitem__(
        self, index: slice | Sequence[int] | Sequence[bool] | NDArray[np.bool_] | NDArray[np.integer[Any]]
    ) -> "Detections": ...

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, int | np.integer):
            return self._items[index]
        chosen = np.arange(len(self))[index if isinstance(index, slice) else self._indices(index)]
        items = [self._items[position] for position in chosen]
        return Detections(items, self.classes, self.info, has_masks=self._has_masks)

    def __repr__(self) -> str:
        return f"Detections({list(self._items)!r})"

    @property
    def width(self) -> int:
        """The width of the image in pixels."""
        return self.info.image.width

    @property
    def height(self) -> int:
        """The height of the image in pixels."""
        return self.info.image.height

    @property
    def phrases(self) -> list[str]:
        """The phrase of each object."""
        return [item.phrase for item in self]

    @cached_property
    def xyxy(self) -> NDArray[np.float32]:
        """The boxes: float32 [N, 4], x_min, y_min, x_max, y_max in pixels of the image."""
        return np.array([item.box for item in self], np.float32).reshape(-1, 4)

    @cached_property
    def confidence(self) -> NDArray[np.float32]:
        """The scores: float32 [N], 0 to 1."""
        return np.array([item.score for item in self], np.float32)

    @cached_property
    def class_id(self) -> NDArray[np.int64]:
        """The index of each object's phrase in `classes`: int [N]."""
        indices = [
            self.classes.index(item.phrase) if item.phrase_index is None else item.phrase_index
            for item in self
        ]
        return np.array(indices, np.int64)

    @cached_property
    def masks(self) -> NDArray[np.bool_] | None:
        """The masks: bool [N, H, W], decoded at the first access; None for the answers of `detect`."""
        if not self._has_masks:
            return None
        masks = np.zeros((len(self), self.height, self.width), np.bool_)
        for index, item in enumerate(self):
            assert item.mask is not None
            masks[index] = item.mask.pixels
        return masks

    def as_dicts(self) -> list[dict[str, Any]]:
        """Return what JSON holds."""
        return [item.as_dict() for item in self]

    def to_supervision(self) -> "supervision.Detections":
        """Return the objects as the package supervision has them, the phrases as `data["class_name"]`."""
        try:
            import supervision  # noqa: PLC0415
        except ImportError as error:
            raise ImportError(
                "to_supervision needs the package supervision: pip install supervision"
            ) from error
        return supervision.Detections(
            xyxy=self.xyxy.copy(),
            mask=None if self.masks is None else self.masks.copy(),
            confidence=self.confidence.copy(),
            class_id=self.class_id.copy(),
            data={"class_name": np.array(self.phrases, np.str_)},
        )

    def to_coco(self, image_id: int = 1, first_annotation_id: int = 1) -> list[dict[str, Any]]:
        """Return annotations of a COCO file, with scores; `CocoDataset` makes a whole file.

        Category ids are `class_id` + 1, and annotation ids should start at 1 too: COCO's own scoring takes 0
        for "no match". Boxes are x, y, width, height. Areas are those of the masks, or of the boxes if there
        are no masks.
        """
        sides = self.xyxy[:, 2:] - self.xyxy[:, :2]
        annotations = []
        for index, item in enumerate(self):
            width, height = map(float, sides[index])
            annotation = {
                "id": first_annotation_id + index,
                "image_id": image_id,
                "category_id": int(self.class_id[index]) + 1,
                "iscrowd": 0,
                "bbox": [float(item.box[0]), float(item.box[1]), width, height],
                "area": width * height,
                "score": item.score,
            }
            if item.mask is not None:
                annotation |= {"area": item.mask.area, "segmentation": dict(item.mask.rle)}
            annotations.append(annotation)
        return annotations

    def to_yolo(self) -> str:
        """Return a YOLO label file: per object a line of class_id, box centre and box size, 0 to 1."""
        size = np.array([self.width, self.height])
        centres = (self.xyxy[:, :2] + self.xyxy[:, 2:]) / 2 / size
        sides = (self.xyxy[:, 2:] - self.xyxy[:, :2]) / size
        lines = zip(self.class_id, np.hstack([centres, sides]), strict=True)
        return "".join(f"{index} {' '.join(f'{value:.6f}' for value in row)}\n" for index, row in lines)

    def plot(self, image: str | os.PathLike[str] | NDArray[np.uint8] | Image.Image) -> Image.Image:
        """Return a picture of the objects on their image, which is a path, RGB pixels or a Pillow image."""
        from visiongate import draw  # noqa: PLC0415

        picture = ImageOps.exif_transpose(_opened(image))
        if picture.size != (self.width, self.height):
            raise ValueError(
                f"the image is {picture.width}x{picture.height} pixels, and that of the objects is "
                f"{self.width}x{self.height}"
            )
        return draw.draw(picture, self.drawn())

    def drawn(self) -> "list[draw.Item]":
        """Return the objects as `visiongate.draw` takes them, a colour for each class."""
        from visiongate import draw  # noqa: PLC0415

        return [
            draw.Item(
                int(group),
                f"{item.phrase} {item.score:.2f}",
                box=item.box,
                mask=None if item.mask is None else item.mask.pixels,
            )
            for group, item in zip(self.class_id, self, strict=True)
        ]

    def _indices(self, index: ArrayLike) -> NDArray[Any]:
        chosen = np.asarray(index)
        if not chosen.size:
            chosen = chosen.astype(np.int64)
        if chosen.ndim != 1 or chosen.dtype.kind not in "iub":
            raise TypeError(
                "objects are picked by an integer, a slice, or a list or array [n] of integers or booleans"
            )
        if chosen.dtype.kind == "b" and len(chosen) != len(self):
            raise IndexError(f"{len(chosen)} booleans cannot pick from {len(self)} objects")
        return chosen


def _opened(image: str | os.PathLike[str] | NDArray[np.uint8] | Image.Image) -> Image.Image:
    if isinstance(image, Image.Image):
        return image
    if isinstance(image, np.ndarray):
        return Image.fromarray(image)
    with Image.open(Path(image)) as opened:
        opened.load()
        return opened
