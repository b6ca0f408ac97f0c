"""Streams through a real gateway: answers, order, broken items, windows, ends of all kinds."""

import asyncio
import contextlib
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from prometheus_client import REGISTRY

from export.demo import scenes
from export.demo.serving import REPOSITORY
from gateway.embedded import EmbeddedTriton
from gateway.server import Gateway
from gateway.services.messages.stream import METHODS, REQUESTS
from gateway.services.registry import SERVICES
from gateway.settings import Settings
from visiongate import AsyncClient, Client, InvalidArgumentError, VisiongateError
from visiongate.operations import (
    Operation,
    detection,
    embedding,
    everything,
    gaze,
    models,
    segmentation,
    text,
)
from visiongate.v1 import stream_service_pb2
from visiongate.v1.stream_service_pb2 import ProcessRequest as Request
from visiongate.v1.stream_service_pb2 import ProcessResponse as Response

METHOD = "/visiongate.v1.StreamService/Process"
# Processes start, where others keep all cores busy.
PATIENCE_S = 100
COMMAND = str(Path(sys.executable).parent / "visiongate")
SCENE = scenes.draw(scenes.FIRST_UNSEEN_SEED, 240, 240).image
WORDS = ["red circle", "blue star"]
NAMES = {METHODS[number]: field.name for number, field in REQUESTS.items()}
SETTINGS = Request(settings=stream_service_pb2.StreamSettings())
IN_ORDER = Request(settings=stream_service_pb2.StreamSettings(order=stream_service_pb2.STREAM_ORDER_SENT))
OPERATIONS: list[Operation[Any]] = [
    detection.detect(SCENE, WORDS),
    segmentation.segment(SCENE, points=[[[60, 60]]]),
    segmentation.segment_phrases(SCENE, WORDS),
    everything.segment_everything(SCENE, points_per_side=4),
    detection.detect_batch([SCENE], WORDS),
    segmentation.segment_phrases_batch([SCENE], WORDS),
    everything.segment_everything_batch([SCENE], points_per_side=4),
    gaze.estimate_gaze_batch([SCENE]),
    segmentation.encode_image(SCENE),
    embedding.embed_images([SCENE]),
    embedding.embed_texts(WORDS),
    embedding.compare(SCENE, [SCENE]),
    embedding.classify([SCENE], WORDS),
    gaze.estimate_gaze(SCENE),
    text.recognize_text([SCENE]),
    models.list_models(),
]


@pytest.fixture(scope="module")
async def gateway(demo_settings: Settings) -> AsyncIterator[Gateway]:
    async with Gateway(demo_settings.model_copy(update={"max_concurrent_calls": 16})) as server:
        yield server


@pytest.fixture
async def channel(gateway: Gateway) -> AsyncIterator[Any]:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{gateway.port}") as connected:
        yield connected


def stream(channel: Any, **options: Any) -> Any:
    return channel.stream_stream(
        METHOD,
        request_serializer=Request.SerializeToString,
        response_deserializer=Response.FromString,
    )(**options)


def item(name: str, operation: Operation[Any]) -> Request:
    request: dict[str, Any] = {NAMES[operation.method]: operation.request}
    return Request(item=stream_service_pb2.StreamItem(id=name, **request))


async def answers(call: Any) -> list[Any]:
    """The results of a stream until its end, its settings left out. Raises how it ended, if not well."""
    every = []
    while (response := await call.read()) is not grpc.aio.EOF:
        every.append(response)
    if (code := await call.code()) is not grpc.StatusCode.OK:
        raise grpc.aio.AioRpcError(
            code, await call.initial_metadata(), await call.trailing_metadata(), await call.details()
        )
    return [getattr(each, content) for each in every if (content := each.WhichOneof("content")) != "settings"]


