"""Mixed requests over HTTP, good and bad, large and small, some given up: does the front's memory stay flat?

    PYTHONPATH=tests python -m compat.memory

Exits with 1 where the last quarter takes over 5% more memory than the second, or where files or bytes are
left.
"""

import argparse
import asyncio
import base64
import io
import itertools
import json
import random
from collections import Counter
from collections.abc import Iterator

import numpy as np
from PIL import Image

import hostile_http
from export.demo import scenes
from export.demo.serving import REPOSITORY
from gateway.embedded import EmbeddedTriton
from hostile_http import DETECT, REGIONS, TEXTS, Request, get, part, post
from soak.goals import Goals, finish
from soak.service import Service, free_port, serving

AT_ONCE = 6
LEAVING_SHARE = 0.1
MAX_GROWTH = 1.05
_BOX = {"x_min": 10, "y_min": 10, "x_max": 90, "y_max": 90}


def picture(number: int, format: str = "PNG", scale: int = 1) -> bytes:
    file = io.BytesIO()
    scene = scenes.draw(scenes.FIRST_UNSEEN_SEED + number % 50, 320, 240).image
    Image.fromarray(scene).resize((320 * scale, 240 * scale)).save(file, format)
    return file.getvalue() + number.to_bytes(8, "big")


def good(number: int) -> Request:
    """Return a request that is answered: small ones mostly, and some of several megabytes."""
    encoded = {"encoded": base64.b64encode(picture(number)).decode()}
    form = part(picture(number), b'form-data; name="image"; filename="a.png"')
    words = part(b"red circle", b'form-data; name="phrases"') + b"--XX--\r\n"
    match number % 8:
        case 0:
            large = {"encoded": base64.b64encode(picture(number, "BMP", 6)).decode()}
            data = post(json.dumps({"image": large, "query": {"caption": "a red circle"}}), DETECT)
        case 1:
            message = {"image": encoded, "prompts": [{"box": _BOX}] * 30, "include_logits": True}
            data = post(json.dumps(message), REGIONS)
        case 2 | 3:
            data = post(form + words, DETECT, hostile_http.FORM)
        case 4:
            data = post(json.dumps({"texts": [f"circle {number} {index}" for index in range(20)]}), TEXTS)
        case 5:
            data = get()
        case _:
            data = post(json.dumps({"image": encoded, "query": {"caption": "a red circle"}}), DETECT)
    return Request(f"good {number}", data, (200,))


def mixed(count: int) -> Iterator[Request]:
    """Yield good requests, and a bad one after every second of them."""
    bad = itertools.chain(hostile_http.damaged(count, seed=11))
    for number in range(count):
        yield next(bad) if number % 3 == 2 else good(number)


async def measure(service: Service, http_port: int, count: int) -> Goals:
    choices, counts, memory = random.Random(0), Counter[str](), list[float]()
    requests = mixed(count)

    async def call() -> None:
        for request in requests:
            work = asyncio.ensure_future(hostile_http.ask(http_port, request))
            if choices.random() < LEAVING_SHARE:
                await asyncio.wait([work], timeout=choices.uniform(0, 0.05))
                work.cancel()
            await asyncio.wait([work])
            if work.cancelled():
                counts["left"] += 1
            else:
                answer = work.result()
                hostile_http.check(request, answer)
                counts[str(answer.status) if answer else "closed"] += 1
            memory.append(service.resident_mb)
            if len(memory) % (count // 10) == 0:
                print(f"{len(memory)}: {memory[-1]:.0f} MB {dict(counts)}", flush=True)

    files = service.open_files
    async with asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(call())
    await asyncio.sleep(3)
    after, files_after = service.metrics(), service.open_files
    quarter = count // 4
    second, last = np.mean(memory[quarter : 2 * quarter]), np.mean(memory[-quarter:])
    print(
        f"memory: {second:.1f} MB in the second quarter, {last:.1f} MB in the last, {last / second:.3f} of it"
    )
    print(f"open files: {files} before, {files_after} after")
    return {
        f"at most {MAX_GROWTH} times the memory": bool(last <= MAX_GROWTH * second),
        "no more open files": files_after <= files + 2,
        "no call in flight": after["visiongate_calls_in_flight"] == 0,
        "no byte in flight": after["visiongate_bytes_in_flight"] == 0,
        "no byte over HTTP": after["visiongate_http_bytes"] == 0,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=5000)
    arguments = parser.parse_args()
    http_port = free_port()
    with (
        EmbeddedTriton(REPOSITORY) as triton,
        serving(triton.grpc_address, "--http-port", str(http_port)) as service,
    ):
        goals = asyncio.run(measure(service, http_port, arguments.count))
    finish(goals)


if __name__ == "__main__":
    main()
