"""What the gateway adds to each item: its CPU, its rate over that of a bare loop, and over an empty server.

    python tests/bench/cpu_per_item.py --repository DIR

The bare loop decodes, resizes and sends the tensors of the same files to the same Triton. The empty server
answers the same messages without a gateway. Gateway, empty server, bare loop and callers are processes of
their own, measured by turns; caches of images are off. Ratios are of one run, medians of its rounds.
"""

import argparse
import asyncio
import gc
import io
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from skimage import data as skimage_data

from gateway import logs
from gateway.catalog import Variant
from gateway.embedded import EmbeddedTriton
from gateway.models.clip import INTERPOLATIONS, RESIZES, ClipSpec
from gateway.models.image import Picture
from gateway.pipelines.embedding import CLIP
from gateway.server import Gateway
from gateway.settings import Settings
from gateway.triton_servers import GrpcTriton
from visiongate.v1 import embedding_service_pb2 as pb
from visiongate.v1 import embedding_service_pb2_grpc as services
from visiongate.v1.image_pb2 import Image as ImageMessage

CALLERS = 16
TICKS = os.sysconf("SC_CLK_TCK")


def photos(width: int, height: int, count: int) -> list[bytes]:
    """JPEG files of one photo, no two alike."""
    whole = Image.fromarray(skimage_data.astronaut()).resize((width, height), Image.Resampling.BICUBIC)
    files = []
    for index in range(count):
        moved = Image.fromarray(np.roll(np.asarray(whole), 13 * index, axis=1))
        moved.save(file := io.BytesIO(), "JPEG", quality=90)
        files.append(file.getvalue())
    return files


async def run(call: Callable[[int], Awaitable[object]], seconds: float, callers: int = CALLERS) -> float:
    """Return calls a second."""
    start, count = time.perf_counter(), 0

    async def caller() -> None:
        nonlocal count
        while time.perf_counter() < start + seconds:
            count += 1
            await call(count)

    await asyncio.gather(*(caller() for _ in range(callers)))
    return count / (time.perf_counter() - start)