async def eventually(is_so: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not is_so():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def gauge(name: str) -> float:
    return REGISTRY.get_sample_value(f"visiongate_{name}") or 0.0


def without_times(response: Any) -> Message:
    with contextlib.suppress(ValueError):
        response.ClearField("timings")
    found: Message = response
    return found


def test_every_unary_method_has_its_place_in_the_contract() -> None:
    unary = {name for service in SERVICES for name in service.methods if name != METHOD}
    assert set(METHODS.values()) == unary == {operation.method for operation in OPERATIONS}
    result = stream_service_pb2.StreamResult.DESCRIPTOR.fields_by_number
    for number, field in REQUESTS.items():
        assert field.message_type is not None
        answer = result[number]
        assert answer.name == field.name
        assert answer.message_type is not None
        assert answer.message_type.name == field.message_type.name.removesuffix("Request") + "Response"


async def test_every_answer_is_that_of_the_unary_call(channel: Any) -> None:
    call = stream(channel)
    await call.write(SETTINGS)
    assert (await call.read()).settings.max_items == 32
    for number, operation in enumerate(OPERATIONS):
        unary = channel.unary_unary(
            operation.method,
            request_serializer=type(operation.request).SerializeToString,
            response_deserializer=operation.response_type.FromString,
        )
        expected = await unary(operation.request)
        await call.write(item(str(number), operation))
        result = (await call.read()).result
        assert (result.id, result.WhichOneof("outcome")) == (str(number), NAMES[operation.method])
        answer = getattr(result, NAMES[operation.method])
        if "timings" in answer.DESCRIPTOR.fields_by_name:
            assert answer.HasField("timings")
        assert without_times(answer) == without_times(expected), operation.method
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF
    assert await call.code() is grpc.StatusCode.OK


async def test_a_broken_item_has_the_unary_call_s_error_and_ends_nothing(channel: Any) -> None:
    broken = embedding.embed_images([b"not an image"])
    unary = channel.unary_unary(broken.method, request_serializer=type(broken.request).SerializeToString)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await unary(broken.request, metadata=(("x-request-id", "mine.2"),))
    expected = dict(caught.value.trailing_metadata() or ())["grpc-status-details-bin"]
    call = stream(channel, metadata=(("x-request-id", "mine"),))
    await call.write(IN_ORDER)
    fine, lost = embedding.embed_texts(["x"]), embedding.embed_texts(["x"], model="giant")
    no_request = Request(item=stream_service_pb2.StreamItem(id="nothing"))
    large = embedding.embed_texts(["x"])
    large.request.texts.extend(["y" * 1000] * 600)  # type: ignore[attr-defined]
    for each in (
        item("a", fine), item("b", broken), Request(), item("c", lost), no_request, item("", fine),
        item("n" * 129, fine), item("d", large), item("e", fine),
    ):  # fmt: skip
        await call.write(each)
    await call.done_writing()
    results = await answers(call)
    assert [result.id for result in results] == ["a", "b", "c", "nothing", "", "n" * 129, "d", "e"]
    assert results[1].error == status_pb2.Status.FromString(expected)
    assert results[1].request_id == "mine.2"
    assert [result.WhichOneof("outcome") for result in results] == [
        "embed_texts",
        *["error"] * 6,
        "embed_texts",
    ]

    def field_of(status: status_pb2.Status) -> str:
        found = error_details_pb2.BadRequest()
        assert status.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
        assert any(detail.Unpack(found) for detail in status.details)
        return str(found.field_violations[0].field)

    assert [field_of(result.error) for result in results[2:7]] == [
        "model", "item.request", "item.id", "item.id", "request"
    ]  # fmt: skip


async def test_two_items_of_one_name_are_one_too_many(channel: Any) -> None:
    call = stream(channel)
    await call.write(SETTINGS)
    await call.write(item("a", everything.segment_everything(SCENE, points_per_side=6)))
    await call.write(item("a", embedding.embed_texts(["x"])))
    await call.done_writing()
    first, second = await answers(call)
    assert "not answered yet" in first.error.message
    assert second.WhichOneof("outcome") == "segment_everything"


@pytest.mark.parametrize("is_ordered", [True, False])
async def test_order(channel: Any, is_ordered: bool) -> None:
    call = stream(channel)
    await call.write(IN_ORDER if is_ordered else SETTINGS)
    names = ["slow", *map(str, range(10))]
    await call.write(item("slow", everything.segment_everything(SCENE[1:], points_per_side=6)))
    for name in names[1:]:
        await call.write(item(name, embedding.embed_texts(["x"])))
    await call.done_writing()
    found = [result.id for result in await answers(call)]
    assert sorted(found) == sorted(names)
    assert (found == names) is is_ordered
    assert found[0] == ("slow" if is_ordered else "0")


@pytest.mark.parametrize(
    ("messages", "says"),
    [
        ([item("a", embedding.embed_texts(["x"]))], "must be the first"),
        ([SETTINGS, SETTINGS], "must be the first"),
        ([Request(settings=stream_service_pb2.StreamSettings(order=7))], "not a known order"),  # type: ignore[arg-type]
    ],
)
async def test_settings_come_first_and_once(channel: Any, messages: list[Request], says: str) -> None:
    call = stream(channel)
    for message in messages:
        await call.write(message)
    with pytest.raises(grpc.aio.AioRpcError, match=says) as caught:
        await answers(call)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_items_count_as_calls_and_a_stream_has_one_line(
    channel: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "gateway.calls")
    method = embedding.embed_texts(["x"]).method
    labels = {"method": method, "code": "OK", "reason": "", "fault": "none"}
    before = REGISTRY.get_sample_value("visiongate_calls_total", labels) or 0
    call = stream(channel, metadata=(("x-request-id", "mine"),))
    await call.write(SETTINGS)
    for number in range(3):
        await call.write(item(str(number), embedding.embed_texts(["x"])))
    await call.write(item("broken", embedding.embed_images([b""])))
    await call.done_writing()
    assert len(await answers(call)) == 4
    assert REGISTRY.get_sample_value("visiongate_calls_total", labels) == before + 3
    await eventually(lambda: len(caplog.records) == 2)
    failed, whole = [record.__dict__["fields"] for record in caplog.records]
    assert (failed["method"], failed["code"]) == (embedding.embed_images([b""]).method, "INVALID_ARGUMENT")
    assert (whole["method"], whole["code"]) == (METHOD, "OK")
    assert (whole["items"], whole["failed_items"]) == (4, 1)


async def test_a_slow_reader_stops_a_fast_sender(gateway: Gateway, channel: Any) -> None:
    """What is held is bounded by the window, on this side by what gRPC keeps."""
    many = embedding.embed_texts([f"text {number}" for number in range(200)])
    call = stream(channel)
    await call.write(Request(settings=stream_service_pb2.StreamSettings(max_items=4)))
    assert (await call.read()).settings.max_items == 4
    written = 0

    async def send() -> None:
        nonlocal written
        for number in range(20_000):
            await call.write(item(str(number), many))
            written += 1

    sending = asyncio.create_task(send())
    (served,) = gateway._interceptor._streams._under_way
    counts = served._call.counts
    await eventually(lambda: counts.get("items", 0) >= 4 and not gauge("calls_in_flight"))
    await asyncio.sleep(0.5)
    size = 200 * 256
    # Beside those in the window one may be gone, to where gRPC keeps what nobody has read, or several.
    assert counts["items"] <= served._call.response_bytes // size + 5
    assert served._call.response_bytes < 8 << 20
    # What gRPC lets a caller send ahead, of 50 MB.
    assert written * many.request.ByteSize() < 8 << 20
    # Twice each answer that is not taken.
    assert gauge("bytes_in_flight") < 4 * 2 * 1.2 * size
    before = counts["items"]
    for number in range(before + 20):
        assert (await call.read()).result.WhichOneof("outcome") == "embed_texts", number
    await eventually(lambda: counts["items"] >= before + 20)
    sending.cancel()
    call.cancel()
    await eventually(lambda: gauge("bytes_in_flight") == 0)


async def test_a_caller_that_vanishes_takes_its_work_along(gateway: Gateway, channel: Any) -> None:
    call = stream(channel)
    await call.write(SETTINGS)
    for number in range(8):
        await call.write(item(str(number), everything.segment_everything(SCENE[number:], points_per_side=32)))
    await eventually(lambda: gauge("calls_in_flight") == 8)
    call.cancel()
    await eventually(lambda: gauge("calls_in_flight") == gauge("bytes_in_flight") == 0)
    await eventually(lambda: not gateway._interceptor._streams._under_way)
    assert gateway._interceptor._rules.gate._arrivals._bytes.taken == 0


async def test_streams_wait_for_places_and_leave_some_to_calls(gateway: Gateway, channel: Any) -> None:
    """Heavy items are worth several places, of which streams have twelve."""
    heavy = embedding.embed_texts([f"label {number}" for number in range(600)])
    calls = [stream(channel) for _ in range(3)]
    for call in calls:
        await call.write(SETTINGS)
        for number in range(20):
            await call.write(
                item(str(number), heavy if number % 5 == 0 else embedding.embed_texts([f"{number}"]))
            )
        await call.done_writing()
    async with AsyncClient(f"127.0.0.1:{gateway.port}", wait=False) as client:
        collected = [asyncio.create_task(answers(call)) for call in calls]
        for number in range(20):
            await client.embed_texts([f"call {number}"])
        for results in await asyncio.gather(*collected):
            assert len(results) == 20
            assert {result.WhichOneof("outcome") for result in results} == {"embed_texts"}
    await eventually(lambda: gauge("calls_in_flight") == 0)


async def test_there_are_so_many_streams_and_no_more(channel: Any) -> None:
    calls = [stream(channel) for _ in range(10)]
    for call in calls:
        await call.write(SETTINGS)
        await call.read()
    one_more = stream(channel)
    await one_more.write(SETTINGS)
    with pytest.raises(grpc.aio.AioRpcError, match="at most 10 streams") as caught:
        await answers(one_more)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    for call in calls:
        await call.done_writing()
        assert await answers(call) == []


async def test_a_revoked_key_ends_its_streams(demo_settings: Settings, tmp_path: Path) -> None:
    keys = tmp_path / "keys.toml"
    add = [COMMAND, "keys", "add", "camera", "--file", str(keys)]
    added = await asyncio.to_thread(subprocess.run, add, capture_output=True, text=True, check=True)
    key = added.stdout.split()[-1]
    async with (
        Gateway(demo_settings.model_copy(update={"api_keys": keys})) as guarded,
        grpc.aio.insecure_channel(f"127.0.0.1:{guarded.port}") as channel,
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await answers(stream(channel))
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
        call = stream(channel, metadata=(("x-api-key", key),))
        await call.write(SETTINGS)
        await call.write(item("a", embedding.embed_texts(["x"])))
        assert [(await call.read()).WhichOneof("content") for _ in range(2)] == ["settings", "result"]
        remove = [COMMAND, "keys", "remove", "camera", "--file", str(keys)]
        await asyncio.to_thread(subprocess.run, remove, capture_output=True, check=True)
        ended = asyncio.create_task(answers(call))

        async def ask() -> bool:
            with contextlib.suppress(asyncio.InvalidStateError, grpc.aio.AioRpcError):
                await call.write(item("b", embedding.embed_texts(["x"])))
            return ended.done()

        async with asyncio.timeout(20):
            while not await ask():  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await ended
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_a_server_that_stops_says_goodbye(demo_settings: Settings) -> None:
    settings = demo_settings.model_copy(update={"grace_s": 10})
    async with contextlib.AsyncExitStack() as stack:
        server = await stack.enter_async_context(Gateway(settings))
        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            idle, call = stream(channel), stream(channel)
            await idle.write(SETTINGS)
            await call.write(SETTINGS)
            for number in range(6):
                operation = everything.segment_everything(SCENE[number:], points_per_side=4)
                await call.write(item(str(number), operation))
            await eventually(lambda: gauge("calls_in_flight") == 6)
            stopping = asyncio.create_task(stack.aclose())
            *results, goodbye = await answers(call)
            assert {result.WhichOneof("outcome") for result in results} == {"segment_everything"}
            assert (len(results), goodbye.item_count) == (6, 6)
            assert goodbye.reason == stream_service_pb2.GOODBYE_REASON_STOPPING
            [goodbye] = await answers(idle)
            assert goodbye.item_count == 0
            await stopping


def small(number: int) -> Operation[Any]:
    return embedding.embed_texts([f"text {number}"])


async def test_old_streams_end_and_the_client_goes_on(demo_settings: Settings) -> None:
    young = demo_settings.model_copy(update={"max_connection_age_s": 0.3})
    async with Gateway(young) as server, AsyncClient(f"127.0.0.1:{server.port}") as client:

        async def each() -> AsyncIterator[Operation[Any]]:
            for number in range(60):
                await asyncio.sleep(0.02)
                yield small(number)

        found = [(key, result) async for key, result in client.stream(each(), ordered=True)]
    assert [key for key, _ in found] == list(range(60))
    assert not any(isinstance(result, VisiongateError) for _, result in found)


async def test_the_clients_streams(gateway: Gateway) -> None:
    address = f"127.0.0.1:{gateway.port}"
    expected = [SCENE[:, 40 * number :] for number in range(3)]

    def operations() -> list[Any]:
        return [
            *((("image", number), embedding.embed_images([image])) for number, image in enumerate(expected)),
            ("broken", embedding.embed_images([b"nothing"])),
            ("found", detection.detect(SCENE, WORDS, min_score=0)),
        ]

    async with AsyncClient(address) as client:
        alone = [await client.embed_images([image]) for image in expected]
        objects = await client.detect(SCENE, WORDS, min_score=0)
        results: dict[Any, Any] = {key: result async for key, result in client.stream(operations())}

    def by_threads() -> list[tuple[Any, Any]]:
        with Client(address, channels=2) as client:
            for _ in client.stream(map(small, range(1000))):
                break  # the rest is not asked for
            return list(client.stream(iter(operations()), ordered=True, window=2))

    ordered = await asyncio.to_thread(by_threads)
    assert [key for key, _ in ordered] == [key for key, _ in operations()]
    for found in (results, dict(ordered)):
        for number, rows in enumerate(alone):
            assert abs(found["image", number] - rows).max() < 1e-5
        assert found["image", 0].info.request_id
        assert found["image", 0].info.timings is not None
        assert isinstance(found["broken"], InvalidArgumentError)
        assert found["broken"].field == "images[0].encoded"
        assert [each.phrase for each in found["found"]] == [each.phrase for each in objects]
    await eventually(lambda: not gateway._interceptor._streams._under_way)


async def test_lists_of_any_length_in_batches(gateway: Gateway) -> None:
    address = f"127.0.0.1:{gateway.port}"
    pictures: list[Any] = [SCENE[number:] for number in range(7)]
    pictures[5] = b"nothing"
    taken = 0

    def each() -> Any:
        nonlocal taken
        for picture in pictures:
            taken += 1
            yield picture

    async with AsyncClient(address, channels=2) as client:
        expected = await client.embed_images(pictures, strict=False)
        rows: list[Any] = [
            row async for row in client.iter_embed_images(each(), batch_size=2, concurrency=2, strict=False)
        ]
        with pytest.raises(InvalidArgumentError) as caught:
            [row async for row in client.iter_embed_images(each(), batch_size=2)]
        assert caught.value.field == "images[5].encoded"
        assert [labels[0].label async for labels in client.iter_classify([SCENE], labels=iter(WORDS))]
        found = [each async for each in client.iter_detect([SCENE] * 3, phrases=iter(WORDS), batch_size=2)]
        assert len(found) == 3
    assert len(rows) == 7
    assert (rows[5].field, rows[5].message.startswith("images[5]")) == ("images[5].encoded", True)
    assert all(abs(rows[number] - expected[number]).max() < 1e-5 for number in range(7) if number != 5)

    def by_threads() -> None:
        nonlocal taken
        taken = 0
        with Client(address) as client:
            found = client.iter_embed_images(each(), batch_size=1, concurrency=2)
            next(found)
            assert taken <= 3
            assert len(list(client.iter_embed_texts((f"{n}" for n in range(40)), batch_size=16))) == 40

    await asyncio.to_thread(by_threads)


async def test_another_thread_can_end_a_stream(gateway: Gateway) -> None:
    more = threading.Event()

    def operations() -> Iterator[Operation[Any]]:
        yield models.list_models()
        more.wait()

    def wait_for_another() -> list[Any]:
        with Client(f"127.0.0.1:{gateway.port}") as client:
            results = client.stream(operations())
            assert not isinstance(next(results)[1], VisiongateError)
            closing = threading.Timer(0.1, results.close)
            closing.start()
            rest = list(results)
            closing.join()
            assert list(results) == []
            return rest

    try:
        assert await asyncio.wait_for(asyncio.to_thread(wait_for_another), PATIENCE_S) == []
    finally:
        more.set()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


class Server:
    """A gateway as a process of its own, always on the same port."""

    def __init__(self, triton: str, repository: Path) -> None:
        self._triton, self._repository, self.port = triton, repository, free_port()

    async def start(self) -> None:
        self.process = await asyncio.create_subprocess_exec(
            *(COMMAND, "serve", "--port", str(self.port), "--triton", self._triton),
            *("--repository", str(self._repository), "--grace-s", "20", "--log-level", "warning"),
            stdout=subprocess.PIPE,
        )
        assert self.process.stdout is not None
        await self.process.stdout.readline()

    async def stop(self, number: int) -> None:
        self.process.send_signal(number)
        await self.process.wait()


@pytest.mark.long
async def test_ends_of_gateway_and_triton_lose_nothing(tmp_path: Path) -> None:
    """Stopped, killed, and its Triton stopped: each item is answered once, as if nothing had been."""
    # One model, that starts quickly.
    shutil.copytree(REPOSITORY / "gaze", tmp_path / "gaze")
    triton_port = free_port()
    first = EmbeddedTriton(tmp_path, grpc_port=triton_port)
    await asyncio.to_thread(first.start)
    tritons = [first]
    server = Server(f"127.0.0.1:{triton_port}", tmp_path)
    await server.start()
    done: dict[int, Any] = {}
    count = 0

    async def restart(number: int) -> None:
        await server.stop(number)
        await server.start()

    async def new_triton() -> None:
        await asyncio.to_thread(tritons[-1].stop)
        tritons.append(EmbeddedTriton(tmp_path, grpc_port=triton_port))
        await asyncio.to_thread(tritons[-1].start)

    async def happen(what: Awaitable[None]) -> None:
        nonlocal count
        before = len(done)
        await eventually(lambda: using.done() or len(done) > before + 20)
        await what
        before = len(done)
        await eventually(lambda: using.done() or len(done) > before + 20)

    is_over = False

    async def each() -> AsyncIterator[Operation[Any]]:
        nonlocal count
        while not is_over:
            yield gaze.estimate_gaze(SCENE[count % 50 :, count // 50 % 100 :], boxes=[(10, 10, 90, 90)])
            count += 1

    async def use() -> None:
        async with AsyncClient(f"127.0.0.1:{server.port}", timeout=60) as client:
            async for key, result in client.stream(each(), window=16):
                assert key not in done
                done[key] = result

    using = asyncio.create_task(use())
    try:
        for what in (restart(signal.SIGTERM), restart(signal.SIGKILL), new_triton()):
            await happen(what)
        is_over = True
        await using
    finally:
        using.cancel()
        if server.process.returncode is None:
            os.kill(server.process.pid, signal.SIGKILL)
            await server.process.wait()
        await asyncio.to_thread(tritons[-1].stop)
    assert sorted(done) == list(range(count))
    assert [result for result in done.values() if isinstance(result, VisiongateError)] == []
