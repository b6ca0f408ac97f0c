from google.protobuf.descriptor import Descriptor

from gateway.http.proto_comments import proto_comments
from visiongate.v1 import detection_service_pb2, gaze_service_pb2, image_pb2

IMAGE: Descriptor = image_pb2.Image.DESCRIPTOR


def test_declarations_have_their_comments() -> None:
    comments = proto_comments()
    assert comments[IMAGE.full_name] == "An image, given in one of several ways."
    assert comments[f"{IMAGE.full_name}.raw"] == "Pixels that need no decoding."
    assert comments[f"{IMAGE.full_name}.source"].startswith("Where the pixels come from.")
    assert comments["visiongate.v1.PixelFormat.PIXEL_FORMAT_GRAY"] == "Grey: one byte a pixel."
    assert comments["google.rpc.BadRequest.FieldViolation"] == "One part of the request."
    [service] = detection_service_pb2.DESCRIPTOR.services_by_name.values()
    first, *others = comments[service.full_name].split("\n\n")
    assert first == "Finds the objects that words name (Grounding DINO)."
    assert others


def test_lines_of_paragraphs_are_joined_and_drawings_are_left() -> None:
    comment = proto_comments()[gaze_service_pb2.Gaze.DESCRIPTOR.full_name]
    first, *middle, last = comment.split("\n\n")
    assert "\n" not in first
    assert "\n" not in last
    assert all(line.startswith("    ") for block in middle for line in block.splitlines())
    assert "[camera]" in middle[-1]
