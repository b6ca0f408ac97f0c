"""The OpenAPI document says what the .proto files say."""

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import orjson
import pytest
from google.api import annotations_pb2
from google.protobuf import descriptor_pb2, descriptor_pool, json_format
from google.protobuf.descriptor import Descriptor, EnumDescriptor, MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from openapi_schema_validator import OAS31Validator
from openapi_spec_validator import validate

from gateway.http import openapi_examples
from gateway.http.forms import read_form
from gateway.http.openapi import document, document_json
from gateway.http.openapi_forms import EXAMPLE_FILE
from gateway.http.proto_comments import proto_comments
from gateway.services.registry import SERVICES

FILES = [service.file for service in SERVICES]
# Those with a route: streams are not to be had over HTTP.
METHODS: list[MethodDescriptor] = [
    method
    for file in FILES
    for service in file.services_by_name.values()
    for method in service.methods
    if method.GetOptions().HasExtension(annotations_pb2.http)
]
POSTED = [method for method in METHODS if method.name != "ListModels"]
OPENAPI = document(FILES)
SCHEMAS: dict[str, Any] = OPENAPI["components"]["schemas"]


def operation(method: MethodDescriptor) -> dict[str, Any]:
    rule = method.GetOptions().Extensions[annotations_pb2.http]
    verb = rule.WhichOneof("pattern")
    found: dict[str, Any] = OPENAPI["paths"][getattr(rule, verb)][verb]
    return found


def messages() -> Iterator[Descriptor]:
    """All that requests and answers are made of, Google's left aside."""
    waiting = [kind for method in METHODS for kind in (method.input_type, method.output_type)]
    seen = set()
    while waiting:
        message = waiting.pop()
        if message.file.package == "visiongate.v1" and message.full_name not in seen:
            seen.add(message.full_name)
            yield message
            waiting += [field.message_type for field in message.fields if field.message_type]


MESSAGES = [message for message in messages() if message.name != "ListModelsRequest"]
ENUMS: list[EnumDescriptor] = list(
    {
        field.enum_type.name: field.enum_type
        for message in MESSAGES
        for field in message.fields
        if field.enum_type
    }.values()
)


def form(method_name: str) -> dict[str, Any]:
    """What the document says of the form of a method's request."""
    [method] = [each for each in METHODS if each.name == method_name]
    found: dict[str, Any] = operation(method)["requestBody"]["content"]["multipart/form-data"]
    return found


def accepts(name: str, value: object) -> bool:
    """Whether the schema of this name takes a value."""
    schema = {"$ref": f"#/components/schemas/{name}", "components": {"schemas": SCHEMAS}}
    return bool(OAS31Validator(schema).is_valid(value))


def test_it_is_valid_and_what_the_server_sends() -> None:
    validate(OPENAPI)
    assert orjson.loads(document_json()) == OPENAPI


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_every_method_is_there_with_its_comment(method: MethodDescriptor) -> None:
    found = operation(method)
    assert found["operationId"] == method.name
    assert found["description"] == proto_comments()[method.full_name]
    assert found["description"].startswith(found["summary"])
    assert found["tags"] == [method.containing_service.name]
    ok = found["responses"]["200"]["content"]["application/json"]["schema"]
    assert ok == {"$ref": f"#/components/schemas/{method.output_type.name}"}


def names() -> list[str]:
    return [service.name.rpartition(".")[2] for service in SERVICES]


def test_every_service_is_there_with_its_comment() -> None:
    services = {method.containing_service.name for method in METHODS}
    assert [tag["name"] for tag in OPENAPI["tags"]] == [name for name in names() if name in services]
    assert all(tag["description"] for tag in OPENAPI["tags"])


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: message.name)
def test_every_field_is_there_with_its_comment(message: Descriptor) -> None:
    schema = SCHEMAS[message.name]
    assert schema["description"] == proto_comments()[message.full_name]
    assert set(schema["properties"]) == {field.name for field in message.fields}
    for field in message.fields:
        assert schema["properties"][field.name]["description"] == proto_comments()[field.full_name] != ""


@pytest.mark.parametrize("enum", ENUMS, ids=lambda enum: enum.name)
def test_every_value_of_an_enum_is_there_with_its_comment(enum: EnumDescriptor) -> None:
    schema = SCHEMAS[enum.name]
    assert schema["enum"] == [value.name for value in enum.values]
    for value in enum.values:
        comment = proto_comments()[f"{enum.full_name}.{value.name}"]
        assert comment
        assert f"- `{value.name}`: {comment}" in schema["description"].splitlines()


