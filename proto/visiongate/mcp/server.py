"""The MCP server: its tools, over standard input and output or over HTTP on this machine."""

import importlib.metadata
import inspect
import logging
import socket
import sys
from collections.abc import Callable
from typing import Any

import uvicorn
from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.tools import Tool
from mcp.server.transport_security import TransportSecuritySettings
from mcp_types import ToolAnnotations
from pydantic import ConfigDict

from visiongate import AsyncClient
from visiongate.mcp import tools
from visiongate.mcp.errors import errors_in_words
from visiongate.mcp.images import Images
from visiongate.operations.image import MAX_FILE_BYTES

HOST = "127.0.0.1"
PATH = "/mcp"

# An image file as base64, and what is around it.
MAX_BODY_BYTES = MAX_FILE_BYTES * 4 // 3 + (1 << 20)
GRACE_S = 3

INSTRUCTIONS = (
    "Vision models for images: they find, count and cut out objects that words name, read text, sort and "
    "search images, and tell where faces look. Their boxes, counts and texts are more exact than a look at "
    "the image. Coordinates are pixels of the image itself, from its top left corner. "
)


def make_server(client: AsyncClient, images: Images) -> MCPServer[Any]:
    """Return the server of the tools. It asks `client` and reads `images`."""
    # The package's own handler folds lines at 80 columns. Standard output is the protocol.
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(levelname)s: %(message)s")
    return MCPServer(
        "visiongate",
        title="visiongate",
        instructions=INSTRUCTIONS + images.description,
        version=importlib.metadata.version("visiongate"),
        tools=[_registered(tool, images) for tool in tools.Tools(client, images).all()],
        log_level="WARNING",
    )


def _registered(function: tools.Tool, images: Images) -> Tool:
    tool = Tool.from_function(
        errors_in_words(function),
        description=_description(function, images),
        annotations=ToolAnnotations(read_only_hint=True, open_world_hint=False),
    )
    # By default an argument of a wrong name is ignored, and the assistant does not learn of it.
    arguments = tool.fn_metadata.arg_model
    arguments.model_config = ConfigDict(**arguments.model_config, extra="forbid")
    arguments.model_rebuild(force=True)
    tool.parameters = arguments.model_json_schema()
    return tool


def _description(function: Callable[..., Any], images: Images) -> str:
    text = inspect.getdoc(function) or ""
    takes_image = any(name in ("image", "images") for name in inspect.signature(function).parameters)
    return f"{text}\n\n{images.description}" if takes_image else text


async def serve_stdio(client: AsyncClient, images: Images) -> None:
    """Serve one assistant over standard input and output, until the input ends."""
    async with client:
        await make_server(client, images).run_stdio_async()


async def serve_http(client: AsyncClient, images: Images, port: int, say: Callable[[str], None]) -> None:
    """Serve assistants on this machine over HTTP. Tell `say` the address. Port 0 is any free one.

    Raises OSError if the port cannot be had.
    """
    async with client:
        with socket.create_server((HOST, port)) as listener:
            port = listener.getsockname()[1]
            # A web page that a browser on this machine shows must not get here under a name of its own.
            hosts = [f"{name}:{port}" for name in (HOST, "localhost")]
            security = TransportSecuritySettings(
                allowed_hosts=hosts, allowed_origins=[f"http://{host}" for host in hosts]
            )
            # Without sessions a client goes on after a restart.
            app = make_server(client, images).streamable_http_app(
                streamable_http_path=PATH,
                stateless_http=True,
                json_response=True,
                max_request_body_size=MAX_BODY_BYTES,
                transport_security=security,
            )
            config = uvicorn.Config(app, log_config=None, access_log=False, timeout_graceful_shutdown=GRACE_S)
            say(f"MCP at http://{HOST}:{port}{PATH}")
            await uvicorn.Server(config).serve(sockets=[listener])
