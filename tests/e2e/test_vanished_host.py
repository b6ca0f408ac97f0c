"""A Triton whose whole host vanishes: no connection is closed, nobody answers any more.

The host is a network namespace, which only root may make; elsewhere this is skipped.
"""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest

from export.demo.serving import REPOSITORY
from gateway.embedded import EmbeddedTriton
from gateway.server import Gateway
from gateway.settings import Settings
from visiongate import AsyncClient, VisiongateError

# Addresses for documentation: no real network has them.
HERE, THERE, PORT = "192.0.2.1", "192.0.2.2", 8001
COMMAND = str(Path(sys.executable).parent / "visiongate")


def ip(*arguments: str) -> None:
    try:
        subprocess.run(["ip", *arguments], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"network namespaces cannot be made here: {error}")


@pytest.fixture
def host() -> Iterator[str]:
    """The name of a host: it is linked to this one, and holds a Triton with a few small models."""
    name = f"visiongate-{os.getpid()}"
    near, far = f"vg{os.getpid()}a", f"vg{os.getpid()}b"
    ip("netns", "add", name)
    try:
        ip("link", "add", near, "type", "veth", "peer", "name", far, "netns", name)
        ip("address", "add", f"{HERE}/30", "dev", near)
        ip("link", "set", near, "up")
        ip("-n", name, "address", "add", f"{THERE}/30", "dev", far)
        for device in (far, "lo"):
            ip("-n", name, "link", "set", device, "up")
        with subprocess.Popen(
            ["ip", "netns", "exec", name, COMMAND, "triton", "--demo", "--host", THERE],
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdout is not None
            assert f"gRPC at {THERE}:{PORT}" in process.stdout.readline()
            yield name
            process.terminate()
    finally:
        subprocess.run(["ip", "netns", "delete", name], check=False)


@pytest.fixture
async def client(host: str, demo_triton: EmbeddedTriton) -> AsyncIterator[AsyncClient]:
    """Of a gateway that goes round two Tritons, one of them on the host."""
    addresses = f"{THERE}:{PORT},{demo_triton.grpc_address}"
    settings = Settings(triton=addresses, repository=Path(REPOSITORY), port=0, grace_s=0)
    async with (
        Gateway(settings) as gateway,
        AsyncClient(f"127.0.0.1:{gateway.port}", timeout=60) as connected,
    ):
        yield connected


async def test_a_host_that_vanishes_costs_no_call(host: str, client: AsyncClient) -> None:
    async def outcome(seed: int) -> grpc.StatusCode:
        image = np.random.default_rng(seed).integers(0, 256, (120, 160, 3), np.uint8)
        try:
            await client.estimate_gaze(image, boxes=[(10, 10, 90, 90)])
        except VisiongateError as error:
            return error.code
        return grpc.StatusCode.OK

    assert {await outcome(seed) for seed in range(4)} == {grpc.StatusCode.OK}
    ip("-n", host, "link", "set", f"vg{os.getpid()}b", "down")
    calls = []
    for seed in range(100, 120):
        calls.append(asyncio.create_task(outcome(seed)))
        await asyncio.sleep(0.5)
    assert set(await asyncio.gather(*calls)) == {grpc.StatusCode.OK}
