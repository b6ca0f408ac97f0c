"""LitServe, with dynamic batching.

Its best settings here: as many workers as processors, each with one thread of ONNX Runtime (a worker decodes
the photos of its batch one after another, so one worker would leave the other processors idle); batches of
up to 8 that wait 2 ms at most; the fast queue; a raw body, which LitServe passes on as it is, and raw floats
as the answer. Many photos in one request are framed in its body.
"""

from typing import Annotated, Any

import litserve
import numpy as np
from clip_model import Options, embed, preprocess, session
from clip_preprocessing import split
from fastapi import Body, Response

options = Options.of_command_line()


class Clip(litserve.LitAPI):  # type: ignore[misc]
    def setup(self, device: str) -> None:
        self.model = session(options)

    def decode_request(
        self, request: Annotated[bytes, Body(media_type="application/octet-stream")]
    ) -> list[Any]:
        return [preprocess(photo, options) for photo in split(request)]

    def batch(self, inputs: list[list[Any]]) -> list[list[Any]]:
        return inputs

    def predict(self, inputs: list[list[Any]]) -> list[Any]:
        rows = embed(self.model, [image for images in inputs for image in images])
        return list(np.split(rows, np.cumsum([len(images) for images in inputs])[:-1]))

    def unbatch(self, output: list[Any]) -> list[Any]:
        return output

    def encode_response(self, output: Any) -> Response:
        return Response(output.tobytes())


if __name__ == "__main__":
    api = Clip(max_batch_size=8, batch_timeout=0.002, api_path="/framed")
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=options.threads, fast_queue=True)
    server.run(
        host="127.0.0.1",
        port=options.port,
        num_api_servers=1,
        log_level="warning",
        access_log=False,
        timeout_keep_alive=600,
        generate_client_file=False,
    )
