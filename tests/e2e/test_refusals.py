"""Bad requests through a real gateway: the right status, the field, the limit, and nothing broken."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import numpy as np
import pytest
from skimage import data as skimage_data

from gateway.server import Gateway
from gateway.services.messages.masks import mask_format
from visiongate import AsyncClient, ImageHandle, ImageId, MessageTooLargeError, VisiongateError
from visiongate.operations import Operation, detection, everything, gaze, segmentation, text
from visiongate.v1 import segmentation_service_pb2
from wire import assert_refused, changed, copied

PHOTO = skimage_data.coffee()  # 600 x 400
NAN = float("nan")
DETECT = detection.detect(PHOTO, ["dog"])
BOX: Any = [[10.0, 10.0, 50.0, 50.0]]
NANS = np.full((32, 32), NAN, np.float32).tobytes()
EXTREMES = np.full((32, 32), -3e38, np.float32).tobytes()
Change = Callable[[Any], Any]


@pytest.mark.parametrize(
    ("operation", "field", "says"),
    [
        (detection.detect(b"not an image", ["dog"]), "image.encoded", "image"),
        (detection.detect(b"", ["dog"]), "image.encoded", "empty"),
        (detection.detect(b"\xff" * (33 << 20), ["dog"]), "image.encoded", "limit"),
        (detection.detect(PHOTO, [""]), "query.phrases.values[0]", "empty"),
        (detection.detect(PHOTO, ["dog", "  "]), "query.phrases.values[1]", "empty"),
        (detection.detect(PHOTO, [f"object {index}" for index in range(300)]), "query.phrases", "256"),
        (detection.detect(PHOTO, ["a long phrase of words"] * 100), "query.phrases", "256"),
        (detection.detect(PHOTO, ["x" * 20_000]), "query.phrases", "10000"),
        (detection.detect(PHOTO), "query", "neither"),
        (changed(DETECT, {"query.min_score": 1.5}), "query.min_score", "is 1.5; it must be 0 to 1"),
        (changed(DETECT, {"query.min_score": NAN}), "query.min_score", "is nan; it must be 0 to 1"),
        (changed(DETECT, {"query.min_token_score": -1}), "query.min_token_score", "is -1; it must be 0 to 1"),
        (changed(DETECT, {"query.nms_iou_threshold": 2}), "query.nms_iou_threshold", "is 2; it must be"),
        (changed(DETECT, {"query.max_detections": 0}), "query.max_detections", "1000"),
        (detection.detect(PHOTO, ["dog"], model="giant"), "model", "tiny"),
        (segmentation.segment_phrases(PHOTO, ["dog"], detection_model="x"), "detection_model", "tiny"),
        (segmentation.segment_phrases(PHOTO, ["dog"], segmentation_model="x"), "segmentation_model", "tiny"),
        (segmentation.segment(PHOTO, boxes=BOX * 1001), "prompts", "1000"),
        (segmentation.segment(PHOTO, boxes=[[10, 10, 601, 50]]), "prompts[0].box.x_max", "600"),
        (segmentation.segment(PHOTO, boxes=[*BOX, [-1, 10, 60, 50]]), "prompts[1].box.x_min", "600"),
        (segmentation.segment(PHOTO, boxes=[[10, 10, 20, 10]]), "prompts[0].box", "less than"),
        (segmentation.segment(PHOTO, points=[[[10, 401]]]), "prompts[0].points[0].point.y", "400"),
        (segmentation.segment(PHOTO, points=[[[5, 5]]], labels=[[0]]), "prompts[0].points", "background"),
        (segmentation.segment(PHOTO, points=[[[5, 5]] * 65]), "prompts[0].points", "64"),
        (segmentation.segment(PHOTO, boxes=BOX, mask_logits=[np.zeros((3, 3))]), "prompts", "32x32"),
        (segmentation.segment(PHOTO, boxes=BOX, model="giant"), "model", "tiny"),
    ],
)  # fmt: skip
async def test_bad_requests_name_the_field(
    client: AsyncClient, operation: Operation[Any], field: str, says: str
) -> None:
    await assert_refused(client, operation, field, says)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (lambda request: request.ClearField("image"), "image"),
        (lambda request: setattr(request, "mask_format", 99), "mask_format"),
        (lambda request: setattr(request.prompts[0].points[0], "label", 9), "prompts[0].points[0].label"),
        (lambda request: setattr(request.prompts[0].points[0], "label", 0), "prompts[0].points[0].label"),
        (
            lambda request: setattr(request.prompts[0].points[0].point, "x", NAN),
            "prompts[0].points[0].point.x",
        ),
        (lambda request: setattr(request.prompts[0].box, "y_max", math.inf), "prompts[0].box.y_max"),
        (
            lambda request: setattr(request.prompts[0].mask_logits, "data", NANS),
            "prompts[0].mask_logits.data",
        ),
        # Finite, but SAM would answer with NaN.
        (
            lambda request: setattr(request.prompts[0].mask_logits, "data", EXTREMES),
            "prompts[0].mask_logits.data",
        ),
        (lambda request: request.prompts.add(), "prompts[1]"),
        (lambda request: setattr(request.image.raw, "width", 601), "image.raw"),
        (lambda request: setattr(request.image.raw, "height", 0), "image.raw"),
        (lambda request: setattr(request.image.raw, "data", b""), "image.raw"),
    ],
)
async def test_requests_that_the_client_cannot_write(client: AsyncClient, change: Change, field: str) -> None:
    operation = segmentation.segment(
        PHOTO, boxes=[[0, 0, 9, 9]], points=[[[5, 5]]], mask_logits=[np.zeros((32, 32))]
    )
    change(operation.request)
    with pytest.raises(VisiongateError) as caught:
        await client.call(operation)
    assert (caught.value.code, caught.value.field) == (grpc.StatusCode.INVALID_ARGUMENT, field)


def fractions(message: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """The path and the name of every float field of a message's kind, lists left out."""
    for field in message.DESCRIPTOR.fields:
        if field.is_repeated:
            continue
        if field.message_type is not None and field.name != "image":
            yield from fractions(getattr(message, field.name), f"{path}{field.name}.")
        elif field.type == field.TYPE_FLOAT:
            yield f"{path}{field.name}", field.name


