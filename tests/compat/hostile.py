"""Thousands of hostile requests over HTTP: each is refused with a reason, and the server goes on.

    PYTHONPATH=tests python -m compat.hostile

Exits with 1 where an answer is not as it must be, where a model was asked, or where anything is still counted
in the end.
"""

import argparse
import asyncio
import itertools
import json

import hostile_http
from export.demo.serving import REPOSITORY
from gateway.embedded import EmbeddedTriton
from soak.goals import Goals, finish
from soak.service import Service, free_port, serving

AT_ONCE = 16


async def measure(service: Service, http_port: int, count: int, seed: int) -> Goals:
    requests = itertools.chain(hostile_http.written(), hostile_http.damaged(count, seed))
    statuses = await hostile_http.besiege(http_port, requests, AT_ONCE)
    print(f"{statuses.total()} requests of seed {seed}: {dict(sorted(statuses.items()))}")
    await asyncio.sleep(1)
    good = await hostile_http.ask(http_port, hostile_http.Request("good", hostile_http.get(), (200,)))
    after = service.metrics()
    asked = sum(value for name, value in after.items() if name.startswith("visiongate_triton_requests_total"))
    return {
        "a good request is answered": good is not None and bool(json.loads(good.body)["models"]),
        "no model was asked": asked == 0,
        "no fault of the server's": not any(
            value
            for name, value in after.items()
            if "visiongate_calls_total" in name and 'fault="server"' in name
        ),
        "no call in flight": after["visiongate_calls_in_flight"] == 0,
        "no byte in flight": after["visiongate_bytes_in_flight"] == 0,
        "no byte over HTTP": after["visiongate_http_bytes"] == 0,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=7)
    arguments = parser.parse_args()
    http_port = free_port()
    with (
        EmbeddedTriton(REPOSITORY) as triton,
        serving(triton.grpc_address, "--http-port", str(http_port)) as service,
    ):
        goals = asyncio.run(measure(service, http_port, arguments.count, arguments.seed))
    finish(goals)


if __name__ == "__main__":
    main()
