"""What proto/README.md says in tables is what the contract and the gateway have."""

import asyncio
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.api import annotations_pb2
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import MethodDescriptor
from tritonclient.utils import InferenceServerException

from gateway import errors
from gateway.services.registry import SERVICES
from gateway.triton_server import status_error
from visiongate import AsyncClient
from visiongate.mcp.images import Images
from visiongate.mcp.server import make_server

README = (Path(__file__).parents[2] / "proto/README.md").read_text()
JSON_BLOCKS = re.findall(r"```json\n(.*?)```", README, re.DOTALL)


def rows(heading: str) -> list[list[str]]:
    """The cells of all tables below a heading, without those of the tables' own headings."""
    section = README.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    cells = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row] for row in cells if not set(row[0]) <= {"-"}]


def http(method: MethodDescriptor) -> str:
    rule = method.GetOptions().Extensions[annotations_pb2.http]
    verb = rule.WhichOneof("pattern")
    if verb is None:
        return ""
    return f"{verb.upper()} {getattr(rule, verb)}"


def test_every_method_is_listed_with_its_http_path() -> None:
    services = [descriptor_pool.Default().FindServiceByName(service.name) for service in SERVICES]
    expected = {
        (service.name, method.name, http(method)) for service in services for method in service.methods
    }
    listed, service = set(), ""
    for name, method, _, path in rows("Methods")[1:]:
        service = name.strip("`") or service  # an empty cell means: as above
        listed.add((service, method.strip("`"), path.strip("`")))
    assert listed == expected


def test_every_reason_is_listed_with_its_status() -> None:
    table = [row for row in rows("Errors") if len(row) == 5][1:]
    assert {row[0].strip("`") for row in table} <= set(grpc.StatusCode.__members__)
    listed = {(row[0].strip("`"), reason) for row in table for reason in re.findall(r"`([A-Z_]+)`", row[1])}
    sent = [
        errors.ImageNotCachedError("").to_status_error("image"),
        errors.ImageNotFetchedError("").to_status_error("image"),
        errors.NoModelError(""),
        errors.UnknownMethodError(),
        errors.DeadlineExceededError("", "MAX_CALL_TIME", "server"),
        errors.DeadlineExceededError("", "MAX_RECEIVE_TIME", "caller"),
        errors.MessageTooLargeError(1),
        errors.TritonUnavailableError(""),
        errors.NotFiniteError(""),
        errors.RequestKilledServerError("", ""),
        errors.OverloadedError("", "calls", 1),
        errors.UnauthenticatedError("", "KEY_MISSING"),
        errors.UnauthenticatedError("", "KEY_UNKNOWN"),
        *(
            status_error(InferenceServerException("", code))
            for code in ("DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED")
        ),
        status_error(InferenceServerException("", "INTERNAL")),
    ]
    ends = [errors.end_of(error) for error in [*sent, ValueError(), asyncio.CancelledError()]]
    ends += [errors.end_of(asyncio.CancelledError(), **{name: True}) for name in ("is_late", "is_stopped")]
    # The interceptor's own.
    others = {("INVALID_ARGUMENT", "NO_MESSAGE"), ("FAILED_PRECONDITION", "NO_STREAMS")}
    assert listed == others | {(end.code.name, end.reason) for end in ends}
    # None was forgotten above.
    own = (error for error in errors.StatusError.__subclasses__() if error.__module__ == errors.__name__)
    kinds = {error.__name__ for error in own}
    assert kinds - {type(error).__name__ for error in sent} == {"InvalidArgumentError"}


def test_links_lead_to_headings() -> None:
    headings = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", README, flags=re.DOTALL), re.MULTILINE)
    anchors = {re.sub(r"[^a-z -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    assert set(re.findall(r"\]\(#([^)]*)\)", README)) <= anchors


async def test_the_tools_of_assistants_are_listed() -> None:
    async with AsyncClient("127.0.0.1:9") as client:
        tools = await make_server(client, Images()).list_tools()
    listed = {row[0].strip("`") for row in rows("For assistants: MCP")[1:]}
    assert listed == {tool.name for tool in tools}


def test_assistants_start_a_command_that_there_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [settings] = [json.loads(block) for block in JSON_BLOCKS if "mcpServers" in block]
    started = settings["mcpServers"]["visiongate"]
    assert started["command"].endswith("/visiongate")
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "Pictures").mkdir()
    # It reads standard input, which is at its end.
    result = subprocess.run(
        [Path(sys.executable).parent / "visiongate", *started["args"]],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, b"", b"")


async def test_grpc_sends_again_with_the_service_config() -> None:
    [config] = [block for block in JSON_BLOCKS if "methodConfig" in block]
    refusals = [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED]

    async def list_models(_: object, context: Any) -> bytes:
        if refusals:
            await context.abort(refusals.pop())
        return b"models"

    name = "visiongate.v1.ModelService"
    handlers: dict[str, Any] = {"ListModels": grpc.unary_unary_rpc_method_handler(list_models)}
    server = grpc.aio.server()
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(name, handlers)])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    options = [("grpc.service_config", config), ("grpc.enable_http_proxy", 0)]
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
            call: Any = channel.unary_unary(f"/{name}/ListModels")
            assert await call(b"", timeout=60) == b"models"
    finally:
        await server.stop(None)
    assert not refusals