def all_fractions() -> list[Any]:
    asked: list[Operation[Any]] = [
        DETECT,
        segmentation.segment_phrases(PHOTO, ["dog"]),
        everything.segment_everything(PHOTO, points_per_side=2),
        gaze.estimate_gaze(PHOTO),
        text.recognize_text([PHOTO]),
    ]
    return [
        pytest.param(operation, path, name, id=f"{operation.method.rpartition('/')[2]} {path}")
        for operation in asked
        for path, name in fractions(copied(operation).request)
    ]


@pytest.mark.parametrize(("operation", "path", "name"), all_fractions())
async def test_numbers_are_told_as_they_were_written(
    client: AsyncClient, operation: Operation[Any], path: str, name: str
) -> None:
    with pytest.raises(VisiongateError, match=rf"{name}: is -0\.1;"):
        await client.call(changed(operation, {path: -0.1}))


async def test_coordinates_are_told_as_they_were_written(client: AsyncClient) -> None:
    with pytest.raises(VisiongateError, match=r"x_min: is -0\.1, outside the image: it must be 0 to 600"):
        await client.segment(PHOTO, boxes=[[-0.1, 0, 9, 9]])
    with pytest.raises(
        VisiongateError, match=r"point\.y: is 400\.0001, outside the image: it must be 0 to 400"
    ):
        await client.segment(PHOTO, points=[[[5, 400.0001]]])
    with pytest.raises(VisiongateError, match="crop_layers: is 4294967295; it must be 0 to 3"):
        await client.call(changed(everything.segment_everything(PHOTO), {"crop_layers": 2**32 - 1}))


async def test_message_over_the_limit(gateway: Gateway) -> None:
    """Of a client that believes the server takes more."""
    operation = detection.detect(b"x", ["dog"])
    operation.request.image.encoded = b"x" * (37 << 20)  # type: ignore[attr-defined]
    async with AsyncClient(f"127.0.0.1:{gateway.port}", max_message_bytes=1 << 30) as client:
        with pytest.raises(MessageTooLargeError, match=r"the limit is 36\.0 MiB") as caught:
            await client.call(operation)
    assert caught.value.code is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_forgotten_image_says_so(client: AsyncClient) -> None:
    with pytest.raises(VisiongateError) as caught:
        await client.detect(ImageHandle(ImageId("0" * 64), 1, 1), ["dog"])
    assert caught.value.code is grpc.StatusCode.NOT_FOUND
    assert caught.value.reason == "IMAGE_NOT_CACHED"


async def test_garbage_for_a_message(gateway: Gateway) -> None:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{gateway.port}") as channel:
        call: Any = channel.unary_unary("/visiongate.v1.SegmentationService/SegmentRegions")
        with pytest.raises(grpc.aio.AioRpcError):
            await call(b"\xff\xff\xff\xff")


def test_every_mask_format_is_written() -> None:
    assert all(map(mask_format, segmentation_service_pb2.MaskFormat.values()))