def test_nothing_is_without_a_description() -> None:
    for schema in SCHEMAS.values():
        assert schema["description"]
        assert all(field["description"] for field in schema.get("properties", {}).values())


@pytest.mark.parametrize("method", POSTED, ids=lambda method: method.name)
def test_examples_are_requests(method: MethodDescriptor) -> None:
    assert accepts(method.input_type.name, example(method, "application/json"))
    assert request(method).ByteSize()


@pytest.mark.parametrize("method", POSTED, ids=lambda method: method.name)
async def test_examples_of_forms_are_the_same_requests(method: MethodDescriptor) -> None:
    picture = openapi_examples.picture_png()
    parts = [
        (name, ("photo.png", picture) if item == EXAMPLE_FILE else (None, text(item)))
        for name, value in example(method, "multipart/form-data").items()
        for item in (value if isinstance(value, list) else [value])
    ]
    sent = httpx.Request("POST", "http://localhost/", files=parts)

    async def chunks() -> AsyncIterator[bytes]:
        yield sent.read()

    message = GetMessageClass(method.input_type)()
    await read_form(chunks(), sent.headers["content-type"], message)
    assert message == request(method)


def example(method: MethodDescriptor, media_type: str) -> dict[str, Any]:
    found: dict[str, Any] = operation(method)["requestBody"]["content"][media_type]["example"]
    return found


def request(method: MethodDescriptor) -> Message:
    """The example as a message; a field that is not known is an error."""
    return json_format.ParseDict(example(method, "application/json"), GetMessageClass(method.input_type)())


def text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def test_what_has_no_body_has_no_example() -> None:
    assert [method.name for method in METHODS if "requestBody" not in operation(method)] == ["ListModels"]


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("Point", {"x": 1, "y": 2.5}, {"x": "1"}),
        ("Point", {}, {"z": 1}),
        ("RawImage", {"width": 2**32 - 1}, {"width": 2**32}),
        ("RawImage", {"width": 0}, {"width": -1}),
        ("RawImage", {"format": "PIXEL_FORMAT_BGR"}, {"format": 2}),
        ("RawImage", {"data": "AAAA"}, {"data": [0]}),
        ("Image", {"uri": "https://a.example"}, {"uri": "https://a.example", "image_id": "a"}),
        ("PhraseList", {"values": ["truck"]}, {"values": []}),
        ("PhraseList", {"values": ["truck"]}, {"values": "truck"}),
        ("ObjectQuery", {"caption": "a truck.", "min_score": 0}, {"caption": "a truck.", "min_score": None}),
        ("EmbedTextsRequest", {"texts": ["a"], "normalize": False}, {"texts": ["a"], "normalize": "false"}),
        ("EncodeImageRequest", {"image": {}}, {}),
        # Of an optional oneof, none or one; what is `optional` in proto3 is no oneof.
        ("EstimateGazeRequest", {"image": {}}, {"image": {}, "query": {}, "boxes": {}}),
        ("FaceQuery", {"min_score": 0.5, "max_faces": 3}, {"min_score": [0.5]}),
    ],
)  # fmt: skip
def test_schemas_of_requests_are_exact(name: str, good: object, bad: object) -> None:
    assert accepts(name, good)
    assert not accepts(name, bad)


def test_forms_have_files_words_and_json() -> None:
    parts = form("SegmentRegions")["schema"]["properties"]
    assert parts["image"]["contentMediaType"] == "application/octet-stream"
    assert parts["prompts"]["items"] == {"$ref": "#/components/schemas/Prompt"}
    assert parts["mask_format"]["$ref"] == "#/components/schemas/MaskFormat"
    parts = form("DetectObjects")["schema"]["properties"]
    assert parts["phrases"]["items"] == {"type": "string"}
    # Its own comment says nothing of what it is for.
    assert parts["phrases"]["description"].startswith("A phrase for each class of objects. Classes, such as")
    assert form("EmbedImages")["schema"]["properties"]["images"]["items"]["format"] == "binary"
    # A file or a text.
    assert form("CompareImagesAndTexts")["schema"]["properties"]["candidates"]["items"] == {"type": "string"}


def test_forms_require_what_has_no_other_form() -> None:
    assert form("ClassifyImages")["schema"]["required"] == ["labels"]
    assert form("CompareImagesAndTexts")["schema"]["required"] == ["subject"]
    # In place of the image there may be its id.
    assert form("EncodeImage")["schema"]["required"] == []


