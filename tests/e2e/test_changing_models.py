"""Models that come, go, change and break in a real Triton, and a gateway that is never restarted."""

import asyncio
import contextlib
import shutil
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import numpy as np
import onnx
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from onnx import numpy_helper

from export import fingerprint
from export.demo.serving import REPOSITORY
from gateway.embedded import EmbeddedTriton
from gateway.server import Gateway
from gateway.settings import Settings
from visiongate import AsyncClient, VisiongateError

CLIP = ("clip_image", "clip_text")
EMBEDDING, GAZE = "visiongate.v1.EmbeddingService", "visiongate.v1.GazeService"
SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
FACE = np.full((64, 64, 3), 90, np.uint8)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """CLIP, the same with other weights beside it, and gaze without a face detector."""
    folder = tmp_path_factory.mktemp("changing")
    shutil.copytree(REPOSITORY / "gaze", folder / "gaze")
    for name in CLIP:
        shutil.copytree(REPOSITORY / name, folder / name)
        shutil.copytree(REPOSITORY / name, folder / f"{name}-other")
    change_weights([folder / f"{name}-other" for name in CLIP])
    return folder


@pytest.fixture(scope="module")
def triton(repository: Path) -> Iterator[EmbeddedTriton]:
    loaded = [f"--load-model={name}" for name in CLIP]
    with EmbeddedTriton(repository, model_control="explicit", extra_arguments=loaded) as server:
        yield server


@pytest.fixture(scope="module")
async def gateway(triton: EmbeddedTriton, repository: Path) -> AsyncIterator[Gateway]:
    settings = Settings(
        triton=triton.grpc_address, repository=repository, port=0, grace_s=0, health_interval_s=0.05
    )
    async with Gateway(settings) as server:
        yield server


@pytest.fixture(scope="module")
async def client(gateway: Gateway) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(f"127.0.0.1:{gateway.port}", wait=False) as connected:
        yield connected


def change_weights(models: Sequence[Path]) -> None:
    """Turn the largest matrix of each around, and mark the models as those of a new export."""
    for model in models:
        path = model / "1" / "model.onnx"
        network = onnx.load(str(path))
        largest = max(network.graph.initializer, key=lambda tensor: len(tensor.raw_data))
        turned = np.ascontiguousarray(numpy_helper.to_array(largest)[::-1])
        largest.CopyFrom(numpy_helper.from_array(turned, largest.name))
        onnx.save(network, str(path))
    fingerprint.write(models)


async def control(triton: EmbeddedTriton, action: str, *models: str) -> None:
    """Have Triton load or unload models, as an operator does with curl. One that it cannot load is fine."""

    def post(model: str) -> None:
        url = f"http://{triton.http_address}/v2/repository/models/{model}/{action}"
        with contextlib.suppress(urllib.error.HTTPError):
            urllib.request.urlopen(urllib.request.Request(url, method="POST"), timeout=60).close()

    for model in models:
        await asyncio.to_thread(post, model)


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(60):
        while not await condition():  # noqa: ASYNC110 - what another process does sets no event
            await asyncio.sleep(0.02)


async def offered(client: AsyncClient) -> dict[str, tuple[bool, bool]]:
    """Whether each variant is the default, and ready."""
    models = await client.list_models()
    return {f"{model.family} {model.variant}": (model.is_default, model.ready) for model in models}


async def becomes(client: AsyncClient, expected: dict[str, tuple[bool, bool]]) -> None:
    async def is_so() -> bool:
        return await offered(client) == expected

    await until(is_so)


async def health(gateway: Gateway, service: str) -> int:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{gateway.port}") as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        return int((await stub.Check(health_pb2.HealthCheckRequest(service=service))).status)


