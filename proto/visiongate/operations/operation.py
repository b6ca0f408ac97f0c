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

    `more` are further requests of a call that is too large for one message: `merge` joins their responses to
    the first one, and `parse` reads that.
    """

    method: str
    request: Message
    response_type: type[Message]
    parse: Callable[[Any, str], Result]
    more: tuple[Message, ...] = ()

    def merge(self, response: Message, further: Message) -> None:
        """Adds the response of one of `more`: lists are joined, timings are added up."""
        spent: Any = getattr(response, "timings", None)
        before = {} if spent is None else {field.name: value for field, value in spent.ListFields()}
        response.MergeFrom(further)
        if spent is not None:
            added: Any = further.timings  # type: ignore[attr-defined]
            for field in spent.DESCRIPTOR.fields:
                setattr(spent, field.name, before.get(field.name, 0) + getattr(added, field.name))
