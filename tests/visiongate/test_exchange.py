"""Operations on a stream, without one: what is sent, sent again, and given back."""

import time
from typing import Any

import grpc
import pytest
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2

from visiongate import (
    Client,
    DeadlineExceededError,
    InvalidArgumentError,
    MessageTooLargeError,
    OverloadedError,
    UnavailableError,
    VisiongateError,
)
from visiongate.exchange import Exchange
from visiongate.operations import Operation, embedding, models
from visiongate.v1 import embedding_service_pb2, model_service_pb2, stream_service_pb2

LIST = models.list_models()


def exchange(*, ordered: bool = False, window: int = 4, **options: Any) -> Exchange:
    return Client("127.0.0.1:9", **options)._exchange(ordered=ordered, window=window)


def sent(made: Exchange) -> list[str]:
    """The ids of all that is to be sent now."""
    names = []
    while (request := made.next_request()) is not None:
        names.append(request.item.id)
    return names


def answer(made: Exchange, name: str, variant: str = "") -> None:
    listed = model_service_pb2.ListModelsResponse(models=[model_service_pb2.Model(variant=variant or name)])
    result = stream_service_pb2.StreamResult(id=name, request_id=f"r{name}", list_models=listed)
    made.receive(stream_service_pb2.ProcessResponse(result=result))


def fail(made: Exchange, name: str, code: grpc.StatusCode, text: str = "no", retry_s: float = 0) -> None:
    status = status_pb2.Status(code=code.value[0], message=text)
    if retry_s:
        packed = any_pb2.Any()
        delay = duration_pb2.Duration(nanos=int(retry_s * 1e9))
        packed.Pack(error_details_pb2.RetryInfo(retry_delay=delay))
        status.details.append(packed)
    result = stream_service_pb2.StreamResult(id=name, error=status)
    made.receive(stream_service_pb2.ProcessResponse(result=result))


def taken(made: Exchange) -> list[Any]:
    """The keys of all results that there are, with their variant or error."""
    found = []
    while (result := made.take()) is not None:
        key, value = result
        found.append((key, value if isinstance(value, VisiongateError) else value[0].variant))
    return found


class Lost(grpc.RpcError):
    def __init__(self, code: grpc.StatusCode = grpc.StatusCode.UNAVAILABLE, text: str = "gone") -> None:
        self._code, self._text = code, text

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return self._text

    def trailing_metadata(self) -> Any:
        return ()


def test_results_come_as_they_are_ready_or_in_order() -> None:
    for ordered, expected in ((False, ["b", 0, 2]), (True, [0, "b", 2])):
        made = exchange(ordered=ordered)
        for item in (LIST, ("b", LIST), LIST):
            made.add(item)
        assert sent(made) == ["0.0", "1.0", "2.0"]
        found = []
        for name in ("1.0", "0.0", "2.0"):
            answer(made, name)
            found += [key for key, _ in taken(made)]
        assert found == expected
        assert made.is_empty


def test_no_more_than_the_window_is_taken() -> None:
    made = exchange(window=2)
    made.add(LIST)
    assert made.has_room
    made.add(LIST)
    assert not made.has_room
    sent(made)
    answer(made, "0.0")
    assert not made.has_room  # its result was not taken yet
    assert len(taken(made)) == 1
    assert made.has_room


def test_what_a_lost_stream_leaves_unanswered_is_sent_again_in_order() -> None:
    made = exchange()
    made._connection.reached = True
    for _ in range(4):
        made.add(LIST)
    assert [made.next_request().item.id for _ in range(3)] == ["0.0", "1.0", "2.0"]  # type: ignore[union-attr]
    answer(made, "1.0")
    assert 0 < made.lost(Lost()) <= 0.1
    assert sent(made) == ["0.0", "2.0", "3.0"]
    assert 0.1 <= made.lost(None) <= 0.2
    assert sent(made) == ["0.0", "2.0", "3.0"]
    answer(made, "0.0", "first")
    answer(made, "0.0", "second")
    assert taken(made) == [(1, "1.0"), (0, "first")]


