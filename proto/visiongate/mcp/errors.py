"""Errors, as an assistant reads them."""

import functools
import math
import re
from collections.abc import Awaitable, Callable
from typing import ParamSpec, TypeVar

from mcp.server.mcpserver.exceptions import ToolError

from visiongate.errors import (
    DeadlineExceededError,
    InternalError,
    NoModelError,
    OverloadedError,
    UnauthenticatedError,
    UnavailableError,
    VisiongateError,
)

P = ParamSpec("P")
R = TypeVar("R")

RETRY_S = 5
"""When to ask a full server again, if it does not say."""

_ADVICE = {
    UnavailableError: "Call this tool again when the server works: nothing here needs a restart.",
    OverloadedError: "Call this tool again in {wait_s} s.",
    NoModelError: "list_models names what this server has.",
    DeadlineExceededError: "A smaller image may help, or a larger --timeout of `visiongate mcp`.",
    UnauthenticatedError: "The user sets VISIONGATE_API_KEY where `visiongate mcp` is started.",
    InternalError: "It is a fault of the server, whose log says more.",
}
# How paths in the server's requests start, and the tools' arguments that become these.
_ARGUMENTS = (
    (r"^images\[0\]", "image"),
    (r"^candidates(\[\d+\])\.image", r"images\1"),
    (r"^subject\.(image|text)", r"\1"),
    (r"^query\.", ""),
)


def in_words(error: VisiongateError) -> str:
    """Return what went wrong, with the name of the tool's argument, and what to do about it."""
    message = error.message
    for path, argument in _ARGUMENTS:
        message = re.sub(path, argument, message)
    advice = next((advice for kind, advice in _ADVICE.items() if isinstance(error, kind)), "")
    if not advice:
        return message
    return f"{message.removesuffix('.')}. {advice.format(wait_s=math.ceil(error.retry_s or RETRY_S))}"


def errors_in_words(tool: Callable[P, Awaitable[R]]) -> Callable[P, Awaitable[R]]:
    """Give a tool's expected errors to the assistant. The text of any other error stays in the log."""

    @functools.wraps(tool)
    async def run(*arguments: P.args, **keywords: P.kwargs) -> R:
        try:
            return await tool(*arguments, **keywords)
        except VisiongateError as error:
            raise ToolError(in_words(error)) from error
        except (OSError, TypeError, ValueError) as error:
            raise ToolError(str(error)) from error

    return run
