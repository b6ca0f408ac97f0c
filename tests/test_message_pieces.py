"""A message that is written in pieces is the message."""

import pytest
from google.protobuf.message import Message

from gateway.message_pieces import pieces_of
from visiongate.v1 import (
    embedding_service_pb2,
    geometry_pb2,
    image_pb2,
    segmentation_service_pb2,
    timings_pb2,
)

MASK = segmentation_service_pb2.Mask(
    polygons=segmentation_service_pb2.PolygonSet(
        polygons=[
            segmentation_service_pb2.Polygon(
                exterior=segmentation_service_pb2.Ring(coordinates=list(range(0, 30_000, 7)))
            )
        ]
    ),
    predicted_iou=0.5,
    area=7,
)


@pytest.mark.parametrize(
    "message",
    [
        segmentation_service_pb2.SegmentRegionsResponse(),
        segmentation_service_pb2.SegmentRegionsResponse(
            regions=[
                segmentation_service_pb2.Region(masks=[MASK, MASK]),
                segmentation_service_pb2.Region(),
                segmentation_service_pb2.Region(masks=[segmentation_service_pb2.Mask(png=bytes(100_000))]),
            ],
            image=image_pb2.ImageInfo(image_id="an id", width=3),
            timings=timings_pb2.Timings(decode_ms=1.5),
            model="large",
        ),
        # A list of numbers, and one of texts, are no lists of messages.
        segmentation_service_pb2.Ring(coordinates=[0, 1, 1 << 31]),
        embedding_service_pb2.EmbedTextsRequest(texts=["a", "", "c"], truncate=True),
        geometry_pb2.Point(x=0.0, y=2.0),
    ],
)
def test_pieces_are_equal_to_the_whole(message: Message) -> None:
    assert type(message).FromString(b"".join(pieces_of(message))) == message
