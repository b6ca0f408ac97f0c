"""Errors of inputs become errors of fields; and an error that was dealt with keeps nothing alive."""

import asyncio
import weakref
from collections.abc import Callable, Coroutine
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2

from gateway.cache import ComputingCache
from gateway.concurrency import gather
from gateway.errors import (
    AnswerTooLargeError,
    ImageNotCachedError,
    ImageNotFetchedError,
    InputError,
    StatusError,
    forget_frames,
)

Work = Callable[[int], Coroutine[Any, Any, bytes]]


def detail(error: StatusError, kind: Any) -> Any:
    """The error's detail of a kind, from the message that an answer's item would carry."""
    message = kind()
    (packed,) = [detail for detail in error.to_message("id").details if detail.Is(kind.DESCRIPTOR)]
    packed.Unpack(message)
    return message


@pytest.mark.parametrize(
    ("error", "code", "reason"),
    [
        (InputError("is empty"), grpc.StatusCode.INVALID_ARGUMENT, ""),
        (AnswerTooLargeError("are too many"), grpc.StatusCode.INVALID_ARGUMENT, ""),
        (ImageNotCachedError("abc"), grpc.StatusCode.NOT_FOUND, "IMAGE_NOT_CACHED"),
        (ImageNotFetchedError("is away"), grpc.StatusCode.FAILED_PRECONDITION, "IMAGE_NOT_FETCHED"),
    ],
)
def test_an_input_error_names_its_field(error: InputError, code: grpc.StatusCode, reason: str) -> None:
    status = error.to_status_error("images[3].uri")
    assert status.code is code
    assert status.message == f"images[3].uri: {error}"
    assert status.to_message("id").code == code.value[0]
    assert detail(status, error_details_pb2.RequestInfo).request_id == "id"
    if reason:
        assert detail(status, error_details_pb2.ErrorInfo).reason == reason
    if code is not grpc.StatusCode.NOT_FOUND:
        (violation,) = detail(status, error_details_pb2.BadRequest).field_violations
        assert (violation.field, violation.description) == ("images[3].uri", str(error))


async def side_by_side(work: Work) -> None:
    await gather(work(number) for number in range(3))


async def through_a_cache(work: Work) -> None:
    await ComputingCache[bytes](None, 3, len).get_or_compute("a", lambda: work(0))


@pytest.mark.parametrize("is_cancelled", [False, True])
@pytest.mark.parametrize("way", [side_by_side, through_a_cache])
async def test_what_failed_work_held_is_freed_at_once(
    way: Callable[[Work], Coroutine[Any, Any, None]], is_cancelled: bool, without_cycle_search: None
) -> None:
    """Images and tensors are megabytes: those of a hundred calls must not wait for the garbage collector."""
    held: list[weakref.ref[set[int]]] = []

    async def work(number: int) -> bytes:
        image = {number}
        held.append(weakref.ref(image))
        await asyncio.sleep(60 if is_cancelled or number else 0)
        raise ValueError(image)

    async def ask() -> None:
        task = asyncio.create_task(way(work))
        await asyncio.sleep(0.01)
        task.cancel()
        try:
            await task
        except (ValueError, asyncio.CancelledError) as error:
            # The text of the ValueError names the image: it goes with the error.
            forget_frames(error)

    await ask()
    await asyncio.sleep(0.01)  # until what was cancelled has ended
    assert held
    assert [reference() for reference in held] == [None] * len(held)


def test_all_causes_are_forgotten() -> None:
    held: list[weakref.ref[set[int]]] = []

    def fail() -> None:
        tensor = {1}
        held.append(weakref.ref(tensor))
        raise ValueError("inner")

    def wrap() -> None:
        image = {2}
        held.append(weakref.ref(image))
        try:
            fail()
        except ValueError as error:
            raise StatusError(grpc.StatusCode.INTERNAL, "outer") from error

    with pytest.raises(StatusError) as caught:
        wrap()
    assert all(reference() is not None for reference in held)
    forget_frames(caught.value)
    assert [reference() for reference in held] == [None, None]
