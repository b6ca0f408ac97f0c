"""One call to the server, without the sending.

The synchronous and the asyncio client are both made from operations, so they cannot differ.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from google.protobuf.message import Message

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Operation(Generic[Result]):
    """One call: the method's full name, its request, how to read the response and the id of the call.

    `more` are further requests of a call that is too large for one message. `merge` joins their responses to
    the first one, and `parse` reads that. `list_name` is the field that holds the request's share of the
    list, and `first_index` the place of its first item in a longer list.
    """

    method: str
    request: Message
    response_type: type[Message]
    parse: Callable[[Any, str], Result]
    more: tuple[Message, ...] = ()
    list_name: str = ""
    first_index: int = 0

    def merge(self, response: Message, further: Message) -> None:
        """Add the response of one of `more`: lists are joined, timings are added up."""
        sums: Any = getattr(response, "timings", None)
        before = {} if sums is None else {field.name: value for field, value in sums.ListFields()}
        response.MergeFrom(further)
        if sums is not None:
            added: Any = further.timings  # type: ignore[attr-defined]
            for field in sums.DESCRIPTOR.fields:
                setattr(sums, field.name, before.get(field.name, 0) + getattr(added, field.name))
