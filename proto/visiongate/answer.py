"""What comes with every answer: the call's id, the models that answered, the images as read, the timings."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from visiongate.errors import VisiongateError

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Timings:
    """Milliseconds that the stages of a call took on the server.

    decode_ms: reading image files. preprocess_ms: resizing, tokenizing. inference_ms: waiting for the models.
    postprocess_ms: turning tensors into answers. Images that are handled side by side each count in full, so
    the sum can be more than the call took.
    """

    decode_ms: float
    preprocess_ms: float
    inference_ms: float
    postprocess_ms: float


@dataclass(frozen=True, slots=True)
class ImageInfo:
    """An image as the server read it: the caller's name for it, and its upright size in pixels."""

    image_id: str
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class AnswerInfo:
    """What comes with an answer.

    request_id: what the server's log calls the call.
    model: the variant that answered; empty for `list_models`.
    detection_model: the variant that found what `model` was asked about: objects for `segment_phrases`, faces
    for `estimate_gaze`. Empty for other methods, and if the caller gave the faces.
    images: the images of the call. If the call was about a list, images[i] belongs to item i, and is None if
    that item is a text or has an error. Empty if the method takes no images.
    timings: None for `list_models`.
    errors: the errors of single items by their index in the list; see `strict` of the methods.
    subject_image: the first argument of `compare`, if it is an image; None for other methods.
    """

    request_id: str = ""
    model: str = ""
    detection_model: str = ""
    images: tuple[ImageInfo | None, ...] = ()
    timings: Timings | None = None
    errors: Mapping[int, VisiongateError] = field(default_factory=dict, hash=False)
    subject_image: ImageInfo | None = None

    @property
    def image(self) -> ImageInfo:
        """The image of a call about one image; ValueError for a call about none or several."""
        if len(self.images) != 1:
            raise ValueError(f"the answer is about {len(self.images)} images: see `images`")
        (image,) = self.images
        if image is None:
            raise ValueError("the answer has no image: see `errors`")
        return image


class Answer(list[Item]):
    """A list of results. `info` is what came with them."""

    __slots__ = ("info",)

    def __init__(self, items: Iterable[Item], info: AnswerInfo) -> None:
        super().__init__(items)
        self.info = info

    @property
    def errors(self) -> Mapping[int, VisiongateError]:
        """The errors of single items by their index; empty unless the call had `strict=False`."""
        return self.info.errors


class ArrayAnswer(np.ndarray[Any, np.dtype[np.float32]]):
    """A float32 array. `info` is what came with it.

    Views of it, such as rows, keep the `info`. What is computed from it is a plain array.
    """

    info: AnswerInfo

    def __new__(cls, values: NDArray[np.float32], info: AnswerInfo) -> "ArrayAnswer":
        array = values.view(cls)
        array.info = info
        return array

    @property
    def errors(self) -> Mapping[int, VisiongateError]:
        """The errors of single items by their index; empty unless the call had `strict=False`."""
        return self.info.errors

    def __array_finalize__(self, source: Any) -> None:
        self.info = getattr(source, "info", AnswerInfo())

    def __array_wrap__(self, array: Any, context: Any = None, return_scalar: bool = False) -> Any:
        return array[()] if return_scalar else np.asarray(array)

    # By default NumPy pickles no attributes.
    def __reduce__(self) -> Any:
        return ArrayAnswer, (np.asarray(self), self.info)
