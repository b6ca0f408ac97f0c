"""L2CS-Net: a face's box to the network's input crop, the network's two angles to a direction.

Agrees with the pipeline of L2CS-Net's authors (Ahmednull/L2CS-Net, l2cs/pipeline.py and utils.py). That
pipeline swaps the names of the angles: its pitch is the yaw of the labels that the network was trained on
(GazeHub's Gaze360, whose `gaze2d` is yaw, pitch). Here each angle has its right name.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import cv2
import numpy as np
from numpy.typing import NDArray

from gateway.models.parameters import ParameterReader
from gateway.models.resizing import resize


@dataclass(frozen=True, slots=True)
class GazeSpec:
    """Sides of squares, in pixels.

    face_size: of the network's input. crop_size: to which a crop is resized before that. L2CS-Net was trained
    on faces of 224 pixels, enlarged to 448, and not on sharper ones.
    """

    face_size: int
    crop_size: int

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, str], folder: Path) -> Self:
        """Read `face_size` and `crop_size`; raise ValueError that names the one that is missing or wrong."""
        reader = ParameterReader(parameters)
        return cls(reader.whole_number("face_size"), reader.whole_number("crop_size"))

    @property
    def input_size(self) -> int:
        """Longest side, in pixels, that faces are resized to."""
        return self.face_size

    def crop(self, image: NDArray[np.uint8], box: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Cut the box float32 [4] xyxy out of RGB uint8 [H,W,3] and stretch it to a square [S,S,3].

        The box is rounded towards zero to whole pixels, as by the authors, and clipped to the image. A side
        of less than a pixel becomes one pixel; the authors' pipeline fails there. Two resizes follow:
        OpenCV's bilinear one to `crop_size`, which does not widen its filter when it shrinks, then Pillow's
        to `face_size`.
        """
        height, width = image.shape[:2]
        x_min, y_min, x_max, y_max = (int(value) for value in box)
        x_min, y_min = min(max(x_min, 0), width - 1), min(max(y_min, 0), height - 1)
        x_max, y_max = min(max(x_max, x_min + 1), width), min(max(y_max, y_min + 1), height)
        face = np.ascontiguousarray(image[y_min:y_max, x_min:x_max])
        crop = np.asarray(cv2.resize(face, (self.crop_size, self.crop_size)), np.uint8)
        return resize(crop, (self.face_size, self.face_size))


def direction(yaw_pitch: NDArray[np.float32]) -> NDArray[np.float32]:
    """Turn (yaw, pitch) [...,2] in radians into unit vectors [...,3].

    x points to the right, y down, z away from the camera. Agrees with the authors' `gazeto3d`; x and y are
    what their `draw_gaze` draws.
    """
    yaw, pitch = yaw_pitch[..., 0], yaw_pitch[..., 1]
    x = -np.cos(pitch) * np.sin(yaw)
    y = -np.sin(pitch)
    z = -np.cos(pitch) * np.cos(yaw)
    return np.stack([x, y, z], axis=-1)
