"""Ray Serve, with @serve.batch.

Its best settings here: Ray's own settings for throughput (RAY_SERVE_THROUGHPUT_OPTIMIZED, no log to files, no
access log); one replica that decodes in a pool of as many threads as processors; batches of up to 8 that do
not wait; one thread of ONNX Runtime for each run, in the same pool; no dashboard, no usage statistics; a raw
body, and raw floats as the answer. Many photos in one request are framed in its body.
"""

import asyncio
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

os.environ.update(
    RAY_SERVE_THROUGHPUT_OPTIMIZED="1",
    RAY_USAGE_STATS_ENABLED="0",
    RAY_AUTH_MODE="disabled",
)

import numpy as np
import ray
from clip_model import Options, embed, preprocess, session
from clip_preprocessing import split
from ray import serve
from ray._private import services
from starlette.requests import Request
from starlette.responses import Response


@serve.deployment(
    max_ongoing_requests=256, ray_actor_options={"num_cpus": 0}, logging_config={"enable_access_log": False}
)
class Clip:
    def __init__(self, options: Options) -> None:
        self.options = options
        self.model = session(options)
        self.pool = ThreadPoolExecutor(options.threads)

    @serve.batch(max_batch_size=8, batch_wait_timeout_s=0, max_concurrent_batches=2)  # type: ignore[misc]
    async def run(self, inputs: list[list[Any]]) -> list[Any]:
        images = [image for images in inputs for image in images]
        rows = await asyncio.get_running_loop().run_in_executor(self.pool, embed, self.model, images)
        return list(np.split(rows, np.cumsum([len(images) for images in inputs])[:-1]))

    async def __call__(self, request: Request) -> Response:
        loop, photos = asyncio.get_running_loop(), split(await request.body())
        images = await asyncio.gather(
            *(loop.run_in_executor(self.pool, preprocess, photo, self.options) for photo in photos)
        )
        rows = await self.run(images)
        return Response(rows.tobytes())


# Ray's start takes half a minute of a processor. Where others want it too, that is more than the 30 seconds
# that it waits.
_START_S = 150
_get_node = services.get_node


def _patient_get_node(*arguments: Any) -> Any:
    end = time.monotonic() + _START_S
    while True:
        try:
            return _get_node(*arguments)
        except RuntimeError:
            if time.monotonic() > end:
                raise
            time.sleep(1)


if __name__ == "__main__":
    services.get_node = _patient_get_node
    options = Options.of_command_line()
    ray.init(include_dashboard=False, log_to_driver=False, num_cpus=4, object_store_memory=100_000_000)
    serve.start(http_options={"host": "127.0.0.1", "port": options.port})
    serve.run(Clip.bind(options), route_prefix="/framed")
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    serve.shutdown()
    ray.shutdown()