@pytest.mark.parametrize(
    ("failure", "options"),
    [
        (Lost(grpc.StatusCode.UNAUTHENTICATED), {}),
        (Lost(grpc.StatusCode.UNIMPLEMENTED), {}),
        (Lost(), {"wait": False}),
    ],
)
def test_what_another_stream_would_not_mend_is_raised(failure: Lost, options: Any) -> None:
    made = exchange(**options)
    made.add(LIST)
    sent(made)
    with pytest.raises(VisiongateError) as caught:
        made.lost(failure)
    assert caught.value.code is failure.code()


def test_a_server_that_was_never_there_is_an_error_soon() -> None:
    made = exchange()
    made.add(LIST)
    made.lost(Lost())
    made._first_failure_s -= 3
    with pytest.raises(UnavailableError):
        made.lost(Lost())


def test_an_item_s_error_is_its_result_unless_waiting_mends_it() -> None:
    made = exchange(timeout=20)
    made.add(LIST)
    made.add(LIST)
    sent(made)
    fail(made, "0.0", grpc.StatusCode.INVALID_ARGUMENT)
    fail(made, "1.0", grpc.StatusCode.RESOURCE_EXHAUSTED, retry_s=0.05)
    [(key, error)] = taken(made)
    assert key == 0
    assert isinstance(error, InvalidArgumentError)
    assert sent(made) == []
    assert 0 < made.tick() <= 0.1
    time.sleep(0.11)
    made.tick()
    assert sent(made) == ["1.0"]
    fail(made, "1.0", grpc.StatusCode.RESOURCE_EXHAUSTED, retry_s=0.9)
    made._entries[1].call._end = 0  # type: ignore[union-attr]
    made.tick()
    [(_, error)] = taken(made)
    assert isinstance(error, DeadlineExceededError | OverloadedError)


def test_what_is_late_is_an_error_and_its_answer_is_nothing() -> None:
    made = exchange(timeout=0.01)
    made.add(LIST)
    sent(made)
    time.sleep(0.02)
    made.tick()
    [(_, error)] = taken(made)
    assert isinstance(error, DeadlineExceededError)
    answer(made, "0.0")
    assert taken(made) == []
    assert made.is_empty


def test_too_large_an_item_is_not_sent() -> None:
    made = exchange(max_message_bytes=100)
    made.add(embedding.embed_texts(["x" * 200]))
    assert sent(made) == []
    [(_, error)] = taken(made)
    assert isinstance(error, MessageTooLargeError)


def test_an_operation_of_several_requests_is_one_result() -> None:
    texts = [f"text {number}" for number in range(2000)]
    operation = embedding.embed_texts(texts)
    made = exchange()
    made.add(operation)
    assert sent(made) == ["0.0", "0.1"]

    def embedded(count: int, value: float) -> Any:
        import numpy as np

        packed = np.full(2, value, "<f4").tobytes()
        one = embedding_service_pb2.EmbedTextsResponse().results.add()
        one.embedding.packed = packed
        return embedding_service_pb2.EmbedTextsResponse(results=[one] * count, dimensions=2)

    for name, count, value in (("0.1", 976, 2.0), ("0.0", 1024, 1.0)):
        result = stream_service_pb2.StreamResult(id=name, embed_texts=embedded(count, value))
        made.receive(stream_service_pb2.ProcessResponse(result=result))
    made_result = made.take()
    assert made_result is not None
    rows = made_result[1]
    assert rows.shape == (2000, 2)
    assert (rows[0, 0], rows[1999, 0]) == (1.0, 2.0)
    # The index of an error is that in the whole list.
    made.add(operation)
    sent(made)
    fail(made, "1.1", grpc.StatusCode.INVALID_ARGUMENT, "texts[3]: is empty")
    made_result = made.take()
    assert made_result is not None
    assert made_result[1].message == "texts[1027]: is empty"


@pytest.mark.parametrize("item", ["photo.jpg", ("key", "photo.jpg"), (LIST, LIST, LIST)])
def test_what_is_no_operation_is_a_mistake(item: Any) -> None:
    with pytest.raises(TypeError, match="give operations"):
        exchange().add(item)


def test_what_streams_do_not_have_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="streams have no /x"):
        exchange().add(Operation("/x", LIST.request, LIST.response_type, LIST.parse))
    for window in (0, True, 1.5):
        with pytest.raises(ValueError, match="window is"):
            exchange(window=window)  # type: ignore[arg-type]
