"""Views of images in memory that Triton reads: no answer may differ from that of views that are sent."""

import asyncio
import os
import random
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from numpy.typing import NDArray
from tritonclient.grpc.aio import InferenceServerClient

from export.demo.serving import REPOSITORY
from gateway.embedded import EmbeddedTriton
from gateway.server import Gateway
from gateway.settings import Settings
from gateway.triton_shared_memory import FOLDER
from soak.service import COMMAND, free_port, serving
from visiongate import AsyncClient

MODELS = ("tiny", "hiera_toy")
POINTS = [[(20.0, 30.0)], [(70.0, 60.0)]]


@pytest.fixture
def sam_alone(tmp_path: Path) -> Path:
    """A model that starts quickly."""
    for model in ("sam_encoder", "sam_decoder"):
        shutil.copytree(REPOSITORY / model, tmp_path / model)
    return tmp_path


@asynccontextmanager
async def reached(
    repository: Path, address: str, share: Literal["auto", "on", "off"], **others: Any
) -> AsyncIterator[tuple[Gateway, AsyncClient]]:
    settings = Settings(
        triton=address,
        repository=repository,
        port=0,
        grace_s=0,
        health_interval_s=0.1,
        triton_shared_memory=share,
        **others,
    )
    async with Gateway(settings) as gateway, AsyncClient(f"127.0.0.1:{gateway.port}", timeout=60) as client:
        yield gateway, client


def image(seed: int) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (90, 120, 3), np.uint8)


async def answer(client: AsyncClient, seed: int, model: str) -> list[Any]:
    masks = await client.segment(image(seed), points=POINTS, multimask=True, model=model)
    return [(mask.rle, mask.predicted_iou) for several in masks for mask in several]


async def regions(address: str) -> set[str]:
    """What the server says that it reads."""
    async with InferenceServerClient(address) as asked:
        return set((await asked.get_system_shared_memory_status()).regions)


def is_shared(gateway: Gateway) -> bool:
    return gateway._shared is not None and bool(gateway._shared.readers)


@pytest.mark.parametrize("model", MODELS)
async def test_answers_are_equal_however_tensors_travel(
    tiny_repository: Path, triton: EmbeddedTriton, model: str
) -> None:
    found = []
    for share in ("off", "auto", "on"):
        async with reached(tiny_repository, triton.grpc_address, share) as (gateway, client):
            assert is_shared(gateway) is (share != "off")
            twice = [await answer(client, 1, model) for _ in range(2)]
            everything = await client.segment_everything(
                image(1), points_per_side=4, min_predicted_iou=0, min_stability_score=0, model=model
            )
            assert gateway._shared is None or gateway._shared.name in await regions(triton.grpc_address)
            found.append((*twice, [(item.mask.rle, item.mask.predicted_iou) for item in everything]))
    assert found[0][0] == found[0][1]
    assert found[0] == found[1] == found[2]


async def test_views_that_come_and_go_under_cancelled_calls_are_never_mixed_up(
    tiny_repository: Path, triton: EmbeddedTriton, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Room for three views of twelve images, in so little memory that rooms are used again at once."""
    async with reached(tiny_repository, triton.grpc_address, "off") as (_, client):
        known = {(seed, model): await answer(client, seed, model) for seed in range(12) for model in MODELS}
    monkeypatch.setattr("gateway.server._SHARED_BESIDE", 1 << 18)
    few = {"sam_embedding_cache_bytes": 1 << 18, "image_cache_bytes": 0}
    async with reached(tiny_repository, triton.grpc_address, "on", **few) as (gateway, client):
        end = asyncio.get_running_loop().time() + 3
        wrong, right = [], 0

        async def caller(number: int) -> None:
            nonlocal right
            choices = random.Random(number)
            while asyncio.get_running_loop().time() < end:
                key = choices.randrange(12), choices.choice(MODELS)
                call = asyncio.create_task(answer(client, *key))
                if choices.random() < 0.3:
                    await asyncio.wait([call], timeout=choices.uniform(0, 0.05))
                    call.cancel()
                    await asyncio.wait([call])
                    continue
                if await call == known[key]:
                    right += 1
                else:
                    wrong.append(key)

        await asyncio.gather(*map(caller, range(8)))
        assert not wrong
        assert right > 20
        assert gateway._shared is not None
        assert gateway._shared.name in await regions(triton.grpc_address)
        assert (FOLDER / gateway._shared.name).stat().st_blocks * 512 <= gateway._shared.size
        name = gateway._shared.name
    assert not (FOLDER / name).exists()
    assert name not in await regions(triton.grpc_address)
    assert triton.poll() is None


async def test_a_triton_that_dies_reads_it_again(sam_alone: Path) -> None:
    server = EmbeddedTriton(sam_alone, grpc_port=free_port())
    server.start()
    try:
        async with reached(sam_alone, server.grpc_address, "auto") as (gateway, client):
            known = await answer(client, 1, "")
            os.kill(server.pid, signal.SIGKILL)
            await asyncio.to_thread(server.stop)
            await asyncio.to_thread(server.start)
            async with asyncio.timeout(60):
                while not (is_shared(gateway) and await regions(server.grpc_address)):  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
            assert await answer(client, 1, "") == known
    finally:
        server.stop()


async def test_gateways_share_a_triton_and_one_that_is_killed_leaves_nothing(
    tiny_repository: Path, triton: EmbeddedTriton
) -> None:
    address = triton.grpc_address
    others = await regions(address)
    port = str(free_port())
    command = [COMMAND, "serve", "--triton", address, "--repository", str(tiny_repository), "--port", port]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as killed:  # noqa: ASYNC220
        assert killed.stdout is not None
        killed.stdout.readline()
        async with AsyncClient(f"127.0.0.1:{port}", timeout=60) as client:
            known = await answer(client, 1, "tiny")
        (left,) = await regions(address) - others
        with serving(address, repository=tiny_repository) as service:
            async with AsyncClient(service.address, timeout=60) as client:
                assert await answer(client, 1, "tiny") == known
            assert len(await regions(address) - others) == 2
        assert await regions(address) - others == {left}
        killed.kill()
    assert (FOLDER / left).exists()
    async with reached(tiny_repository, address, "auto") as (gateway, client):
        assert await answer(client, 1, "tiny") == known
        assert gateway._shared is not None
        assert await regions(address) - others == {gateway._shared.name}
    assert not (FOLDER / left).exists()
    assert await regions(address) == others
