"""SegmentationService: protobuf in, `Segmenter`, protobuf out."""

from collections.abc import Callable, Mapping

import numpy as np

from gateway import messages
from gateway.errors import InvalidArgumentError
from gateway.models.sam import BACKGROUND, FOREGROUND, Prompt
from gateway.models.sam_everything import GridOptions
from gateway.pipelines.core import Call, Core, LoadedImage
from gateway.pipelines.everything import EverythingSegmenter
from gateway.pipelines.segmentation import SAM, Segmenter
from gateway.services.service import Context, Service
from visiongate.v1 import image_pb2, segmentation_service_pb2, segmentation_service_pb2_grpc

MAX_POINTS = 64
MAX_POINTS_PER_SIDE = 128
MAX_CROP_LAYERS = 3
MAX_STABILITY_OFFSET = 100
# What each number of SegmentEverything may be.
CHOICE_LIMITS: Mapping[str, tuple[Callable[[float], bool], str]] = {
    "points_per_side": (
        lambda value: 1 <= value <= MAX_POINTS_PER_SIDE,
        f"1 to {MAX_POINTS_PER_SIDE}",
    ),
    "crop_layers": (lambda value: value <= MAX_CROP_LAYERS, f"0 to {MAX_CROP_LAYERS}"),
    "crop_overlap_ratio": (lambda value: 0 <= value < 1, "0 to less than 1"),
    "crop_points_downscale": (
        lambda value: 1 <= value <= MAX_POINTS_PER_SIDE,
        f"1 to {MAX_POINTS_PER_SIDE}",
    ),
    "min_predicted_iou": (lambda value: 0 <= value <= 1, "0 to 1"),
    "min_stability_score": (lambda value: 0 <= value <= 1, "0 to 1"),
    "stability_offset": (
        lambda value: 0 < value <= MAX_STABILITY_OFFSET,
        f"over 0, to {MAX_STABILITY_OFFSET}",
    ),
    "nms_iou_threshold": (lambda value: 0 <= value <= 1, "0 to 1"),
    "min_mask_area": (lambda value: value >= 0, "0 or more"),
    "min_region_area": (lambda value: value >= 0, "0 or more"),
    "max_masks": (lambda value: value >= 1, "1 or more"),
}
POINT_LABELS = {
    segmentation_service_pb2.POINT_LABEL_FOREGROUND: FOREGROUND,
    segmentation_service_pb2.POINT_LABEL_BACKGROUND: BACKGROUND,
}


