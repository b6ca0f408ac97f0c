"""What callers rely on besides the answers: cost, caching, formats, discovery, deadlines, Triton's faults."""

import asyncio
import io
import re
import shutil
import time
from pathlib import Path
from typing import Any

import cv2
import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from PIL import Image
from skimage import data as skimage_data

from gateway import server
from gateway.catalog_loading import CatalogError
from gateway.embedded import EmbeddedTriton
from gateway.ports import ListenError
from gateway.server import Gateway
from gateway.services import detection, segmentation
from gateway.settings import Settings
from inference_counts import InferenceCounts
from visiongate import AsyncClient, VisiongateError
from visiongate.operations import Operation
from visiongate.operations.segmentation import segment
from visiongate.v1 import segmentation_service_pb2

PHOTO = skimage_data.coffee()


def some_boxes(count: int) -> np.ndarray[Any, Any]:
    rng = np.random.default_rng(7)
    corners = rng.uniform(0, (500, 300), (count, 2))
    return np.hstack([corners, corners + rng.uniform(5, 90, (count, 2))])


async def test_a_hundred_boxes_are_one_encoding_and_a_few_decoder_calls(
    client: AsyncClient, counts: InferenceCounts
) -> None:
    photo = PHOTO[:-1]
    encoder, decoder = [await counts.settled_soon(model) for model in ("sam_encoder", "sam_decoder")]
    regions = await client.segment(photo, boxes=some_boxes(100))
    assert len(regions) == 100
    encoded = await counts.settled_soon("sam_encoder", encoder.inferences + 1)
    decoded = await counts.settled_soon("sam_decoder", decoder.inferences + 4)
    assert encoded.inferences - encoder.inferences == 1
    assert decoded.inferences - decoder.inferences == 4


async def test_an_encoded_image_is_not_encoded_again(client: AsyncClient, counts: InferenceCounts) -> None:
    photo = PHOTO[:-2]
    encoded = await client.encode_image(photo)
    assert (encoded.width, encoded.height) == (600, 398)
    before = await counts.settled_soon("sam_encoder")
    by_id = await client.segment(encoded, boxes=some_boxes(1))
    by_pixels = await client.segment(photo, boxes=some_boxes(1))
    assert await counts.settled_soon("sam_encoder") == before
    assert by_id[0][0].rle == by_pixels[0][0].rle


async def test_calls_at_once_on_one_image_encode_it_once(
    client: AsyncClient, counts: InferenceCounts
) -> None:
    photo = PHOTO[:-3]
    before = (await counts.settled_soon("sam_encoder")).inferences
    await asyncio.gather(*(client.segment(photo, boxes=some_boxes(1)) for _ in range(8)))
    after = (await counts.settled_soon("sam_encoder", before + 1)).inferences
    assert after - before == 1


async def test_formats_say_the_same(client: AsyncClient) -> None:
    ((expected,),) = await client.segment(PHOTO, boxes=[[20, 30, 300, 350]])
    pixels = expected.pixels
    assert pixels.any()
    formats = segmentation_service_pb2.MaskFormat

    async def mask(mask_format: Any) -> Any:
        operation = segment(PHOTO, boxes=[[20, 30, 300, 350]])
        assert isinstance(operation.request, segmentation_service_pb2.SegmentRegionsRequest)
        operation.request.mask_format = mask_format
        response = await client.call(
            Operation(
                operation.method,
                operation.request,
                operation.response_type,
                lambda response, request_id: response,
            )
        )
        return response.regions[0].masks[0]

    png = await mask(formats.MASK_FORMAT_PNG)
    assert (np.asarray(Image.open(io.BytesIO(png.png))) == pixels * np.uint8(255)).all()
    bitmap = (await mask(formats.MASK_FORMAT_BITMAP)).bitmap
    bits = np.unpackbits(np.frombuffer(bitmap.data, np.uint8), count=bitmap.width * bitmap.height)
    assert (bits.reshape(bitmap.height, bitmap.width) == pixels).all()
    polygons = (await mask(formats.MASK_FORMAT_POLYGONS)).polygons.polygons
    rings = [ring for polygon in polygons for ring in (polygon.exterior, *polygon.holes)]
    drawn = np.zeros(pixels.shape, np.uint8)
    cv2.fillPoly(drawn, [np.array(ring.coordinates, np.int32).reshape(-1, 2) for ring in rings], 1)
    assert (drawn == pixels).all()


async def test_timings_on_request(client: AsyncClient) -> None:
    timings = (await client.detect(PHOTO[:-4], ["dog"])).info.timings
    assert timings is not None
    assert min(timings.decode_ms, timings.preprocess_ms, timings.inference_ms, timings.postprocess_ms) > 0


async def test_models_are_listed(client: AsyncClient) -> None:
    every = await client.list_models()
    models = [model for model in every if model.task in {"detection", "segmentation"}]
    assert [(model.task, model.family, model.variant, model.is_default) for model in models] == [
        ("detection", "grounding_dino", "tiny", True),
        ("segmentation", "sam", "tiny", True),
        ("segmentation", "sam2", "hiera_toy", False),
    ]
    assert all(model.ready for model in every)
    assert [model.input_size for model in models] == [224, 128, 128]
    # As the exporter marks the models of one export.
    assert all(re.fullmatch(r"[0-9a-f]{16,}", model.fingerprint) for model in every)
    assert len({model.fingerprint for model in every}) == len(every)


