"""Where faces look: YuNet finds them, L2CS-Net tells their gaze."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gateway.cache import Keep
from gateway.call import stage
from gateway.catalog import Family, Role, Variant
from gateway.concurrency import gather
from gateway.errors import InputError
from gateway.models import face_detection
from gateway.models.face_detection import DetectedFace, YuNetSpec
from gateway.models.gaze import GazeSpec
from gateway.pipelines.image_lists import Found, work_on_images
from gateway.pipelines.images import ImageSource, LoadedImage
from gateway.pipelines.resources import Resources

_FACE_DETECTOR = Role(
    "face_detection",
    inputs={"image": ("UINT8", 4)},
    outputs=dict.fromkeys(face_detection.OUTPUTS, ("FP32", 3)),
    finite=tuple(face_detection.OUTPUTS),
)
_GAZE_NETWORK = Role(
    "gaze", inputs={"face": ("UINT8", 4)}, outputs={"yaw_pitch": ("FP32", 2)}, finite=("yaw_pitch",)
)
# Two families, not one with two roles: each has variants of its own, and a caller may give the faces.
FACE_DETECTION = Family("face_detection", "gaze", (_FACE_DETECTOR,), YuNetSpec.from_parameters)
GAZE = Family("gaze", "gaze", (_GAZE_NETWORK,), GazeSpec.from_parameters)


FoundFace = tuple[DetectedFace, NDArray[np.float32]]
"""A face, and the yaw and pitch [2] of its gaze in radians."""


@dataclass(frozen=True, slots=True)
class FaceQuery:
    """Which faces to find."""

    min_score: float
    nms_iou_threshold: float
    max_faces: int
    small_faces: bool


class GazeEstimator:
    """The face detector and the gaze network in front of Triton."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources

    async def find_and_estimate_each(
        self,
        sources: Sequence[ImageSource | InputError],
        query: FaceQuery,
        face_detection_model: Variant[YuNetSpec],
        gaze_model: Variant[GazeSpec],
        *,
        strict: bool,
    ) -> list[Found[FoundFace] | InputError]:
        """Return the faces of each image, best first, each with its gaze (see `estimate`).

        Images are worked on as `work_on_images` says.
        """

        async def find_and_estimate(source: ImageSource, keep: Keep) -> Found[FoundFace]:
            image = await self._resources.images.load(source, keep=keep)
            faces = await self._find(image, query, face_detection_model)
            gazes = await self.estimate(image, [face.box for face in faces], gaze_model)
            return Found(image.info, list(zip(faces, gazes, strict=True)))

        return await work_on_images(self._resources, find_and_estimate, sources, strict=strict)

    async def estimate(
        self, image: LoadedImage, boxes: Sequence[NDArray[np.float32]], model: Variant[GazeSpec]
    ) -> NDArray[np.float32]:
        """Return yaw and pitch [n,2] in radians of the faces in n boxes, each float32 [4] xyxy in pixels."""
        batch_size = model.max_batch_sizes[_GAZE_NETWORK.name]
        # While one chunk is in the network, the next is cut out. The setting bounds how many are held.
        slots = asyncio.Semaphore(self._resources.settings.batches_in_flight)

        async def estimate_chunk(chunk: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
            async with slots, self._resources.working_room(sent=3 * model.spec.face_size**2 * len(chunk)):
                with stage("preprocess"):
                    faces = await self._resources.threads.run(
                        lambda: np.stack([model.spec.crop(image.pixels, box) for box in chunk])
                    )
                tensors = await self._resources.infer(model, _GAZE_NETWORK, {"face": faces})
                return tensors["yaw_pitch"]

        chunks = [boxes[start : start + batch_size] for start in range(0, len(boxes), batch_size)]
        gazes = await gather(estimate_chunk(chunk) for chunk in chunks)
        return np.concatenate([np.zeros((0, 2), np.float32), *gazes])

    async def _find(
        self, image: LoadedImage, query: FaceQuery, model: Variant[YuNetSpec]
    ) -> list[DetectedFace]:
        spec, threads = model.spec, self._resources.threads
        side = spec.small_faces_canvas if query.small_faces else spec.canvas
        async with self._resources.working_room(pixels=image.width * image.height, sent=3 * side**2):
            with stage("preprocess"):
                canvas, valid_size = await threads.run(
                    spec.preprocess, image.pixels, small_faces=query.small_faces
                )
            heads = await self._resources.infer(model, _FACE_DETECTOR, {"image": canvas[None]})
        with stage("postprocess"):
            return await threads.run(
                spec.postprocess,
                {name: tensor[0] for name, tensor in heads.items()},
                valid_size,
                image.size,
                min_score=query.min_score,
                nms_iou_threshold=query.nms_iou_threshold,
                max_faces=query.max_faces,
            )