class SegmentationService(segmentation_service_pb2_grpc.SegmentationServiceServicer):
    """Masks of what prompts and words point at."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._segmenter = Segmenter(core)
        self._everything = EverythingSegmenter(core, self._segmenter)

    async def SegmentRegions(  # noqa: N802
        self, request: segmentation_service_pb2.SegmentRegionsRequest, context: Context
    ) -> segmentation_service_pb2.SegmentRegionsResponse:
        call = Call()
        write = messages.mask_writer(request.mask_format)
        if len(request.prompts) > self._core.settings.max_prompts:
            raise InvalidArgumentError(
                "prompts",
                f"has {len(request.prompts)} prompts; the limit is {self._core.settings.max_prompts}",
            )
        model = self._segmenter.choose(request.model)
        source = messages.image_source(request.image, self._core.settings)
        image = await self._core.load_image(source, call)
        prompts = [
            _prompt(prompt, image, f"prompts[{index}]") for index, prompt in enumerate(request.prompts)
        ]
        regions = await self._segmenter.segment(
            image,
            prompts,
            model,
            call,
            write=write,
            multimask=request.multimask,
            with_logits=request.include_logits,
        )
        return segmentation_service_pb2.SegmentRegionsResponse(
            regions=[
                segmentation_service_pb2.Region(masks=map(messages.mask_message, masks)) for masks in regions
            ],
            image=messages.image_message(image),
            timings=messages.timings_message(call, request.include_timings),
            model=model.name,
        )

    async def SegmentPhrases(  # noqa: N802
        self, request: segmentation_service_pb2.SegmentPhrasesRequest, context: Context
    ) -> segmentation_service_pb2.SegmentPhrasesResponse:
        call = Call()
        write = messages.mask_writer(request.mask_format)
        query = messages.object_query(request.query, self._core.settings)
        segmentation_model = self._segmenter.choose(request.segmentation_model, "segmentation_model")
        detection_model = self._segmenter.choose_detector(request.detection_model, "detection_model")
        source = messages.image_source(request.image, self._core.settings)
        image = await self._core.load_image(source, call)
        objects = await self._segmenter.segment_phrases(
            image, query, detection_model, segmentation_model, call, write=write
        )
        return segmentation_service_pb2.SegmentPhrasesResponse(
            objects=[
                segmentation_service_pb2.SegmentedObject(
                    detection=messages.detection_message(detection), mask=messages.mask_message(mask)
                )
                for detection, mask in objects
            ],
            image=messages.image_message(image),
            timings=messages.timings_message(call, request.include_timings),
            detection_model=detection_model.name,
            segmentation_model=segmentation_model.name,
        )

    async def SegmentEverything(  # noqa: N802
        self, request: segmentation_service_pb2.SegmentEverythingRequest, context: Context
    ) -> segmentation_service_pb2.SegmentEverythingResponse:
        call = Call()
        write = messages.mask_writer(request.mask_format)
        choice = _choice(request)
        model = self._segmenter.choose(request.model)
        source = messages.image_source(request.image, self._core.settings)
        image = await self._core.load_image(source, call)
        found = await self._everything.segment(image, choice, model, call, write=write)
        return segmentation_service_pb2.SegmentEverythingResponse(
            masks=[
                segmentation_service_pb2.GridMask(
                    mask=messages.mask_message(item.mask),
                    stability_score=item.stability_score,
                    point=image_pb2.Point(x=item.point[0], y=item.point[1]),
                )
                for item in found
            ],
            image=messages.image_message(image),
            timings=messages.timings_message(call, request.include_timings),
            model=model.name,
        )

    async def EncodeImage(  # noqa: N802
        self, request: segmentation_service_pb2.EncodeImageRequest, context: Context
    ) -> segmentation_service_pb2.EncodeImageResponse:
        call = Call()
        model = self._segmenter.choose(request.model)
        source = messages.image_source(request.image, self._core.settings)
        image = await self._core.load_image(source, call)
        await self._segmenter.embed(image, model, call)
        return segmentation_service_pb2.EncodeImageResponse(
            image=messages.image_message(image),
            timings=messages.timings_message(call, request.include_timings),
            model=model.name,
        )


SERVICE = Service(
    segmentation_service_pb2.DESCRIPTOR.services_by_name["SegmentationService"].full_name,
    (SAM,),
    lambda core, server: segmentation_service_pb2_grpc.add_SegmentationServiceServicer_to_server(
        SegmentationService(core), server
    ),
)


def _choice(request: segmentation_service_pb2.SegmentEverythingRequest) -> GridOptions:
    """What the request asks for; what it leaves out keeps its default."""
    given = {
        descriptor.name: value
        for descriptor, value in request.ListFields()
        if descriptor.name in CHOICE_LIMITS
    }
    for name, value in given.items():
        is_right, limit = CHOICE_LIMITS[name]
        if not is_right(value):  # NaN fails too
            raise InvalidArgumentError(name, f"is {messages.written(value)}; it must be {limit}")
    return GridOptions(**given)


def _prompt(prompt: segmentation_service_pb2.Prompt, image: LoadedImage, field: str) -> Prompt:
    if not prompt.points and not prompt.HasField("box"):
        raise InvalidArgumentError(field, "has neither points nor a box")
    if len(prompt.points) > MAX_POINTS:
        raise InvalidArgumentError(
            f"{field}.points", f"has {len(prompt.points)} points; the limit is {MAX_POINTS}"
        )
    points = np.zeros((len(prompt.points), 2), np.float32)
    labels = np.zeros(len(prompt.points), np.int32)
    for index, item in enumerate(prompt.points):
        here = f"{field}.points[{index}]"
        messages.check_inside(item.point.x, image.width, f"{here}.point.x")
        messages.check_inside(item.point.y, image.height, f"{here}.point.y")
        if item.label == segmentation_service_pb2.POINT_LABEL_UNSPECIFIED:
            raise InvalidArgumentError(
                f"{here}.label",
                "is not set: POINT_LABEL_FOREGROUND is on the object, POINT_LABEL_BACKGROUND off it",
            )
        if item.label not in POINT_LABELS:
            raise InvalidArgumentError(f"{here}.label", f"{item.label} is not a known label")
        points[index] = item.point.x, item.point.y
        labels[index] = POINT_LABELS[item.label]
    box = messages.box_array(prompt.box, image, f"{field}.box") if prompt.HasField("box") else None
    if box is None and FOREGROUND not in labels:
        raise InvalidArgumentError(
            f"{field}.points", "are all background: say with a point or a box what the object is"
        )
    return Prompt(points, labels, box, _mask_logits(prompt, f"{field}.mask_logits"))


def _mask_logits(
    prompt: segmentation_service_pb2.Prompt, field: str
) -> np.ndarray[tuple[int, int], np.dtype[np.float32]] | None:
    if not prompt.HasField("mask_logits"):
        return None
    logits = prompt.mask_logits
    if len(logits.data) != logits.height * logits.width * 4:
        raise InvalidArgumentError(
            f"{field}.data",
            f"has {len(logits.data)} bytes, not height {logits.height} x width {logits.width} x 4",
        )
    values = np.frombuffer(logits.data, "<f4").reshape(logits.height, logits.width)
    if not np.isfinite(values).all():
        raise InvalidArgumentError(f"{field}.data", "has a value that is not finite")
    return values
