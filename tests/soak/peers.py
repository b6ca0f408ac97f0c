"""Callers that never take their answers, that send a byte a second, or that are many: what do others notice?

    PYTHONPATH=tests python -m soak.peers

Well-behaved callers alone; then the same ones beside as many of both kinds as make each a tenth of all; then
alone again, and so on. The gateway has as many places as there are well-behaved callers: each place that
another one keeps is missing. At last beside four times as many slow ones from another address, which want
everything there is. Exits with 1 where the rate falls below 0.9 of what it is alone, where a well-behaved
call fails, or where the others were not at work.
"""

import argparse
import asyncio
import contextlib
import io
import statistics
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable

import grpc.aio
from PIL import Image

from soak.goals import Goals, finish
from soak.service import Service, serving_apart
from soak.slow_sender import send_slowly
from soak.traffic import Tally, asking, pictures
from visiongate import AsyncClient
from visiongate.v1 import geometry_pb2, image_pb2, segmentation_service_pb2

WELL_BEHAVED, NOT_READING, SLOW = 16, 2, 2
GREEDY, GREEDY_HOST = 64, "127.0.0.2"
RUNS = 3
LEAST_SHARE = 0.9
MAX_SEND_S = 10
# Before it asks again, a caller whose call has ended waits as long as a full server asks for.
PAUSE_S = 1.0
METHOD = "/visiongate.v1.SegmentationService/SegmentRegions"
PHRASES = ["red circle", "blue square", "green star"]
SIDE, PROMPTS = 2000, 16
ANSWER_BYTES = SIDE * SIDE // 8 * PROMPTS
"""8 MB: gRPC's window is smaller."""


def large_request() -> bytes:
    """A small request with a large answer: bitmaps of a large image, on which there is nothing."""
    file = io.BytesIO()
    Image.new("RGB", (SIDE, SIDE)).save(file, "PNG")
    box = geometry_pb2.Box(x_min=10, y_min=10, x_max=SIDE - 10, y_max=SIDE - 10)
    return segmentation_service_pb2.SegmentRegionsRequest(
        image=image_pb2.Image(encoded=file.getvalue()),
        prompts=[segmentation_service_pb2.Prompt(box=box)] * PROMPTS,
        mask_format=segmentation_service_pb2.MASK_FORMAT_BITMAP,
    ).SerializeToString()


class Misbehaving:
    """The callers that are not well-behaved. `ends`: how their calls have ended."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._request = large_request()
        self.ends: Counter[str] = Counter()

    @contextlib.asynccontextmanager
    async def at_work(self, *, greedy: bool = False) -> AsyncIterator[None]:
        """Inside, they call, again and again: a few of two kinds, or the greedy ones."""
        kinds = [self._never_read] * NOT_READING + [self._send_slowly] * SLOW
        if greedy:
            kinds = [self._want_everything] * GREEDY
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._again_and_again(kind)) for kind in kinds]
            yield
            for task in tasks:
                task.cancel()

    async def _again_and_again(self, call: Callable[[], Awaitable[str]]) -> None:
        while True:
            self.ends[await call()] += 1
            await asyncio.sleep(PAUSE_S)

    async def _never_read(self) -> str:
        own_connection = [("grpc.use_local_subchannel_pool", 1)]
        async with grpc.aio.insecure_channel(self._address, own_connection) as channel:
            call: grpc.aio.StreamStreamCall[bytes, bytes] = channel.stream_stream(METHOD)()
            with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
                await call.write(self._request)
                await call.done_writing()
            # Not before the connection breaks, unless there is no answer.
            return f"unread {(await call.code()).name}"

    async def _send_slowly(self) -> str:
        await send_slowly(self._address, METHOD)
        return "slow"

    async def _want_everything(self) -> str:
        await send_slowly(self._address, METHOD, host=GREEDY_HOST)
        return "greedy"


async def measure(service: Service, seconds: float) -> Goals:
    tally, images = Tally(), pictures()
    misbehaving = Misbehaving(service.address)
    held: list[float] = []

    async with AsyncClient(service.address, timeout=60) as client:

        async def ask() -> None:
            await tally.count(client.segment_phrases(next(images), PHRASES))

        async def look() -> None:
            while True:
                held.append((await asyncio.to_thread(service.metrics))["visiongate_bytes_in_flight"])
                await asyncio.sleep(1)

        async with asking(WELL_BEHAVED, ask):
            await tally.rate(seconds / 6)  # warm
            alone, shares = [await tally.rate(seconds / 2)], []
            alone_mb = service.resident_mb
            service.forget_peak()
            for number in range(1, RUNS + 1):
                async with misbehaving.at_work():
                    looking = asyncio.create_task(look())
                    rate = await tally.rate(seconds)
                    looking.cancel()
                alone.append(await tally.rate(seconds / 2))
                shares.append(2 * rate / (alone[-2] + alone[-1]))
                print(
                    f"run {number}: {alone[-2]:.1f} calls/s alone before, {alone[-1]:.1f} after; {rate:.1f} "
                    f"beside the others, {shares[-1]:.3f} of that",
                    flush=True,
                )
            async with misbehaving.at_work(greedy=True):
                rate = await tally.rate(seconds)
            alone.append(await tally.rate(seconds / 2))
            greedy_share = 2 * rate / (alone[-2] + alone[-1])
    share = statistics.mean(shares)
    print(f"beside {GREEDY} greedy ones: {rate:.1f} calls/s, {greedy_share:.3f} of the rate alone")
    print(f"mean: {share:.3f} of the rate alone; well-behaved calls: {tally}")
    print(f"the others' calls: {dict(misbehaving.ends)}")
    print(f"refusals: {service.refusals()}")
    print(f"held beside the others: {statistics.median(held) / 1e6:.0f} MB, at most {max(held) / 1e6:.0f} MB")
    print(f"memory: {alone_mb:.0f} MB alone, at most {service.peak_mb:.0f} MB")
    return {
        f"{LEAST_SHARE} of the rate alone": share >= LEAST_SHARE,
        f"{LEAST_SHARE} of the rate alone beside the greedy ones": greedy_share >= LEAST_SHARE,
        "no well-behaved call fails": set(tally.codes) == {"OK"},
        "the others were at work": statistics.median(held) > ANSWER_BYTES
        and min(misbehaving.ends["slow"], misbehaving.ends["greedy"], service.refusals().get("caller", 0))
        > 0,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=60, help="beside the others, in each run")
    arguments = parser.parse_args()
    with serving_apart(
        *("--max-concurrent-calls", str(WELL_BEHAVED), "--max-send-s", str(MAX_SEND_S))
    ) as service:
        goals = asyncio.run(measure(service, arguments.seconds))
    finish(goals)


if __name__ == "__main__":
    main()
