"""A bare loop: one asyncio process that decodes, resizes, and sends tensors to Triton, and no server.

What is left of a gateway if it does nothing but that. Its best settings here: a pool of as many threads as
processors; one job decodes, resizes and writes the request's bytes; the pieces of many photos are sent
together. It is a load generator of its own: `python -m bench.peers.bare` reads what rounds are wanted as
gateway/bench/generator.py does.
"""

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import numpy as np
from tritonclient.grpc import service_pb2

from bench.peers.clip_preprocessing import preprocess
from gateway.bench.generator import serve
from gateway.bench.load import Load


class Bare:
    """The calls of a load: photos to embed."""

    def __init__(self, load: Load) -> None:
        self._calls = [[photo for _, photo in wave] for (wave,) in load.calls]
        self._size, self._scaled = load.options["size"], load.options["scaled"]
        self._pool = ThreadPoolExecutor(len(os.sched_getaffinity(0)))
        self._channel = grpc.aio.insecure_channel(
            load.address, [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
        )
        self._infer: Any = self._channel.unary_unary(
            "/inference.GRPCInferenceService/ModelInfer",
            response_deserializer=service_pb2.ModelInferResponse.FromString,
        )

    async def send(self, index: int) -> list[bytes]:
        photos = self._calls[index % len(self._calls)]
        loop = asyncio.get_running_loop()
        if len(photos) == 1:
            request = await loop.run_in_executor(self._pool, self._one, photos[0])
        else:
            images = await asyncio.gather(
                *(loop.run_in_executor(self._pool, self._preprocess, photo) for photo in photos)
            )
            request = await loop.run_in_executor(self._pool, self._request, images)
        answer = await self._infer(request)
        rows = np.frombuffer(answer.raw_output_contents[0], np.float32).reshape(len(photos), -1)
        return [(rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32).tobytes()]

    def _preprocess(self, photo: bytes) -> Any:
        return preprocess(photo, self._size, scaled=self._scaled)

    def _one(self, photo: bytes) -> bytes:
        return self._request([self._preprocess(photo)])

    def _request(self, images: list[Any]) -> bytes:
        request = service_pb2.ModelInferRequest(model_name="clip_image")
        request.inputs.add(name="image", datatype="UINT8", shape=[len(images), self._size, self._size, 3])
        request.outputs.add(name="image_embedding")
        request.raw_input_contents.append(b"".join(image.tobytes() for image in images))
        content: bytes = request.SerializeToString()
        return content

    async def close(self) -> None:
        self._pool.shutdown()
        await self._channel.close()


if __name__ == "__main__":
    asyncio.run(serve({"bare": Bare}))
