"""Where faces look: YuNet finds them, L2CS-Net tells their gaze."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gateway.catalog import Family, Role, Variant
from gateway.errors import NoModelError
from gateway.models import face_detection
from gateway.models.face_detection import DetectedFace, YuNetSpec
from gateway.models.gaze import GazeSpec
from gateway.pipelines.core import Call, Core, LoadedImage, gather

# Two families and not one with two roles: either has variants of its own, and faces may be given.
FACE_DETECTION = Family(
    "face_detection",
    "gaze",
    (
        Role(
            "face_detection",
            inputs={"image": ("UINT8", 4)},
            outputs=dict.fromkeys(face_detection.OUTPUTS, ("FP32", 3)),
        ),
    ),
    YuNetSpec.from_parameters,
)
GAZE = Family(
    "gaze",
    "gaze",
    (Role("gaze", inputs={"face": ("UINT8", 4)}, outputs={"yaw_pitch": ("FP32", 2)}),),
    GazeSpec.from_parameters,
)


@dataclass(frozen=True, slots=True)
class FaceQuery:
    """Which faces to find."""

    min_score: float
    nms_iou_threshold: float
    max_faces: int
    small_faces: bool


class GazeEstimator:
    """The face detector and the gaze network in front of Triton."""

    def __init__(self, core: Core) -> None:
        self._core = core

    def choose(self, variant: str) -> Variant[GazeSpec]:
        """The gaze network of that name, or the default one for an empty name."""
        return self._core.catalog.choose(GAZE, variant, GazeSpec)

    def choose_finder(self, variant: str) -> Variant[YuNetSpec]:
        """The face detector of that name, or the default one for an empty name."""
        catalog = self._core.catalog
        if not catalog.has(FACE_DETECTION):
            raise NoModelError("finding faces: give their boxes")
        return catalog.choose(FACE_DETECTION, variant, YuNetSpec, "face_detection_model")

    async def find_and_estimate(
        self,
        image: LoadedImage,
        query: FaceQuery,
        finder: Variant[YuNetSpec],
        model: Variant[GazeSpec],
        call: Call,
    ) -> list[tuple[DetectedFace, NDArray[np.float32]]]:
        """Faces, best first, each with its gaze (see `estimate`)."""
        faces = await self._find(image, query, finder, call)
        gazes = await self.estimate(image, [face.box for face in faces], model, call)
        return list(zip(faces, gazes, strict=True))

    async def estimate(
        self, image: LoadedImage, boxes: Sequence[NDArray[np.float32]], model: Variant[GazeSpec], call: Call
    ) -> NDArray[np.float32]:
        """Yaw and pitch [n,2], in radians, of the faces in n boxes, each float32 [4] xyxy in pixels."""
        batch = model.max_batch_sizes["gaze"]
        # Two chunks at a time: one is in the network while the next is cut out, and no more are held.
        slots = asyncio.Semaphore(2)

        async def look(chunk: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
            async with slots:
                with call.stage("preprocess"):
                    faces = await self._core.run(
                        lambda: np.stack([model.spec.crop(image.pixels, box) for box in chunk])
                    )
                with call.stage("inference"):
                    tensors = await self._core.triton.infer(
                        model.triton_models["gaze"], {"face": faces}, ("yaw_pitch",)
                    )
                return tensors["yaw_pitch"]

        chunks = [boxes[start : start + batch] for start in range(0, len(boxes), batch)]
        return np.concatenate([np.zeros((0, 2), np.float32), *await gather(look(chunk) for chunk in chunks)])

    async def _find(
        self, image: LoadedImage, query: FaceQuery, model: Variant[YuNetSpec], call: Call
    ) -> list[DetectedFace]:
        with call.stage("preprocess"):
            canvas, valid_size = await self._core.run(
                model.spec.preprocess, image.pixels, small_faces=query.small_faces
            )
        with call.stage("inference"):
            heads = await self._core.triton.infer(
                model.triton_models["face_detection"], {"image": canvas[None]}, face_detection.OUTPUTS
            )
        with call.stage("postprocess"):
            return await self._core.run(
                model.spec.postprocess,
                {name: tensor[0] for name, tensor in heads.items()},
                valid_size,
                image.size,
                min_score=query.min_score,
                nms_iou_threshold=query.nms_iou_threshold,
                max_faces=query.max_faces,
            )
