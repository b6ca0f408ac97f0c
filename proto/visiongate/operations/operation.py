"""One call to the server, without the sending.

The sync and the asyncio client are both made from these, so that they cannot differ.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from google.protobuf.message import Message

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Operation(Generic[Result]):
    """One call: the method's full name, its request, how to read the response and the id of the call."""

    method: str
    request: Message
    response_type: type[Message]
    parse: Callable[[Any, str], Result]
