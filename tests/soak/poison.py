"""A request that kills whichever Triton gets it, again and again, while others ask: what does it cost?

    PYTHONPATH=tests python -m soak.poison [--edge]

Five Tritons, or with --edge two gateways behind Envoy with two Tritons each. One that died is started anew,
as Kubernetes would. They serve a gaze model that sleeps instead of calculating, and that kills its server
when it sees a white face. Exits with 1 where one request kills more than two of them, where its caller is
not told so, or where any other call fails.
"""

import argparse
import asyncio
import contextlib
import itertools
import shutil
import socket
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import envoy
from export.demo.serving import REPOSITORY
from gateway.embedded import EmbeddedTriton
from soak.goals import Goals, finish
from soak.service import Service, free_port, serving
from soak.traffic import Tally, asking
from visiongate import AsyncClient

SERVERS, CALLERS = 5, 32
GATEWAYS, SERVERS_OF_EACH = 2, 2
POISON_EVERY_S = 10.0
MAX_DEATHS = 2
"""Of one request."""
SIZE, FACE = (120, 160, 3), [(10, 10, 110, 110)]
# tritonserver leads the process group of what it starts.
MODEL = """
import os, signal, time
import numpy as np
import triton_python_backend_utils as utils

class TritonPythonModel:
    def execute(self, requests):
        faces = [utils.get_input_tensor_by_name(request, "face").as_numpy() for request in requests]
        if any((face == 255).all() for face in faces):
            os.kill(os.getpgrp(), signal.SIGKILL)
        time.sleep(0.1)
        return [
            utils.InferenceResponse([utils.Tensor("yaw_pitch", np.zeros((len(face), 2), np.float32))])
            for face in faces
        ]
"""


@contextlib.contextmanager
def mortal_repository() -> Iterator[Path]:
    """A repository of the demo's gaze models, of which one kills its server as described above."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copytree(REPOSITORY / "face_detection", folder / "face_detection")
        config = (REPOSITORY / "gaze" / "config.pbtxt").read_text()
        (folder / "gaze" / "1").mkdir(parents=True)
        (folder / "gaze" / "config.pbtxt").write_text(config.replace('"onnxruntime"', '"python"'))
        (folder / "gaze" / "1" / "model.py").write_text(MODEL)
        yield folder


def free_ports(count: int) -> list[int]:
    """Ports at which servers can start again and again."""
    with contextlib.ExitStack() as stack:
        listeners = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [listener.getsockname()[1] for listener in listeners]


class Watch:
    """Starts each server anew that has died."""

    def __init__(self, servers: list[EmbeddedTriton]) -> None:
        self._servers = servers
        self.deaths = 0

    async def forever(self) -> None:
        async with asyncio.TaskGroup() as group:
            for server in self._servers:
                group.create_task(self._keep_alive(server))

    async def _keep_alive(self, server: EmbeddedTriton) -> None:
        while True:
            await server.death()
            self.deaths += 1
            await server.restart()


def face(seed: int) -> NDArray[np.uint8]:
    """A picture that no cache has."""
    return np.random.default_rng(seed).integers(0, 256, SIZE, np.uint8)


async def measure(address: str, services: Sequence[Service], watch: Watch, minutes: float) -> Goals:
    others, poison = Tally(), Tally()
    deaths: list[int] = []
    numbers = itertools.count()
    async with AsyncClient(address, timeout=30) as client:

        async def ask() -> None:
            await others.count(client.estimate_gaze(face(next(numbers)), boxes=FACE))

        watching = asyncio.create_task(watch.forever())
        async with asking(CALLERS, ask):
            start = time.monotonic()
            for number in range(1, max(1, round(60 * minutes / POISON_EVERY_S)) + 1):
                before = watch.deaths
                # Of another size each time: the edge sends one image to one gateway.
                white = np.full((SIZE[0], SIZE[1] + number, 3), 255, np.uint8)
                await poison.count(client.estimate_gaze(white, boxes=FACE))
                await asyncio.sleep(max(0.0, start + number * POISON_EVERY_S - time.monotonic()))
                deaths.append(watch.deaths - before)
                if watching.done():
                    break
                if number % 6 == 0:
                    print(f"{number} poisoned requests, deaths {deaths[-6:]}; others: {others}", flush=True)
        watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watching
    metrics: Counter[str] = Counter()
    for service in services:
        metrics.update(service.metrics())
    codes = {
        name: f"{value:.0f}" for name, value in metrics.items() if "triton_requests_total" in name and value
    }
    again = metrics.get('visiongate_triton_retries_total{model="gaze"}', 0)
    print(f"{len(deaths)} poisoned requests: {poison}, reasons {dict(poison.reasons)}")
    print(f"deaths of each: {deaths}, {sum(deaths)} in all")
    print(f"others: {others}, reasons {dict(others.reasons)}")
    print(f"requests to Triton: {codes}, {again:.0f} sent again")
    return {
        f"at most {MAX_DEATHS} die of a request": max(deaths) <= MAX_DEATHS,
        "each poisoned caller is told": poison.reasons["REQUEST_KILLED_SERVER"] == len(deaths),
        "no other call fails": set(others.codes) == {"OK"},
    }


async def measure_edge(services: Sequence[Service], watch: Watch, minutes: float) -> Goals:
    # The edge needs no HTTP of them here: nobody is at that port.
    behind = [
        envoy.Behind("127.0.0.1", int(service.address.rpartition(":")[2]), free_port())
        for service in services
    ]
    async with envoy.serving(behind) as edge:
        await edge.until_well(len(behind), envoy.GRPC)
        return await measure(edge.address, services, watch, minutes)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--edge", action="store_true", help="through Envoy, before two gateways")
    arguments = parser.parse_args()
    count, of_each = (GATEWAYS, SERVERS_OF_EACH) if arguments.edge else (1, SERVERS)
    with contextlib.ExitStack() as stack:
        repository = stack.enter_context(mortal_repository())
        servers, services = [], []
        for _ in range(count):
            own = [
                stack.enter_context(EmbeddedTriton(repository, grpc_port=port))
                for port in free_ports(of_each)
            ]
            addresses = ",".join(server.grpc_address for server in own)
            services.append(
                stack.enter_context(serving(addresses, "--log-level", "error", repository=repository))
            )
            servers += own
        watch = Watch(servers)
        if arguments.edge:
            goals = asyncio.run(measure_edge(services, watch, arguments.minutes))
        else:
            goals = asyncio.run(measure(services[0].address, services, watch, arguments.minutes))
    finish(goals)


if __name__ == "__main__":
    main()
