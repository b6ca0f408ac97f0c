"""The gateway's image in a container, with no network but loopback: it starts, answers, and stops.

Run by `make images`.
"""

import asyncio
import time

import httpx
import numpy as np
import pytest

from export.demo import show
from images.container import status
from images.front import GRPC, HTTP, Run, look, wait_for, wait_until_ready
from recorded_calls import png
from visiongate import AsyncClient, VisiongateError

MAX_READY_S = 5.0
MAX_ATTEMPTS = 3
CALLERS = 6
DRAIN_S = 5.0  # of the Dockerfile
PICTURE = show.scene(0).image
# Where show.py draws it.
CIRCLE = np.array([0.17 * 800, 0.42 * 600])


def seconds_until_ready(run: Run) -> float:
    start = time.monotonic()
    with run() as container:
        wait_until_ready(container)
        return time.monotonic() - start


def test_is_ready_within_5_seconds_where_triton_is(run: Run) -> None:
    # Others may be at work on this machine.
    best = min(seconds_until_ready(run) for _ in range(MAX_ATTEMPTS))
    print(f"ready after {best:.2f} s")
    assert best < MAX_READY_S


def test_process_1_is_the_gateway_without_rights(run: Run) -> None:
    with run() as container:
        wait_until_ready(container)
        assert status(container.pid, "NSpid").split()[-1] == "1"
        assert status(container.pid, "Name") == "visiongate"
        assert status(container.pid, "Uid").split() == ["10001"] * 4
        assert status(container.pid, "Gid").split() == ["10001"] * 4
        assert int(status(container.pid, "CapEff"), 16) == 0


async def test_answers_over_grpc_and_http(run: Run) -> None:
    with run() as container:
        wait_until_ready(container)
        async with AsyncClient(GRPC) as client:
            found = await client.detect(PICTURE, ["red circle"])
            [labels] = await client.classify([PICTURE], ["a face", "a red circle"])
        assert {each.label for each in labels} == {"a face", "a red circle"}
        best = max(found, key=lambda each: each.score)
        assert np.abs(best.box.reshape(2, 2).mean(0) - CIRCLE).max() < 10

        answer = await asyncio.to_thread(
            httpx.post,
            f"{HTTP}/v1/objects:detect",
            files={"image": png(PICTURE)},
            data={"phrases": "red circle"},
            timeout=60,
        )
        detections = answer.raise_for_status().json()["detections"]
        assert len(detections) == len(found)
        assert max(each["score"] for each in detections) == pytest.approx(best.score)


async def test_sigterm_to_process_1_loses_no_call_under_load(run: Run) -> None:
    with run() as container:
        await asyncio.to_thread(wait_until_ready, container)
        answered, lost = 0, list[VisiongateError]()
        end = float("inf")

        async def caller() -> None:
            nonlocal answered
            # Each has a connection of its own, and repeats nothing.
            async with AsyncClient(GRPC, wait=False) as client:
                while time.monotonic() < end:
                    try:
                        await client.detect(PICTURE, ["red circle", "blue square"])
                        answered += 1
                    except VisiongateError as error:
                        lost.append(error)

        callers = [asyncio.create_task(caller()) for _ in range(CALLERS)]
        await asyncio.sleep(2)
        before = answered
        container.stop()
        # As balancers do: look away at some time while it drains. The last calls are under way at its end.
        end = time.monotonic() + DRAIN_S - 0.5
        await asyncio.to_thread(wait_for, container, lambda: look("/readyz")[0] == 503, "draining")
        await asyncio.gather(*callers)
        assert before > 0
        assert answered > before
        assert not lost, lost[0]
        assert await asyncio.to_thread(container.wait) == 0
    print(f"{answered - before} calls answered after SIGTERM")
