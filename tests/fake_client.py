"""A server at the edge of the client, as batch jobs see it, and inputs and a task for it."""

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self

import grpc
import pyarrow as pa

from visiongate import Model, VisiongateError
from visiongate.batch.item import Item
from visiongate.batch.task import Row, Task
from visiongate.errors import UnavailableError, error_kind

Answer = Callable[[list[bytes]], Any]


def lengths(files: list[bytes]) -> Any:
    """Answer as a server of `TASK` does: bytes that begin with `bad` are no image."""
    return [
        error("INVALID_ARGUMENT", "images[0]: no image") if data[:3] == b"bad" else len(data)
        for data in files
    ]


def error(code: str, message: str = "no", field: str = "") -> VisiongateError:
    status = grpc.StatusCode[code]
    return error_kind(status, "")(status, message, field=field)


def _operation(files: Sequence[bytes]) -> Any:
    return list(files)


TASK = Task(
    name="measure",
    settings={"unit": "byte"},
    models={"embedding": ""},
    batch_size=4,
    columns=pa.schema([("length", pa.int64())]),
    operation=_operation,
    rows=lambda answer: [
        each if isinstance(each, VisiongateError) else Row({"length": each}, 3, 2) for each in answer
    ],
)


class Stream:
    """One request is under way at a time. `close` may be called by any thread."""

    def __init__(self, answer: Answer, requests: Iterable[Any]) -> None:
        self._answer = answer
        self._requests = iter(requests)
        self.closed = threading.Event()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        key, files = next(self._requests)
        result = self._answer(files)
        if self.closed.is_set():
            raise StopIteration
        return key, result

    def close(self) -> None:
        self.closed.set()


@dataclass
class FakeClient:
    """A client whose server answers with a function. The function may return errors, or raise them."""

    answer: Answer = lengths
    address: str = "one:1"
    fingerprint: str = "abc"
    is_there: bool = True

    def __post_init__(self) -> None:
        self.asked: list[list[bytes]] = []
        self.streams: list[Stream] = []
        self.questions = 0

    def with_options(self, **_: Any) -> Self:
        return self

    def call(self, operation: Any) -> Any:
        return self.answer(operation)

    def list_models(self) -> list[Model]:
        self.questions += 1
        if not self.is_there:
            raise UnavailableError(grpc.StatusCode.UNAVAILABLE, "gone")
        return [Model("embedding", "clip", "small", True, True, 224, fingerprint=self.fingerprint)]

    def stream(self, requests: Iterable[Any], *, window: int) -> Stream:
        def ask(files: list[bytes]) -> Any:
            self.asked.append(files)
            return self.answer(files)

        self.streams.append(Stream(ask, requests))
        return self.streams[-1]


def item(name: str, data: bytes | Exception = b"data", version: str = "1") -> Item:
    def read() -> bytes:
        if isinstance(data, Exception):
            raise data
        return data

    return Item(name, read, version)


@dataclass
class Items:
    """A source of these items."""

    items: Sequence[Item]
    name: str = "items"
    ignored: int = 0

    def __iter__(self) -> Iterator[Item]:
        return iter(self.items)

    def count(self) -> int | None:
        return len(self.items)


def numbered(count: int) -> list[Item]:
    """Items of which each has another length."""
    return [item(f"{number:03d}", b"x" * (number + 1)) for number in range(count)]
