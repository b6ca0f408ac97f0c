"""SegmentationService: protobuf in, `Segmenter`, protobuf out."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from gateway.admission import weigh
from gateway.catalog import Variant
from gateway.errors import AnswerTooLargeError, InputError, InvalidArgumentError, ListTooLargeError
from gateway.models.sam import SamSpec
from gateway.models.sam_everything import GridOptions
from gateway.pipelines.detection import GROUNDING_DINO
from gateway.pipelines.everything import EverythingSegmenter, GridMask, TooManyPointsError, max_points
from gateway.pipelines.image_lists import Found
from gateway.pipelines.images import LoadedImage
from gateway.pipelines.items import usable
from gateway.pipelines.resources import Resources
from gateway.pipelines.segmentation import SAM, SegmentedObject, Segmenter, ViewedImage
from gateway.services.messages.checks import FRACTION, Range, check_count
from gateway.services.messages.detections import detection_message, object_query, words_path
from gateway.services.messages.fields import PathOf, field, item_error
from gateway.services.messages.geometry import point_message
from gateway.services.messages.images import (
    image_message,
    image_path,
    image_paths,
    image_paths_of_one,
    image_source,
    image_sources,
)
from gateway.services.messages.lists import IMAGES_OF_A_PLACE, found_count
from gateway.services.messages.masks import logits_type, mask_format, mask_message, masks_size
from gateway.services.messages.prompts import placed, prompts_of
from gateway.services.messages.timings import timings_message
from gateway.services.service import Context, Service
from visiongate.v1 import image_pb2, segmentation_service_pb2, segmentation_service_pb2_grpc

PhrasesRequest = (
    segmentation_service_pb2.SegmentPhrasesRequest | segmentation_service_pb2.BatchSegmentPhrasesRequest
)
EverythingRequest = (
    segmentation_service_pb2.SegmentEverythingRequest | segmentation_service_pb2.BatchSegmentEverythingRequest
)
Response = TypeVar("Response")

# A call counts as one for each so many: they take Triton about as long as one image.
PROMPTS_OF_A_PLACE, GRID_POINTS_OF_A_PLACE = 256, 1024
# What each number of SegmentEverything may be.
GRID_LIMITS: Mapping[str, Range] = {
    "points_per_side": Range(1, 128),
    "crop_layers": Range(0, 3),
    "crop_overlap_ratio": Range(0, 1, without_high=True),
    "crop_points_downscale": Range(1, 128),
    "min_predicted_iou": FRACTION,
    "min_stability_score": FRACTION,
    "stability_offset": Range(0, 100, without_low=True),
    "nms_iou_threshold": FRACTION,
    "min_mask_area": Range(0),
    "min_region_area": Range(0),
    "max_masks": Range(1),
}


class SegmentationService(segmentation_service_pb2_grpc.SegmentationServiceServicer):
    """Masks of what prompts and words point at."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        self._segmenter = Segmenter(resources)
        self._everything = EverythingSegmenter(resources, self._segmenter)

    async def SegmentRegions(  # noqa: N802
        self, request: segmentation_service_pb2.SegmentRegionsRequest, context: Context
    ) -> segmentation_service_pb2.SegmentRegionsResponse:
        resources = self._resources
        written = mask_format(request.mask_format)
        logits_type(request.logits_format, "logits_format")
        check_count(len(request.prompts), resources.settings.max_prompts, "prompts", "prompts")
        weigh(len(request.prompts), PROMPTS_OF_A_PLACE)
        with field("model"):
            model = resources.catalog.choose(SAM, request.model)
        run, size = resources.threads.run_if_large, len(request.prompts)
        prompts = await run(size, prompts_of, request.prompts)
        image = await self._load(request.image, model)
        prompts = await run(size, placed, prompts, request.prompts, image.info)
        with field("prompts"):
            regions = await self._segmenter.segment(
                image,
                prompts,
                model,
                mask_format=written,
                multimask=request.multimask,
                with_logits=request.include_logits,
            )

        def response() -> segmentation_service_pb2.SegmentRegionsResponse:
            return segmentation_service_pb2.SegmentRegionsResponse(
                regions=[
                    segmentation_service_pb2.Region(
                        masks=[mask_message(mask, request.logits_format) for mask in masks]
                    )
                    for masks in regions
                ],
                image=image_message(image.info),
                timings=timings_message(request.include_timings),
                model=model.name,
            )

        return await run(masks_size(written, size), response)

    async def SegmentPhrases(  # noqa: N802
        self, request: segmentation_service_pb2.SegmentPhrasesRequest, context: Context
    ) -> segmentation_service_pb2.SegmentPhrasesResponse:
        path = image_paths_of_one(request.image)
        models, items = await self._segment_phrases(request, [request.image], path, True)
        (found,) = usable(items)

        def response() -> segmentation_service_pb2.SegmentPhrasesResponse:
            return segmentation_service_pb2.SegmentPhrasesResponse(
                objects=map(_object_message, found.items),
                image=image_message(found.image),
                timings=timings_message(request.include_timings),
                **models,
            )

        return await self._written(request, items, response)

    async def BatchSegmentPhrases(  # noqa: N802
        self, request: segmentation_service_pb2.BatchSegmentPhrasesRequest, context: Context
    ) -> segmentation_service_pb2.BatchSegmentPhrasesResponse:
        check_count(len(request.images), self._resources.settings.max_images, "images", "images")
        weigh(len(request.images), IMAGES_OF_A_PLACE)
        path = image_paths(request.images, "images")
        models, items = await self._segment_phrases(request, request.images, path, request.strict)

        def response() -> segmentation_service_pb2.BatchSegmentPhrasesResponse:
            return segmentation_service_pb2.BatchSegmentPhrasesResponse(
                results=[_phrases_result(item, path(index)) for index, item in enumerate(items)],
                timings=timings_message(request.include_timings),
                **models,
            )

        return await self._written(request, items, response)

    async def _segment_phrases(
        self, request: PhrasesRequest, images: Sequence[image_pb2.Image], path: PathOf, strict: bool
    ) -> tuple[dict[str, str], list[Found[SegmentedObject] | InputError]]:
        """Return the names of the models by their fields, and the objects of each image."""
        resources = self._resources
        written = mask_format(request.mask_format)
        query = object_query(request.query, resources.settings)
        with field("segmentation_model"):
            segmentation_model = resources.catalog.choose(SAM, request.segmentation_model)
        with field("detection_model"):
            detection_model = resources.catalog.choose(GROUNDING_DINO, request.detection_model)
        with field(words_path(request.query)):
            text = await self._segmenter.detector.read(query, detection_model)
        sources = image_sources(images, resources.settings)
        with (
            field(path),
            field("query.max_detections", of=AnswerTooLargeError),
            field("images", of=ListTooLargeError),
        ):
            items = await self._segmenter.segment_objects_each(
                sources, text, query, detection_model, segmentation_model, mask_format=written, strict=strict
            )
        models = {"detection_model": detection_model.name, "segmentation_model": segmentation_model.name}
        return models, items

    async def SegmentEverything(  # noqa: N802
        self, request: segmentation_service_pb2.SegmentEverythingRequest, context: Context
    ) -> segmentation_service_pb2.SegmentEverythingResponse:
        path = image_paths_of_one(request.image)
        model, items = await self._segment_everything(request, [request.image], path, True)
        (found,) = usable(items)

        def response() -> segmentation_service_pb2.SegmentEverythingResponse:
            return segmentation_service_pb2.SegmentEverythingResponse(
                masks=map(_grid_mask_message, found.items),
                image=image_message(found.image),
                timings=timings_message(request.include_timings),
                model=model.name,
            )

        return await self._written(request, items, response)

    async def BatchSegmentEverything(  # noqa: N802
        self, request: segmentation_service_pb2.BatchSegmentEverythingRequest, context: Context
    ) -> segmentation_service_pb2.BatchSegmentEverythingResponse:
        check_count(len(request.images), self._resources.settings.max_images, "images", "images")
        path = image_paths(request.images, "images")
        model, items = await self._segment_everything(request, request.images, path, request.strict)

        def response() -> segmentation_service_pb2.BatchSegmentEverythingResponse:
            return segmentation_service_pb2.BatchSegmentEverythingResponse(
                results=[_everything_result(item, path(index)) for index, item in enumerate(items)],
                timings=timings_message(request.include_timings),
                model=model.name,
            )

        return await self._written(request, items, response)

    async def _segment_everything(
        self, request: EverythingRequest, images: Sequence[image_pb2.Image], path: PathOf, strict: bool
    ) -> tuple[Variant[SamSpec], list[Found[GridMask] | InputError]]:
        """Return the model that the request chooses, and the masks of each image."""
        resources = self._resources
        written = mask_format(request.mask_format)
        options = _grid_options(request)
        points, limit = len(images) * max_points(options), resources.settings.max_grid_points
        if len(images) > 1 and points > limit:
            raise InvalidArgumentError(
                "images", f"have {points} points of their grids together; the limit is {limit}: send fewer"
            )
        weigh(len(images) * options.points_per_side**2 * 5**options.crop_layers, GRID_POINTS_OF_A_PLACE)
        with field("model"):
            model = resources.catalog.choose(SAM, request.model)
        sources = image_sources(images, resources.settings)
        with (
            field(path),
            field("points_per_side", of=TooManyPointsError),
            field("max_masks", of=AnswerTooLargeError),
            field("images", of=ListTooLargeError),
        ):
            return model, await self._everything.segment_each(
                sources, options, model, mask_format=written, strict=strict
            )

    async def _written(
        self,
        request: PhrasesRequest | EverythingRequest,
        items: Sequence[Found[Any] | InputError],
        response: Callable[[], Response],
    ) -> Response:
        """Return the response, made in a thread if its masks are much work."""
        size = masks_size(mask_format(request.mask_format), found_count(items))
        return await self._resources.threads.run_if_large(size, response)

    async def EncodeImage(  # noqa: N802
        self, request: segmentation_service_pb2.EncodeImageRequest, context: Context
    ) -> segmentation_service_pb2.EncodeImageResponse:
        resources = self._resources
        with field("model"):
            model = resources.catalog.choose(SAM, request.model)
        image = await self._load(request.image, model)
        await self._segmenter.view(image, model)
        return segmentation_service_pb2.EncodeImageResponse(
            image=image_message(image.info),
            timings=timings_message(request.include_timings),
            model=model.name,
        )

    async def _load(self, image: image_pb2.Image, model: Variant[SamSpec]) -> LoadedImage | ViewedImage:
        """Load what segmentation needs of the request's image."""
        with field(image_path(image, "image")):
            source = image_source(image, self._resources.settings)
            return await self._segmenter.load(source, model)


