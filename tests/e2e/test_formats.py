"""What can be written in several ways says the same in each: pixels, embeddings, logits."""

from typing import Any

import numpy as np
import pytest
from skimage import data as skimage_data

from visiongate import AsyncClient
from visiongate.operations import Operation, embedding, segmentation
from visiongate.v1 import embedding_service_pb2, image_pb2, segmentation_service_pb2
from wire import assert_refused, copied

PHOTO = skimage_data.coffee()
GRAY = np.ascontiguousarray(PHOTO[:, :, 1])
POINT: Any = [[[150, 120]]]
EMBEDDINGS = embedding_service_pb2.EmbeddingFormat
LOGITS = segmentation_service_pb2.LogitsFormat


def asked(operation: Operation[Any], **fields: Any) -> Operation[Any]:
    """The operation with other fields, whose answer is the response as it is."""
    made = copied(operation)
    for name, value in fields.items():
        setattr(made.request, name, value)
    return Operation(made.method, made.request, made.response_type, lambda response, request_id: response)


def raw(data: bytes, pixel_format: Any) -> image_pb2.Image:
    height, width = GRAY.shape
    return image_pb2.Image(raw=image_pb2.RawImage(data=data, width=width, height=height, format=pixel_format))


@pytest.mark.parametrize(
    ("pixel_format", "data", "same"),
    [
        (image_pb2.PIXEL_FORMAT_UNSPECIFIED, PHOTO.tobytes(), PHOTO),
        (image_pb2.PIXEL_FORMAT_RGB, PHOTO.tobytes(), PHOTO),
        (image_pb2.PIXEL_FORMAT_BGR, PHOTO[:, :, ::-1].tobytes(), PHOTO),
        (image_pb2.PIXEL_FORMAT_GRAY, GRAY.tobytes(), np.stack([GRAY] * 3, axis=2)),
    ],
)
async def test_pixels(client: AsyncClient, pixel_format: Any, data: bytes, same: Any) -> None:
    operation = asked(embedding.embed_images([PHOTO]))
    request: Any = operation.request
    request.images[0].CopyFrom(raw(data, pixel_format))
    response = await client.call(operation)
    values = np.frombuffer(response.results[0].embedding.packed, "<f4")
    np.testing.assert_allclose(values, (await client.embed_images([same]))[0], atol=1e-5)


async def test_embeddings(client: AsyncClient) -> None:
    expected = await client.embed_texts(["a cup", "a spoon"])
    operation = embedding.embed_texts(["a cup", "a spoon"])
    for embedding_format, tolerance in (
        (EMBEDDINGS.Value("EMBEDDING_FORMAT_UNSPECIFIED"), 1e-6),
        (EMBEDDINGS.Value("EMBEDDING_FORMAT_VALUES"), 1e-6),
        (EMBEDDINGS.Value("EMBEDDING_FORMAT_FLOAT32"), 1e-6),
        (EMBEDDINGS.Value("EMBEDDING_FORMAT_FLOAT16"), 1e-3),
    ):
        response = await client.call(asked(operation, embedding_format=embedding_format))
        for row, result in zip(expected, response.results, strict=True):
            packed = result.embedding.packed
            number = "<f4" if len(packed) == 4 * len(row) else "<f2"
            values = np.frombuffer(packed, number) if packed else np.array(result.embedding.values)
            assert bool(packed) != bool(len(result.embedding.values))
            np.testing.assert_allclose(values, row, atol=tolerance)


async def test_a_length_of_one_is_the_default_and_can_be_left(client: AsyncClient) -> None:
    scaled, plain = [await client.embed_images([PHOTO], normalize=flag) for flag in (True, False)]
    assert np.linalg.norm(scaled[0]) == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose(plain / np.linalg.norm(plain), scaled, atol=1e-5)
    unset = asked(embedding.embed_images([PHOTO]))
    unset.request.ClearField("normalize")
    values = np.frombuffer((await client.call(unset)).results[0].embedding.packed, "<f4")
    np.testing.assert_allclose(values, scaled[0], atol=1e-6)


async def test_logits(client: AsyncClient) -> None:
    ((mask,),) = await client.segment(PHOTO, points=POINT, include_logits=True)
    operation = segmentation.segment(PHOTO, points=POINT, include_logits=True)
    response = await client.call(asked(operation, logits_format=LOGITS.Value("LOGITS_FORMAT_FLOAT16")))
    logits = response.regions[0].masks[0].logits
    assert logits.format == LOGITS.Value("LOGITS_FORMAT_FLOAT16")
    values = np.frombuffer(logits.data, "<f2").reshape(logits.height, logits.width)
    assert mask.logits is not None
    np.testing.assert_allclose(values, mask.logits, rtol=1e-3, atol=1e-3)
    # What came in half precision can be sent back as it is.
    refine = asked(operation, include_logits=False)
    request: Any = refine.request
    request.prompts[0].mask_logits.CopyFrom(logits)
    assert len((await client.call(refine)).regions) == 1


@pytest.mark.parametrize(
    ("operation", "field", "says"),
    [
        (asked(embedding.embed_texts(["a"]), embedding_format=9), "embedding_format", "9 is not a known"),
        (asked(segmentation.segment(PHOTO, points=POINT), logits_format=9), "logits_format", "9 is not a"),
        (asked(segmentation.segment(PHOTO, points=POINT), mask_format=9), "mask_format", "9 is not a known"),
    ],
)
async def test_unknown_formats(client: AsyncClient, operation: Operation[Any], field: str, says: str) -> None:
    await assert_refused(client, operation, field, says)


async def test_an_unknown_pixel_format(client: AsyncClient) -> None:
    operation = copied(segmentation.encode_image(PHOTO))
    request: Any = operation.request
    request.image.CopyFrom(raw(PHOTO.tobytes(), 9))
    await assert_refused(client, operation, "image.raw", "the format 9")
