"""Messages to JSON: the same as protobuf's own writer."""

import json
from typing import Any

import numpy as np
import pytest
from google.protobuf import any_pb2, json_format
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.rpc import error_details_pb2, status_pb2

from gateway.http import api, json_writer
from gateway.http.json_writer import pieces_of
from gateway.services.registry import SERVICES
from visiongate.v1 import embedding_service_pb2, segmentation_service_pb2

ANSWERS = [operation.method.output_type for operation in api.operations(each.file for each in SERVICES)]


def error() -> status_pb2.Status:
    details = any_pb2.Any()
    details.Pack(error_details_pb2.ErrorInfo(reason="X", domain="y", metadata={"a": "b"}))
    return status_pb2.Status(code=3, message="no", details=[details])


def fill(message: Message, rng: np.random.Generator, depth: int = 0) -> Message:
    """Set about half of a message's fields to something."""
    for field in message.DESCRIPTOR.fields:
        if rng.random() < 0.4 and depth:
            continue
        if field.message_type and field.message_type.full_name == "google.rpc.Status":
            getattr(message, field.name).CopyFrom(error())
        elif field.message_type and field.is_repeated:
            for _ in range(rng.integers(0, 4)):
                fill(getattr(message, field.name).add(), rng, depth + 1)
        elif field.message_type:
            getattr(message, field.name).SetInParent()
            fill(getattr(message, field.name), rng, depth + 1)
        elif field.is_repeated:
            getattr(message, field.name).extend(value(field, rng) for _ in range(rng.integers(0, 4)))
        else:
            setattr(message, field.name, value(field, rng))
    return message


def value(field: Any, rng: np.random.Generator) -> object:
    match field.type:
        case FieldDescriptor.TYPE_STRING:
            return str(rng.choice(["", "a", 'ü"\\\n\u2028', "𝄞"]))
        case FieldDescriptor.TYPE_BYTES:
            return rng.bytes(int(rng.integers(0, 9)))
        case FieldDescriptor.TYPE_BOOL:
            return bool(rng.integers(2))
        case FieldDescriptor.TYPE_FLOAT:
            return float(rng.choice([0, 1, -0.1, 1e-42, 3.4e38, 16777217, rng.random()]))
    return int(rng.integers(0, 3))


def tree_of(message: Message) -> object:
    return json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )


@pytest.mark.parametrize("kind", ANSWERS, ids=lambda each: each.name)
def test_it_is_what_protobuf_writes(kind: Descriptor) -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        message = fill(GetMessageClass(kind)(), rng)
        written = json.loads(b"".join(pieces_of(message)))
        assert plain(written) == plain(tree_of(message))


def plain(tree: object) -> object:
    """Return a tree without what is empty in details of errors, which are written as short as can be."""
    if isinstance(tree, dict):
        if set(tree) == {"code", "message", "details"}:
            tree = {**tree, "details": [{k: v for k, v in each.items() if v} for each in tree["details"]]}
        return {name: plain(value) for name, value in tree.items()}
    if isinstance(tree, list):
        return [plain(each) for each in tree]
    return float(np.float32(tree)) if isinstance(tree, float) else tree


def test_floats_have_as_few_digits_as_can_be() -> None:
    answer = embedding_service_pb2.EmbedTextsResponse()
    answer.results.add().embedding.values.extend([0.1, 1e-7])
    assert b'"values":[0.1,1e-7]' in b"".join(pieces_of(answer))


def test_a_large_answer_comes_in_pieces() -> None:
    answer = segmentation_service_pb2.SegmentRegionsResponse()
    for _ in range(3):
        polygon = answer.regions.add().masks.add().polygons.polygons.add()
        polygon.exterior.coordinates.extend(range(100_000))
        for _ in range(3000):
            polygon.holes.add().coordinates.extend(range(8))
    pieces = list(pieces_of(answer))
    assert json.loads(b"".join(pieces)) == tree_of(answer)
    assert max(map(len, pieces)) < 8 * json_writer.VALUES