def cpu_seconds(pid: int) -> float:
    """Return what a process has used of the processors."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


@contextmanager
def process(*arguments: object) -> Iterator[tuple[int, str]]:
    """Run this script in another role; yield its process id and its first line."""
    command = [sys.executable, __file__, *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True) as child:
        assert child.stdout
        assert child.stdin
        try:
            yield child.pid, child.stdout.readline().strip()
        finally:
            child.stdin.close()


async def wait_for_end() -> None:
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


def settings(triton: str, repository: Path) -> Settings:
    return Settings(
        triton=triton, repository=repository, port=0, image_cache_bytes=0, clip_image_cache_bytes=0
    )


async def be_gateway(triton: str, repository: Path) -> None:
    logs.configure(Settings())
    async with Gateway(settings(triton, repository)) as gateway:
        gc.freeze()  # as in a gateway's process
        print(gateway.port, flush=True)
        await wait_for_end()


class Empty(services.EmbeddingServiceServicer):
    """Answers every request with the same numbers."""

    def __init__(self, dimensions: int) -> None:
        self._packed = np.zeros(dimensions, "<f4").tobytes()

    async def EmbedTexts(  # noqa: N802
        self, request: pb.EmbedTextsRequest, context: object
    ) -> pb.EmbedTextsResponse:
        results = [pb.EmbedTextsResult(embedding=pb.Embedding(packed=self._packed)) for _ in request.texts]
        return pb.EmbedTextsResponse(results=results, model="clip", dimensions=len(self._packed) // 4)


async def be_empty(dimensions: int) -> None:
    server = grpc.aio.server()
    empty: Any = Empty  # without the other methods
    services.add_EmbeddingServiceServicer_to_server(empty(dimensions), server)
    print(server.add_insecure_port("127.0.0.1:0"), flush=True)
    await server.start()
    await wait_for_end()


async def spec_of(triton: str, repository: Path) -> Variant[ClipSpec]:
    async with Gateway(settings(triton, repository)) as gateway:
        return gateway.catalog.choose(CLIP, "")


async def be_bare(triton: str, repository: Path, width: int, height: int, images: int, count: int) -> None:
    """For each line of input, print the rate of so many seconds."""
    variant = await spec_of(triton, repository)
    files, server = photos(width, height, count), GrpcTriton(triton)
    threads = ThreadPoolExecutor(len(os.sched_getaffinity(0)))
    loop = asyncio.get_running_loop()

    spec = variant.spec

    def prepare(file: bytes) -> NDArray[np.uint8]:
        picture = Image.open(io.BytesIO(file)).convert("RGB")
        resize, filter_ = RESIZES[spec.resize_mode], INTERPOLATIONS[spec.interpolation]
        return np.asarray(resize(Picture(picture, picture.size), spec.image_size, filter_, spec.fill_color))

    async def call(index: int) -> None:
        names = [files[(index * images + place) % len(files)] for place in range(images)]
        squares = await asyncio.gather(*(loop.run_in_executor(threads, prepare, name) for name in names))
        await server.infer("clip_image", {"image": np.stack(squares)}, ("image_embedding",))

    print("ready", flush=True)
    for line in iter(sys.stdin.readline, ""):
        used = cpu_seconds(os.getpid())
        rate = await run(call, float(line), max(2, CALLERS // images))
        print(rate, (cpu_seconds(os.getpid()) - used) / rate / float(line), flush=True)
    await server.close()


def ask_bare(child: "subprocess.Popen[str]", seconds: float) -> tuple[float, float]:
    assert child.stdin
    assert child.stdout
    print(seconds, file=child.stdin, flush=True)
    rate, cpu = map(float, child.stdout.readline().split())
    return rate, cpu


async def measure(triton: str, repository: Path, options: argparse.Namespace) -> None:
    with process("gateway", triton, repository) as (pid, port):
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            if "texts" in options.what:
                await compare_texts(channel, pid, options)
            for name, size, images, count in (
                ("small", (640, 480), 1, 48),
                ("lists", (640, 480), 16, 48),
                ("large", (4000, 3000), 1, 8),
            ):
                if name in options.what:
                    await compare_images(channel, pid, triton, repository, size, images, count, options)


async def compare_texts(channel: grpc.aio.Channel, pid: int, options: argparse.Namespace) -> None:
    request = pb.EmbedTextsRequest(
        texts=["a photo of a cat"], embedding_format=pb.EMBEDDING_FORMAT_FLOAT32
    ).SerializeToString()
    method = "/visiongate.v1.EmbeddingService/EmbedTexts"
    send_first: Any = channel.unary_unary(method)
    answer = pb.EmbedTextsResponse.FromString(await send_first(request))
    with process("empty", answer.dimensions) as (empty_pid, port):
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as other:
            rounds = []
            for _ in range(options.rounds):
                costs = []
                for each, its_pid in ((channel, pid), (other, empty_pid)):
                    send: Any = each.unary_unary(method)
                    used = cpu_seconds(its_pid)

                    async def call(_index: int, send: Callable[..., Awaitable[bytes]] = send) -> None:
                        await send(request)

                    rate = await run(call, options.seconds)
                    costs.append((cpu_seconds(its_pid) - used) / (rate * options.seconds) * 1e6)
                rounds.append((*costs, costs[0] / costs[1]))
    ours, empty, ratio = (statistics.median(column) for column in zip(*rounds, strict=True))
    print(f"EmbedTexts, kept: gateway {ours:.0f} us, empty server {empty:.0f} us a call, ratio {ratio:.2f}")


async def compare_images(
    channel: grpc.aio.Channel,
    pid: int,
    triton: str,
    repository: Path,
    size: tuple[int, int],
    images: int,
    count: int,
    options: argparse.Namespace,
) -> None:
    files = photos(*size, count)
    requests = [
        pb.EmbedImagesRequest(
            images=[ImageMessage(encoded=files[(index + place) % count]) for place in range(images)],
            embedding_format=pb.EMBEDDING_FORMAT_FLOAT32,
        ).SerializeToString()
        for index in range(0, count, images)
    ]
    send: Any = channel.unary_unary("/visiongate.v1.EmbeddingService/EmbedImages")
    command = [sys.executable, __file__, "bare", triton, repository, *size, images, count]
    with subprocess.Popen(  # noqa: ASYNC220
        list(map(str, command)), stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True
    ) as bare:
        assert bare.stdin
        assert bare.stdout
        bare.stdout.readline()
        rounds = []
        for _ in range(options.rounds):
            used = cpu_seconds(pid)

            async def call(index: int) -> None:
                await send(requests[index % len(requests)])

            rate = images * await run(call, options.seconds, max(2, CALLERS // images))
            cost = (cpu_seconds(pid) - used) / (rate * options.seconds) * 1e3
            bare_rate, bare_cost = ask_bare(bare, options.seconds)
            bare_rate *= images
            rounds.append((rate, bare_rate, rate / bare_rate, cost, bare_cost * 1e3 / images))
        bare.stdin.close()
    rate, bare_rate, ratio, cost, bare_cost = (statistics.median(each) for each in zip(*rounds, strict=True))
    print(
        f"{size[0]}x{size[1]} JPEG, {images} a call: gateway {rate:.0f}, bare loop {bare_rate:.0f} images/s, "
        f"ratio {ratio:.2f}; CPU {cost:.2f} and {bare_cost:.2f} ms an image"
    )


def main() -> None:
    roles: dict[str, Callable[[list[str]], Awaitable[None]]] = {
        "gateway": lambda given: be_gateway(given[0], Path(given[1])),
        "empty": lambda given: be_empty(int(given[0])),
        "bare": lambda given: be_bare(given[0], Path(given[1]), *map(int, given[2:])),
    }
    if len(sys.argv) > 1 and sys.argv[1] in roles:
        asyncio.run(roles[sys.argv[1]](sys.argv[2:]))  # type: ignore[arg-type]
        return
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repository", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--what", nargs="+", default=["texts", "small", "lists", "large"])
    options = parser.parse_args()
    with EmbeddedTriton(options.repository) as triton:
        asyncio.run(measure(triton.grpc_address, options.repository, options))


if __name__ == "__main__":
    main()