async def test_health_and_reflection(gateway: Gateway) -> None:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{gateway.port}") as channel:
        health: Any = health_pb2_grpc.HealthStub(channel)
        for service in ("", detection.SERVICE.name, segmentation.SERVICE.name):
            answer = await health.Check(health_pb2.HealthCheckRequest(service=service))
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)  # type: ignore[arg-type]
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        (answer,) = [answer async for answer in stub.ServerReflectionInfo(iter([request]))]
        assert {detection.SERVICE.name, segmentation.SERVICE.name} <= {
            s.name for s in answer.list_services_response.service
        }


async def test_a_deadline_is_honoured(gateway: Gateway) -> None:
    async with AsyncClient(f"127.0.0.1:{gateway.port}", timeout=0.05) as hasty:
        start = time.monotonic()
        with pytest.raises(VisiongateError) as caught:
            await hasty.segment(skimage_data.rocket(), boxes=some_boxes(900))
        assert caught.value.code is grpc.StatusCode.DEADLINE_EXCEEDED
        assert time.monotonic() - start < 5


async def test_a_cancelled_call_stops_its_work(client: AsyncClient, counts: InferenceCounts) -> None:
    encoded = await client.encode_image(PHOTO)
    before = (await counts.settled_soon("sam_decoder")).inferences
    call = asyncio.create_task(client.segment(encoded, boxes=np.tile(some_boxes(1), (1000, 1))))
    while counts.now("sam_decoder").inferences == before:  # noqa: ASYNC110
        await asyncio.sleep(0.005)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    # What was in flight may end; no other of the 32 groups may start.
    await asyncio.sleep(0.3)
    settled = (await counts.settled_soon("sam_decoder")).inferences
    await asyncio.sleep(0.5)
    assert counts.now("sam_decoder").inferences == settled
    assert settled - before < 25


async def test_triton_down_is_unavailable_and_up_again_is_well(
    tiny_repository: Path, settings: Settings, tmp_path: Path
) -> None:
    # One model: the server starts twice.
    shutil.copytree(tiny_repository / "grounding_dino", tmp_path / "grounding_dino")

    async def health(channel: grpc.aio.Channel) -> int:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        return int((await stub.Check(health_pb2.HealthCheckRequest())).status)

    async def until(channel: grpc.aio.Channel, status: int) -> None:
        async with asyncio.timeout(30):
            while await health(channel) != status:  # noqa: ASYNC110
                await asyncio.sleep(0.05)

    first = EmbeddedTriton(tmp_path)
    await asyncio.to_thread(first.start)
    port = int(first.grpc_address.rpartition(":")[2])
    own = settings.model_copy(update={"triton": first.grpc_address, "health_interval_s": 0.1})
    async with (
        Gateway(own) as gateway,
        AsyncClient(f"127.0.0.1:{gateway.port}", wait=False) as client,
        grpc.aio.insecure_channel(f"127.0.0.1:{gateway.port}") as channel,
    ):
        assert await client.detect(PHOTO, ["dog"], min_score=0)
        await asyncio.to_thread(first.stop)
        with pytest.raises(VisiongateError) as caught:
            await client.detect(PHOTO, ["dog"])
        assert caught.value.code is grpc.StatusCode.UNAVAILABLE
        await until(channel, health_pb2.HealthCheckResponse.NOT_SERVING)
        second = EmbeddedTriton(tmp_path, grpc_port=port)
        await asyncio.to_thread(second.start)
        try:
            await until(channel, health_pb2.HealthCheckResponse.SERVING)
            assert await client.detect(PHOTO, ["dog"], min_score=0)
        finally:
            await asyncio.to_thread(second.stop)


async def test_an_old_connection_is_given_up_and_a_new_one_made(settings: Settings) -> None:
    short = settings.model_copy(update={"max_connection_age_s": 0.5})
    async with (
        Gateway(short) as gateway,
        grpc.aio.insecure_channel(f"127.0.0.1:{gateway.port}") as channel,
        asyncio.timeout(60),
    ):
        stub: Any = health_pb2_grpc.HealthStub(channel)
        for _ in range(3):
            await stub.Check(health_pb2.HealthCheckRequest())
            await channel.wait_for_state_change(grpc.ChannelConnectivity.READY)


async def test_clients_may_ask_often_whether_the_server_is_there(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """gRPC's default would end their connection after the third time."""
    interval = "grpc.http2.min_ping_interval_without_data_ms"
    shorter = [(name, 10 if name == interval else value) for name, value in server.KEEPALIVE]
    monkeypatch.setattr(server, "KEEPALIVE", shorter)
    options = [("grpc.keepalive_time_ms", 100), ("grpc.http2.max_pings_without_data", 0)]
    async with (
        Gateway(settings) as gateway,
        grpc.aio.insecure_channel(f"127.0.0.1:{gateway.port}", options=options) as channel,
    ):
        stub: Any = health_pb2_grpc.HealthStub(channel)
        watch = stub.Watch(health_pb2.HealthCheckRequest())
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        await asyncio.sleep(2)
        assert not watch.done()
        assert channel.get_state() is grpc.ChannelConnectivity.READY
        watch.cancel()


async def test_no_triton_is_one_clear_sentence(settings: Settings) -> None:
    alone = settings.model_copy(update={"triton": "127.0.0.1:9", "triton_wait_s": 0})
    with pytest.raises(CatalogError, match=r"no Triton answers at 127.0.0.1:9"):
        async with Gateway(alone):
            pass


async def test_a_taken_port_is_one_clear_sentence(settings: Settings, gateway: Gateway) -> None:
    with pytest.raises(ListenError, match=rf"127\.0\.0\.1:{gateway.port}: the port is in use.*--port"):
        async with Gateway(settings.model_copy(update={"port": gateway.port})):
            pass
