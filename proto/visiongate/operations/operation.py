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
    """One call: the method's full name, its request, how to read the response and the id of the call.

    `more` are further requests of a call that is too large for one message. Their responses are merged into
    the first one, as protobuf merges messages: lists are joined.
    """

    method: str
    request: Message
    response_type: type[Message]
    parse: Callable[[Any, str], Result]
    more: tuple[Message, ...] = ()
