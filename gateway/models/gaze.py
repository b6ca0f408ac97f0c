"""L2CS-Net: a face's box to the crop that the network looks at, its two angles to a direction.

Agrees with the pipeline of L2CS-Net's authors (Ahmednull/L2CS-Net, l2cs/pipeline.py and utils.py), where the
angles have each other's names: what it calls pitch is the yaw, as in the labels that it was trained on
(GazeHub's Gaze360, whose `gaze2d` is yaw, pitch).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import cv2
import numpy as np
from numpy.typing import NDArray

from gateway.models import image as images


@dataclass(frozen=True, slots=True)
class GazeSpec:
    """Sides of squares, in pixels: of the network's input, and of what a crop is squeezed into before that.

    L2CS-Net saw faces of 224 pixels, enlarged to 448: sharper ones are not what it was trained on.
    """

    face_size: int
    crop_size: int

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, str]) -> Self:
        """Read `face_size` and `crop_size`; ValueError names the one that is missing or wrong."""
        return cls(_positive(parameters, "face_size"), _positive(parameters, "crop_size"))

    @property
    def input_size(self) -> int:
        """Longest side that faces are resized to, in pixels."""
        return self.face_size

    def crop(self, image: NDArray[np.uint8], box: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Cut the box float32 [4] xyxy out of RGB uint8 [H,W,3] and stretch it to a square [S,S,3].

        The box goes to whole pixels as the authors' does, towards zero, and is clipped to the image; what
        is less than a pixel wide or high becomes one pixel, where the authors' pipeline fails. First
        OpenCV's bilinear resize to `crop_size`, which does not widen its filter when it shrinks, then
        Pillow's to `face_size`.
        """
        height, width = image.shape[:2]
        x_min, y_min, x_max, y_max = (int(value) for value in box)
        x_min, y_min = min(max(x_min, 0), width - 1), min(max(y_min, 0), height - 1)
        x_max, y_max = min(max(x_max, x_min + 1), width), min(max(y_max, y_min + 1), height)
        face = np.ascontiguousarray(image[y_min:y_max, x_min:x_max])
        squeezed = np.asarray(cv2.resize(face, (self.crop_size, self.crop_size)), np.uint8)
        return images.resize(squeezed, (self.face_size, self.face_size))


def direction(yaw_pitch: NDArray[np.float32]) -> NDArray[np.float32]:
    """Unit vectors [...,3] of (yaw, pitch) [...,2] in radians: x right, y down, z away from the camera.

    The authors' `gazeto3d`; x and y are what their `draw_gaze` draws.
    """
    yaw, pitch = yaw_pitch[..., 0], yaw_pitch[..., 1]
    x = -np.cos(pitch) * np.sin(yaw)
    y = -np.sin(pitch)
    z = -np.cos(pitch) * np.cos(yaw)
    return np.stack([x, y, z], axis=-1)


def _positive(parameters: Mapping[str, str], name: str) -> int:
    text = parameters.get(name)
    if text is None:
        raise ValueError(f"The model has no parameter {name!r}.")
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise ValueError(f"Parameter {name!r} is {text!r}; it must be a positive whole number.")
    return int(text)
