"""The server as an assistant sees it: its tools, their arguments, and errors in words."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status
from mcp.client import Client
from PIL import Image

import client_server
from visiongate import AsyncClient
from visiongate.mcp.images import Images
from visiongate.mcp.server import make_server

DETECT = "/visiongate.v1.DetectionService/DetectObjects"
IMAGE_TOOLS = {
    "detect_objects",
    "segment_objects",
    "segment_at",
    "read_text",
    "classify_image",
    "rank_images",
    "estimate_gaze",
}


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    Image.new("RGB", (64, 48), "red").save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


async def said(client: AsyncClient, root: Path, tool: str, arguments: dict[str, Any]) -> str:
    """The text of the error that a call of a tool ends with."""
    async with Client(make_server(client, Images(root))) as assistant:
        result = await assistant.call_tool(tool, arguments)
    assert result.is_error
    [block] = result.content
    text = getattr(block, "text", "")
    prefix = f"Error executing tool {tool}: "
    assert text.startswith(prefix)
    return str(text.removeprefix(prefix))


async def test_tools_teach_an_assistant(tmp_path: Path) -> None:
    images = Images(tmp_path)
    async with AsyncClient("127.0.0.1:9") as client, Client(make_server(client, images)) as assistant:
        tools = {tool.name: tool for tool in (await assistant.list_tools()).tools}
        assert images.description in (assistant.instructions or "")
    assert set(tools) == IMAGE_TOOLS | {"list_models"}
    for name, tool in tools.items():
        assert (images.description in (tool.description or "")) == (name in IMAGE_TOOLS)
        assert "Use " in (tool.description or "")
        assert tool.annotations is not None
        assert tool.annotations.read_only_hint
        assert tool.output_schema is not None
        assert tool.input_schema["additionalProperties"] is False
        for argument, schema in tool.input_schema["properties"].items():
            assert schema.get("description"), (name, argument)
    assert tools["detect_objects"].input_schema["required"] == ["image", "phrases"]


@pytest.mark.parametrize(
    ("tool", "arguments", "names"),
    [
        ("detect_objects", {"image": "photo.png"}, "phrases"),
        ("detect_objects", {"image": "photo.png", "phrases": []}, "phrases"),
        ("detect_objects", {"image": "photo.png", "phrases": ["a"], "min_score": 1.5}, "min_score"),
        ("detect_objects", {"image": "photo.png", "phrases": ["a"], "max_objects": 0}, "max_objects"),
        ("detect_objects", {"image": "photo.png", "phrases": ["a"], "threshold": 0.5}, "threshold"),
        ("detect_objects", {"image": "../photo.png", "phrases": ["a"]}, "image: '../photo.png' cannot be"),
        ("segment_at", {"image": "photo.png"}, "points or box: give one of them"),
        ("segment_at", {"image": "photo.png", "background_points": [[1, 2]]}, "points or box"),
        ("segment_at", {"image": "photo.png", "points": [[1, 2, 3]]}, "points.0"),
        ("segment_at", {"image": "photo.png", "box": [1, 2, 3]}, "box"),
        ("read_text", {"image": "photo.png", "reading_order": "up"}, "reading_order"),
        ("rank_images", {"images": ["photo.png"]}, "text, image: give one of them"),
        (
            "rank_images",
            {"images": ["photo.png"], "text": "a", "image": "photo.png"},
            "text, image: give one",
        ),
        ("rank_images", {"images": ["photo.png", "none.png"], "text": "a"}, "images[1]: there is no file"),
        ("rank_images", {"images": ["photo.png"] * 65, "text": "a"}, "images"),
    ],
)
async def test_arguments_that_make_no_sense_are_named(
    photo: Path, tool: str, arguments: dict[str, Any], names: str
) -> None:
    # Nothing listens there: the server is not asked.
    async with AsyncClient("127.0.0.1:9", wait=False) as client:
        text = await said(client, photo.parent, tool, arguments)
    assert names in text
    assert "127.0.0.1:9" not in text


def refusing(
    code: grpc.StatusCode, message: str, *details: Any
) -> Callable[[Any, grpc.ServicerContext], Any]:
    def answer(_: Any, context: grpc.ServicerContext) -> Any:
        packed = []
        for detail in details:
            packed.append(any_pb2.Any())
            packed[-1].Pack(detail)
        status = status_pb2.Status(code=code.value[0], message=message, details=packed)
        context.abort_with_status(rpc_status.to_status(status))

    return answer


def reason(word: str) -> error_details_pb2.ErrorInfo:
    return error_details_pb2.ErrorInfo(reason=word, domain="visiongate")


@pytest.mark.parametrize(
    ("code", "details", "advice"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, [reason("X")], ""),
        (
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            [reason("OVERLOADED"), error_details_pb2.RetryInfo(retry_delay=duration_pb2.Duration(seconds=9))],
            "Call this tool again in 9 s.",
        ),
        (grpc.StatusCode.UNIMPLEMENTED, [reason("NO_MODEL")], "list_models names what this server has."),
        (grpc.StatusCode.UNAVAILABLE, [reason("TRITON_UNAVAILABLE")], "needs a restart"),
        (grpc.StatusCode.UNAUTHENTICATED, [reason("KEY_MISSING")], "VISIONGATE_API_KEY"),
        (grpc.StatusCode.DEADLINE_EXCEEDED, [reason("MAX_CALL_TIME")], "--timeout"),
        (grpc.StatusCode.INTERNAL, [reason("X")], "log"),
    ],
)
async def test_errors_of_the_server_say_what_to_do(
    photo: Path, code: grpc.StatusCode, details: list[Any], advice: str
) -> None:
    answers = {DETECT: refusing(code, "what is wrong", *details)}
    with client_server.serving(answers=answers) as served:
        async with AsyncClient(served.address, wait=False) as client:
            text = await said(
                client, photo.parent, "detect_objects", {"image": "photo.png", "phrases": ["cup"]}
            )
    assert text.startswith("what is wrong")
    assert advice in text
    if not advice:
        assert text == "what is wrong"


async def test_the_text_of_a_fault_stays_in_the_log(
    photo: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with AsyncClient("127.0.0.1:9") as client:

        def broken(*arguments: Any, **keywords: Any) -> None:
            raise KeyError("a private thing")

        monkeypatch.setattr(client, "detect", broken)
        server = make_server(client, Images(photo.parent))
        async with Client(server) as assistant:
            result = await assistant.call_tool("detect_objects", {"image": "photo.png", "phrases": ["a"]})
    assert result.is_error
    assert "private" not in str(result.content)
    assert "a private thing" in caplog.text