def test_answers_have_what_has_no_presence_and_may_get_more() -> None:
    detection = {"phrase": "cat", "score": 0.0}
    assert accepts(
        "Detection", detection | {"box": {"x_min": 0, "y_min": 0, "x_max": 1, "y_max": 1}, "more": 1}
    )
    assert not accepts("Detection", {"phrase": "cat"})
    assert accepts("DetectObjectsResponse", {"detections": [], "model": "tiny"})
    assert not accepts("DetectObjectsResponse", {"model": "tiny"})


def detail(kind: str, **fields: object) -> dict[str, object]:
    return {"@type": f"type.googleapis.com/google.rpc.{kind}", **fields}


@pytest.mark.parametrize(
    ("details", "is_valid"),
    [
        ([], True),
        ([detail("RetryInfo", retry_delay="1.500s")], True),
        ([detail("RequestInfo", request_id="a", serving_data="")], True),
        ([detail("ErrorInfo", reason="OVERLOADED", domain="visiongate", metadata={"limit": "calls"})], True),
        ([detail("ErrorInfo", reason="OVERLOADED", domain="visiongate", metadata={"limit": 1})], False),
        ([detail("RetryInfo", retry_delay=1.5)], False),
        ([detail("Help", links=[])], False),
        ([{"field_violations": []}], False),
    ],
)  # fmt: skip
def test_errors_are_a_status_with_its_usual_details(details: list[object], is_valid: bool) -> None:
    assert accepts("google.rpc.Status", {"code": 8, "message": "full", "details": details}) is is_valid


def test_every_operation_says_its_errors() -> None:
    for path in OPENAPI["paths"].values():
        for verb, each in path.items():
            common = {"200", "400", "401", "403", "406", "429", "500", "503", "504"}
            of_bodies = {"404", "413", "415", "501"}
            assert common <= set(each["responses"])
            assert (of_bodies <= set(each["responses"])) == (verb == "post")
    for name in ("Overloaded", "Unavailable"):
        assert "Retry-After" in OPENAPI["components"]["responses"][name]["headers"]


def test_keys_are_optional() -> None:
    assert OPENAPI["security"] == [{"bearer": []}, {"api_key": []}, {}]


def test_other_types_of_answers() -> None:
    def types(name: str) -> set[str]:
        [found] = [method for method in METHODS if method.name == name]
        return set(operation(found)["responses"]["200"]["content"]) - {"application/json"}

    assert {name: types(name) for name in (method.name for method in METHODS) if types(name)} == {
        "EmbedImages": {"application/x-npy"},
        "EmbedTexts": {"application/x-npy"},
        "SegmentRegions": {"image/png"},
        "SegmentPhrases": {"image/png"},
        "SegmentEverything": {"image/png"},
    }


def test_a_new_service_is_there_by_itself() -> None:
    """One that this module has never heard of, with types of numbers that the API does not use yet."""
    file = descriptor_pb2.FileDescriptorProto(
        name="tests/count.proto", package="visiongate.v1", syntax="proto3"
    )
    file.dependency.extend(["visiongate/v1/image.proto", "google/api/annotations.proto"])
    kinds = descriptor_pb2.FieldDescriptorProto
    request = file.message_type.add(name="CountRequest")
    request.field.add(name="image", number=1, type=kinds.TYPE_MESSAGE, type_name=".visiongate.v1.Image")
    request.field.add(name="limit", number=2, type=kinds.TYPE_INT32)
    answer = file.message_type.add(name="CountResponse")
    answer.field.add(name="count", number=1, type=kinds.TYPE_UINT64)
    method = file.service.add(name="CountService").method.add(
        name="Count", input_type=".visiongate.v1.CountRequest", output_type=".visiongate.v1.CountResponse"
    )
    method.options.Extensions[annotations_pb2.http].post = "/v1/things:count"
    method.options.Extensions[annotations_pb2.http].body = "*"
    descriptor_pool.Default().AddSerializedFile(file.SerializeToString())
    new = document([descriptor_pool.Default().FindFileByName(file.name)])
    validate(new)
    content = new["paths"]["/v1/things:count"]["post"]["requestBody"]["content"]["application/json"]
    assert set(content["example"]) == {"image"}
    schemas = new["components"]["schemas"]
    assert schemas["CountRequest"]["properties"]["limit"]["maximum"] == 2**31 - 1
    # JSON's numbers are not exact beyond 53 bits: protobuf writes these as strings.
    assert schemas["CountResponse"]["properties"]["count"]["type"] == "string"
