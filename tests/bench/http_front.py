"""What HTTP adds to gRPC: the same calls by both, in turns, against a gateway that runs with --http-port.

    visiongate up --demo --http-port 8080
    python tests/bench/http_front.py --port 50051 --http-port 8080

Answers come from caches: what is measured is the way there and back, not the models.
"""

import argparse
import base64
import http.client
import io
import json
import statistics
import threading
import time
from collections.abc import Callable

import grpc
import numpy as np
from PIL import Image

from visiongate.v1 import embedding_service_pb2, embedding_service_pb2_grpc, image_pb2

BOUNDARY = "visiongate"


def jpeg(megabytes: float) -> bytes:
    """Return a JPEG file of about this size."""
    side = int((megabytes * 1e6 / 1.05) ** 0.5)
    pixels = np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=87)
    return file.getvalue()


class Http:
    """A connection that stays open."""

    def __init__(self, host: str, port: int) -> None:
        self._connection = http.client.HTTPConnection(host, port, timeout=120)

    def post(self, path: str, body: bytes, content_type: str) -> bytes:
        self._connection.request("POST", path, body, {"content-type": content_type})
        answer = self._connection.getresponse()
        content = answer.read()
        assert answer.status == 200, content[:500]
        return content


def in_turns(rounds: int, **ways: Callable[[], object]) -> dict[str, float]:
    """Return the median milliseconds of each way."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            times[name].append((time.perf_counter() - start) * 1e3)
    return {name: statistics.median(each) for name, each in times.items()}


def report(what: str, medians: dict[str, float]) -> None:
    first = medians["grpc"]
    words = (f"{name} {ms:.2f} ms (+{ms - first:.2f}, x{ms / first:.2f})" for name, ms in medians.items())
    print(f"{what}: {', '.join(words)}")


def form(content: bytes) -> bytes:
    head = f'--{BOUNDARY}\r\ncontent-disposition: form-data; name="images"; filename="a.jpg"\r\n\r\n'
    return head.encode() + content + f"\r\n--{BOUNDARY}--\r\n".encode()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=50051)
    parser.add_argument("--http-port", type=int, default=8080)
    parser.add_argument("--rounds", type=int, default=400)
    options = parser.parse_args()
    channel = grpc.insecure_channel(f"{options.host}:{options.port}", [("grpc.max_send_message_length", -1)])
    stub = embedding_service_pb2_grpc.EmbeddingServiceStub(channel)
    web = Http(options.host, options.http_port)

    texts = embedding_service_pb2.EmbedTextsRequest(texts=["a red circle"])
    small = json.dumps({"texts": ["a red circle"]}).encode()
    report(
        "a cached text",
        in_turns(
            options.rounds,
            grpc=lambda: stub.EmbedTexts(texts),
            json=lambda: web.post("/v1/texts:embed", small, "application/json"),
        ),
    )

    photo = jpeg(3)
    images = embedding_service_pb2.EmbedImagesRequest(images=[image_pb2.Image(encoded=photo)])
    multipart = f"multipart/form-data; boundary={BOUNDARY}"
    as_json = json.dumps({"images": [{"encoded": base64.b64encode(photo).decode()}]}).encode()
    as_form = form(photo)
    report(
        f"a cached JPEG of {len(photo) / 1e6:.1f} MB",
        in_turns(
            options.rounds // 4,
            grpc=lambda: stub.EmbedImages(images),
            multipart=lambda: web.post("/v1/images:embed", as_form, multipart),
            json=lambda: web.post("/v1/images:embed", as_json, "application/json"),
        ),
    )

    # A body at the limit, again and again, beside small requests.
    largest = {"images": [{"encoded": base64.b64encode(jpeg(11)).decode()} for _ in range(3)]}
    body, is_over = json.dumps(largest).encode(), threading.Event()

    def send_large() -> None:
        other = Http(options.host, options.http_port)
        while not is_over.is_set():
            other.post("/v1/images:embed", body, "application/json")

    def ask() -> float:
        start = time.perf_counter()
        web.post("/v1/texts:embed", small, "application/json")
        return (time.perf_counter() - start) * 1e3

    alone = [ask() for _ in range(options.rounds)]
    thread = threading.Thread(target=send_large)
    thread.start()
    time.sleep(2)
    beside = [ask() for _ in range(options.rounds)]
    is_over.set()
    thread.join()
    print(
        f"a cached text beside bodies of {len(body) / 1e6:.0f} MB: median {statistics.median(beside):.2f} ms,"
        f" worst {max(beside):.1f} (alone {statistics.median(alone):.2f} and {max(alone):.1f} ms)"
    )


if __name__ == "__main__":
    main()