SERVICE = Service(
    segmentation_service_pb2.DESCRIPTOR,
    SegmentationService,
    segmentation_service_pb2_grpc.add_SegmentationServiceServicer_to_server,
    (SAM,),
)


def _grid_options(request: EverythingRequest) -> GridOptions:
    """Return what the request sets. What it leaves out keeps its default."""
    values = {
        descriptor.name: GRID_LIMITS[descriptor.name].check(value, descriptor.name)
        for descriptor, value in request.ListFields()
        if descriptor.name in GRID_LIMITS
    }
    return GridOptions(**values)


def _object_message(item: SegmentedObject) -> segmentation_service_pb2.SegmentedObject:
    detection, mask = item
    return segmentation_service_pb2.SegmentedObject(
        detection=detection_message(detection), mask=mask_message(mask)
    )


def _phrases_result(
    item: Found[SegmentedObject] | InputError, path: str
) -> segmentation_service_pb2.BatchSegmentPhrasesResult:
    if isinstance(item, InputError):
        where = "query.max_detections" if isinstance(item, AnswerTooLargeError) else path
        return segmentation_service_pb2.BatchSegmentPhrasesResult(error=item_error(item, where))
    objects = segmentation_service_pb2.SegmentedObjectList(objects=map(_object_message, item.items))
    return segmentation_service_pb2.BatchSegmentPhrasesResult(found=objects, image=image_message(item.image))


def _everything_result(
    item: Found[GridMask] | InputError, path: str
) -> segmentation_service_pb2.BatchSegmentEverythingResult:
    if isinstance(item, InputError):
        where = "max_masks" if isinstance(item, AnswerTooLargeError) else path
        where = "points_per_side" if isinstance(item, TooManyPointsError) else where
        return segmentation_service_pb2.BatchSegmentEverythingResult(error=item_error(item, where))
    masks = segmentation_service_pb2.GridMaskList(masks=map(_grid_mask_message, item.items))
    return segmentation_service_pb2.BatchSegmentEverythingResult(found=masks, image=image_message(item.image))


def _grid_mask_message(item: GridMask) -> segmentation_service_pb2.GridMask:
    return segmentation_service_pb2.GridMask(
        mask=mask_message(item.mask), stability_score=item.stability_score, point=point_message(item.point)
    )
