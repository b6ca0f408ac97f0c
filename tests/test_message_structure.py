"""What a message becomes is known from its bytes."""

import pytest
from google.protobuf.message import Message

from gateway.errors import InvalidArgumentError
from gateway.message_structure import MAX_FIELDS, MAX_STRUCTURE_BYTES, structure_bytes
from visiongate.v1 import (
    detection_service_pb2,
    embedding_service_pb2,
    image_pb2,
    segmentation_service_pb2,
)

PHOTO = image_pb2.Image(encoded=bytes(1 << 20))
PIXELS = image_pb2.Image(raw=image_pb2.RawImage(data=bytes(3 << 20), width=1024, height=1024))
LOGITS = segmentation_service_pb2.MaskLogits(data=bytes(1 << 18), width=256, height=256)


def structure(message: Message) -> int:
    return structure_bytes(message.SerializeToString(), type(message))


@pytest.mark.parametrize(
    ("message", "contents"),
    [
        (detection_service_pb2.DetectObjectsRequest(image=PHOTO), 1 << 20),
        (detection_service_pb2.DetectObjectsRequest(image=PIXELS, model="large"), 3 << 20),
        (embedding_service_pb2.EmbedImagesRequest(images=[PHOTO, PIXELS, PHOTO]), 5 << 20),
        (embedding_service_pb2.EmbedTextsRequest(texts=["a dog"] * 100), 0),
        (
            segmentation_service_pb2.SegmentRegionsRequest(
                image=PHOTO, prompts=[segmentation_service_pb2.Prompt(mask_logits=LOGITS)] * 3
            ),
            (1 << 20) + (3 << 18),
        ),
        (
            embedding_service_pb2.CompareImagesAndTextsRequest(
                subject=embedding_service_pb2.ImageOrText(image=PHOTO),
                candidates=[embedding_service_pb2.ImageOrText(text="a dog")] * 10,
            ),
            1 << 20,
        ),
    ],
)
def test_all_but_the_contents_of_bytes_fields_counts(message: Message, contents: int) -> None:
    assert structure(message) == message.ByteSize() - contents


@pytest.mark.parametrize(
    ("kind", "unit"),
    [
        (segmentation_service_pb2.SegmentRegionsRequest, b"\x12\x00"),  # prompts
        (segmentation_service_pb2.SegmentRegionsRequest, b"\x12\x02\x0a\x00"),  # with a point
        (embedding_service_pb2.EmbedImagesRequest, b"\x0a\x00"),
        (embedding_service_pb2.EmbedTextsRequest, b"\x0a\x00"),
        (embedding_service_pb2.CompareImagesAndTextsRequest, b"\x12\x00"),
        (detection_service_pb2.DetectObjectsRequest, b"\xfa\x3f\x05hello"),  # a field that nobody knows
        (
            detection_service_pb2.DetectObjectsRequest,
            b"\x80\x80\x80\x80\x80\x80\x80\x80\x80",
        ),  # no number ends
    ],
)
def test_what_multiplies_in_memory_is_refused(kind: type[Message], unit: bytes) -> None:
    with pytest.raises(InvalidArgumentError, match=f"the limit is {MAX_STRUCTURE_BYTES}"):
        structure_bytes(unit * (MAX_STRUCTURE_BYTES // len(unit) + 1), kind)
    assert structure_bytes(unit * 10, kind) == 10 * len(unit)


def test_many_small_images_count_whole_where_nobody_looks_any_more() -> None:
    image = image_pb2.Image(encoded=bytes(100))
    few = embedding_service_pb2.EmbedImagesRequest(images=[image] * 100)
    assert structure(few) == few.ByteSize() - 100 * 100
    many = embedding_service_pb2.EmbedImagesRequest(images=[image] * 2 * MAX_FIELDS)
    with pytest.raises(InvalidArgumentError):
        structure(many)


@pytest.mark.parametrize("cut", range(1, 60))
def test_bytes_that_are_no_message_end_the_look_at_them(cut: int) -> None:
    message = segmentation_service_pb2.SegmentRegionsRequest(
        image=image_pb2.Image(encoded=bytes(20)),
        prompts=[segmentation_service_pb2.Prompt(mask_logits=LOGITS)],
        model="large",
    )
    data = message.SerializeToString()[:cut]
    assert 0 <= structure_bytes(data, type(message)) <= cut
