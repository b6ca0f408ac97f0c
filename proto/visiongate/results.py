"""What the client's methods return, and the error that they raise."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, NewType

import grpc
import numpy as np
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from numpy.typing import NDArray

ImageId = NewType("ImageId", str)
"""The name under which the server keeps an image, from `Client.encode_image`."""


class VisiongateError(Exception):
    """A call that failed.

    `code` is the gRPC status, `field` the part of the request that is wrong (INVALID_ARGUMENT),
    `reason` a fixed word for programs, such as IMAGE_NOT_CACHED. Either is empty where it does not apply.
    """

    def __init__(self, code: grpc.StatusCode, message: str, field: str = "", reason: str = "") -> None:
        super().__init__(f"{code.name}: {message}")
        self.code = code
        self.message = message
        self.field = field
        self.reason = reason

    @classmethod
    def from_rpc(cls, error: grpc.RpcError) -> "VisiongateError":
        """Reads the status and its details out of gRPC's own exception."""
        assert isinstance(error, grpc.Call | grpc.aio.AioRpcError)
        field = reason = ""
        # Of both the sync and the asyncio exception: code(), details(), trailing_metadata().
        status = rpc_status.from_call(error)  # type: ignore[arg-type]
        for detail in status.details if status else ():
            bad_request, info = error_details_pb2.BadRequest(), error_details_pb2.ErrorInfo()
            if detail.Unpack(bad_request):
                field = bad_request.field_violations[0].field
            elif detail.Unpack(info):
                reason = info.reason
        return cls(error.code(), error.details() or "no details", field, reason)


@dataclass(frozen=True, eq=False, slots=True)
class Detection:
    """An object: `box` float32 [4], x_min, y_min, x_max, y_max in pixels of the image.

    `phrase_index` is the phrase's place in the request, None where the request gave a caption.
    """

    box: NDArray[np.float32]
    phrase: str
    score: float
    phrase_index: int | None

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "phrase": self.phrase,
            "phrase_index": self.phrase_index,
            "score": round(self.score, 4),
            "box": [round(float(value), 2) for value in self.box],
        }


@dataclass(frozen=True, eq=False, slots=True)
class Mask:
    """Pixels of an object: `pixels` bool [H, W] of the image's size.

    box: int [4] around them, right and bottom edges exclusive. rle: COCO's compressed run lengths,
    {"size": [H, W], "counts": str}. logits: float32 [m, m] where asked for, else None; a later prompt
    takes them to refine the mask.
    """

    pixels: NDArray[np.bool_]
    predicted_iou: float
    box: NDArray[np.int64]
    area: int
    rle: Mapping[str, Any]
    logits: NDArray[np.float32] | None

    def as_dict(self) -> dict[str, Any]:
        """For JSON: the pixels as run lengths."""
        return {
            "predicted_iou": round(self.predicted_iou, 4),
            "area": self.area,
            "box": self.box.tolist(),
            "rle": dict(self.rle),
        }


@dataclass(frozen=True, eq=False, slots=True)
class SegmentedObject:
    """An object that words named, and its mask."""

    detection: Detection
    mask: Mask

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return self.detection.as_dict() | {"mask": self.mask.as_dict()}


@dataclass(frozen=True, slots=True)
class EncodedImage:
    """An image that the server keeps: give `image_id` to later calls instead of the image."""

    image_id: ImageId
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Model:
    """A model variant that the server offers; `variant` is what a `model` argument takes."""

    task: str
    family: str
    variant: str
    is_default: bool
    ready: bool
    input_size: int

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)