async def test_a_variant_comes_and_goes(triton: EmbeddedTriton, client: AsyncClient) -> None:
    assert await offered(client) == {"clip demo": (True, True)}
    with pytest.raises(VisiongateError, match="no variant 'other' of clip: there is demo"):
        await client.embed_texts(["a red circle"], model="other")
    await control(triton, "load", *(f"{name}-other" for name in CLIP))
    await becomes(client, {"clip demo": (True, True), "clip other": (False, True)})
    default, other = [await client.embed_texts(["a red circle"], model=model) for model in ("", "other")]
    assert np.abs(default - other).max() > 1e-3
    await control(triton, "unload", *(f"{name}-other" for name in CLIP))
    await becomes(client, {"clip demo": (True, True)})
    with pytest.raises(VisiongateError, match="no variant 'other' of clip") as caught:
        await client.embed_texts(["a red circle"], model="other")
    assert caught.value.code is grpc.StatusCode.INVALID_ARGUMENT


async def test_new_weights_under_the_same_name_answer_for_themselves(
    triton: EmbeddedTriton, gateway: Gateway, client: AsyncClient, repository: Path
) -> None:
    await control(triton, "load", *(f"{name}-other" for name in CLIP))
    await becomes(client, {"clip demo": (True, True), "clip other": (False, True)})
    image = np.random.default_rng(1).integers(0, 256, (64, 64, 3), np.uint8)

    async def answers(model: str) -> list[Any]:
        return [
            await client.embed_texts(["a blue square"], model=model),
            await client.embed_images([image], model=model),
        ]

    old, other = await answers(""), await answers("other")
    _, beside = gateway.catalog.variants
    change_weights([repository / name for name in CLIP])
    await control(triton, "load", *CLIP)

    mark = fingerprint.of([repository / name for name in CLIP])

    async def is_noticed() -> bool:
        # In between, when one of the two is loaded, there is no variant at all.
        return any(variant.fingerprint.startswith(mark) for variant in gateway.catalog.variants)

    await until(is_noticed)
    assert any(variant is beside for variant in gateway.catalog.variants)
    # Of the same weights as the other variant now. What is kept of the old ones is not used.
    for now, then, there in zip(await answers(""), old, other, strict=True):
        np.testing.assert_array_equal(now, there)
        assert np.abs(now - then).max() > 1e-3
    await control(triton, "unload", *(f"{name}-other" for name in CLIP))
    await becomes(client, {"clip demo": (True, True)})


async def test_halves_of_two_exports_are_unavailable_until_they_agree(
    triton: EmbeddedTriton, gateway: Gateway, client: AsyncClient, repository: Path
) -> None:
    change_weights([repository / name for name in CLIP])
    await control(triton, "load", "clip_text")
    await becomes(client, {"clip demo": (True, False)})
    with pytest.raises(VisiongateError, match="model clip demo cannot be used at present") as caught:
        await client.embed_texts(["a blue square"])
    assert (caught.value.code, caught.value.reason) == (grpc.StatusCode.UNAVAILABLE, "TRITON_UNAVAILABLE")
    assert await health(gateway, EMBEDDING) == NOT_SERVING
    await control(triton, "load", "clip_image")
    await becomes(client, {"clip demo": (True, True)})
    assert await health(gateway, EMBEDDING) == SERVING


async def test_a_model_that_triton_cannot_load_leaves_the_others_alone(
    triton: EmbeddedTriton, gateway: Gateway, client: AsyncClient, repository: Path
) -> None:
    weights = repository / "gaze" / "1" / "model.onnx"
    good = weights.read_bytes()
    weights.write_bytes(b"no network")
    await control(triton, "load", "gaze")
    await becomes(client, {"clip demo": (True, True), "gaze gaze": (True, False)})
    with pytest.raises(VisiongateError, match="model gaze gaze cannot be used at present") as caught:
        await client.estimate_gaze(FACE, boxes=[(8, 8, 56, 56)])
    assert (caught.value.code, caught.value.reason) == (grpc.StatusCode.UNAVAILABLE, "TRITON_UNAVAILABLE")
    assert (await client.embed_texts(["a blue square"])).shape[0] == 1
    assert [await health(gateway, name) for name in (GAZE, EMBEDDING, "")] == [NOT_SERVING, SERVING, SERVING]
    weights.write_bytes(good)
    await control(triton, "load", "gaze")
    await becomes(client, {"clip demo": (True, True), "gaze demo": (True, True)})
    assert len(await client.estimate_gaze(FACE, boxes=[(8, 8, 56, 56)])) == 1
    assert await health(gateway, GAZE) == SERVING
