"""How long requests stop the event loop of a gateway that has a process of its own.

The largest requests also stop whoever writes them. A second thread of the gateway's process asks the event
loop for a sign of life all the time. Whatever holds the interpreter's lock delays that, too.
"""

import asyncio
import base64
import contextlib
import http.client
import io
import json
import multiprocessing
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from typing import Any

import grpc
import numpy as np
from google.protobuf.message import Message
from PIL import Image

from gateway.http.front import HttpFront
from gateway.server import Gateway
from gateway.settings import Settings
from visiongate.v1 import (
    detection_service_pb2,
    embedding_service_pb2,
    geometry_pb2,
    image_pb2,
    segmentation_service_pb2,
    text_service_pb2,
)

MEBIBYTE = 1 << 20


def _processor_times() -> dict[int, float]:
    """Seconds of processor time that each of Python's threads has had."""
    times = {}
    for thread in threading.enumerate():
        with contextlib.suppress(OSError):  # it has ended
            times[thread.ident or 0] = time.clock_gettime(time.pthread_getcpuclockid(thread.ident or 0))
    return times


def _serve(settings_json: str, pipe: Connection) -> None:
    """Run a gateway; tell its ports, and then, each time it is asked, the longest gap since the last time."""

    async def run() -> None:
        loop = asyncio.get_running_loop()
        settings = Settings.model_validate_json(settings_json)
        async with (
            HttpFront(settings.model_copy(update={"http_port": 0})) as front,
            Gateway(settings, loopback=front.loopback) as gateway,
        ):
            front.begin(gateway)
            longest = 0.0

            def watch() -> None:
                nonlocal longest
                while True:
                    start, before = time.perf_counter(), _processor_times()
                    alive = threading.Event()
                    loop.call_soon_threadsafe(alive.set)
                    alive.wait()
                    gap = time.perf_counter() - start
                    if gap > longest:
                        # A gap in which no thread has worked so long is the machine's, which has other work.
                        work = max(
                            now - before.get(thread, now) for thread, now in _processor_times().items()
                        )
                        longest = max(longest, min(gap, work))
                    time.sleep(0.002)

            threading.Thread(target=watch, daemon=True).start()
            pipe.send((gateway.port, front.port))
            while await asyncio.to_thread(pipe.recv):
                pipe.send(longest)
                longest = 0.0

    asyncio.run(run())


class Served:
    """The gateway in the other process."""

    def __init__(self, channel: grpc.Channel, http_port: int, pipe: Connection) -> None:
        self._channel = channel
        self._http_port = http_port
        self._pipe = pipe

    def gap_s(self) -> float:
        """The longest time that the event loop has stood still since the last question."""
        self._pipe.send(True)
        gap: float = self._pipe.recv()
        return gap

    def answer(self, method: str, data: bytes) -> grpc.StatusCode:
        call: Any = self._channel.unary_unary(f"/visiongate.v1.{method}")
        code: grpc.StatusCode = call.future(data, timeout=300).code()
        return code

    def http_status(self, path: str, body: bytes, content_type: str) -> int:
        connection = http.client.HTTPConnection("127.0.0.1", self._http_port, timeout=300)
        with contextlib.closing(connection):
            connection.request("POST", path, body, {"content-type": content_type})
            answer = connection.getresponse()
            answer.read()
            return answer.status


@contextlib.contextmanager
def serving(settings: Settings) -> Iterator[Served]:
    """Run such a gateway."""
    context = multiprocessing.get_context("spawn")
    ours, its = context.Pipe()
    process = context.Process(target=_serve, args=(settings.model_dump_json(), its))
    process.start()
    try:
        options = [("grpc.max_receive_message_length", -1)]
        port, http_port = ours.recv()
        with grpc.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
            yield Served(channel, http_port, ours)
    finally:
        ours.send(False)
        process.join(60)
        process.kill()
    assert process.exitcode == 0


def bmp(width: int, height: int) -> bytes:
    file = io.BytesIO()
    Image.effect_noise((width, height), 90).convert("RGB").save(file, "BMP")
    return file.getvalue()


def png(width: int, height: int) -> bytes:
    file = io.BytesIO()
    Image.effect_noise((width // 10, height // 10), 90).convert("RGB").resize((width, height)).save(
        file, "PNG"
    )
    return file.getvalue()


SMALL = image_pb2.Image(encoded=png(320, 240))


def prompts(count: int, points: int = 0) -> list[segmentation_service_pb2.Prompt]:
    """Boxes, or as many points each."""
    if not points:
        box = geometry_pb2.Box(x_min=20, y_min=20, x_max=100, y_max=90)
        return [segmentation_service_pb2.Prompt(box=box)] * count
    point = segmentation_service_pb2.PromptPoint(
        point=geometry_pb2.Point(x=50.5, y=60.5), label=segmentation_service_pb2.POINT_LABEL_FOREGROUND
    )
    return [segmentation_service_pb2.Prompt(points=[point] * points)] * count


def file_of_32_mebibytes() -> Message:
    return detection_service_pb2.DetectObjectsRequest(
        image=image_pb2.Image(encoded=bmp(4000, 2790)),
        query=detection_service_pb2.ObjectQuery(caption="a red circle"),
    )


def raw_pixels_of_a_photo() -> Message:
    pixels = np.random.default_rng(1).integers(0, 255, (3024, 4032, 3), np.uint8).tobytes()
    return segmentation_service_pb2.EncodeImageRequest(
        image=image_pb2.Image(raw=image_pb2.RawImage(data=pixels, width=4032, height=3024))
    )


def files_in_a_list() -> Message:
    return embedding_service_pb2.EmbedImagesRequest(images=[image_pb2.Image(encoded=bmp(480, 360))] * 64)


def thousand_boxes_with_logits() -> Message:
    return segmentation_service_pb2.SegmentRegionsRequest(
        image=SMALL, prompts=prompts(1000), include_logits=True
    )


def as_many_points_as_fit() -> Message:
    return segmentation_service_pb2.SegmentRegionsRequest(image=SMALL, prompts=prompts(450, 64))


def outlines() -> Message:
    return segmentation_service_pb2.SegmentRegionsRequest(
        image=image_pb2.Image(encoded=png(4000, 3000)),
        prompts=prompts(20),
        multimask=True,
        mask_format=segmentation_service_pb2.MASK_FORMAT_POLYGONS,
    )


def bitmaps() -> Message:
    return segmentation_service_pb2.SegmentRegionsRequest(
        image=image_pb2.Image(encoded=png(4000, 3000)),
        prompts=prompts(22),
        mask_format=segmentation_service_pb2.MASK_FORMAT_BITMAP,
    )


def everything() -> Message:
    return segmentation_service_pb2.SegmentEverythingRequest(
        image=SMALL,
        points_per_side=40,
        min_predicted_iou=0,
        min_stability_score=0,
        nms_iou_threshold=1,
        mask_format=segmentation_service_pb2.MASK_FORMAT_POLYGONS,
    )


def texts() -> Message:
    return embedding_service_pb2.EmbedTextsRequest(
        texts=[f"{index} {'dog ' * 120}" for index in range(1024)], truncate=True
    )


def labels() -> Message:
    return embedding_service_pb2.ClassifyImagesRequest(
        images=[SMALL] * 64, labels=[f"label {index} {'x' * 400}" for index in range(1024)], truncate=True
    )


def candidates() -> Message:
    items = [embedding_service_pb2.ImageOrText(text=f"{index} {'cat ' * 120}") for index in range(1024)]
    return embedding_service_pb2.CompareImagesAndTextsRequest(
        subject=embedding_service_pb2.ImageOrText(image=SMALL), candidates=items, truncate=True
    )


def objects() -> Message:
    return segmentation_service_pb2.SegmentPhrasesRequest(
        image=SMALL,
        query=detection_service_pb2.ObjectQuery(
            caption="a red circle . " * 12, min_score=0, min_token_score=0, max_detections=1000
        ),
    )


def pages() -> Message:
    return text_service_pb2.RecognizeTextRequest(
        images=[image_pb2.Image(encoded=png(1000, 1000))] * 8, min_pixel_score=0, detect_orientation=True
    )


LARGEST: list[tuple[str, Callable[[], Message]]] = [
    ("DetectionService/DetectObjects", file_of_32_mebibytes),
    ("SegmentationService/EncodeImage", raw_pixels_of_a_photo),
    ("EmbeddingService/EmbedImages", files_in_a_list),
    ("SegmentationService/SegmentRegions", thousand_boxes_with_logits),
    ("SegmentationService/SegmentRegions", as_many_points_as_fit),
    ("SegmentationService/SegmentRegions", outlines),
    ("SegmentationService/SegmentRegions", bitmaps),
    ("SegmentationService/SegmentEverything", everything),
    ("SegmentationService/SegmentPhrases", objects),
    ("EmbeddingService/EmbedTexts", texts),
    ("EmbeddingService/ClassifyImages", labels),
    ("EmbeddingService/CompareImagesAndTexts", candidates),
    ("TextService/RecognizeText", pages),
]
"""Methods, and requests at their limits."""

MULTIPLYING = [
    ("SegmentationService/SegmentRegions", b"\x12\x00", 512 << 10),
    ("SegmentationService/SegmentRegions", b"\x12\x00", 36 * MEBIBYTE),
    ("SegmentationService/SegmentRegions", b"\x12\x02\x0a\x00", 512 << 10),
    ("EmbeddingService/EmbedImages", b"\x0a\x00", 512 << 10),
    ("EmbeddingService/CompareImagesAndTexts", b"\x12\x00", 36 * MEBIBYTE),
    ("DetectionService/DetectObjects", b"\x80", 36 * MEBIBYTE),
]
"""Methods, bytes of which parsing makes far more, and so many of them. They are refused."""


JSON, FORM = "application/json", "multipart/form-data; boundary=XX"
STRUCTURE_BYTES = (512 << 10) - 200


def json_of_48_megabytes() -> bytes:
    image = {"encoded": base64.b64encode(bmp(4000, 2790)).decode()}
    return json.dumps({"image": image, "query": {"caption": "a red circle"}}).encode()


def json_that_is_structure(unit: bytes, field: bytes) -> bytes:
    """As many units in a list as may be."""
    return b'{"%b":[' % field + b",".join([unit] * (STRUCTURE_BYTES // (len(unit) + 1))) + b"]}"


def json_of_names() -> bytes:
    return b"{" + b",".join(b'"%05d":0' % number for number in range(50_000)) + b',"49999":0}'


def json_of_escapes() -> bytes:
    return b'{"model":"' + b"\\" * (48 << 20) + b'"}'


def json_of_escaped_quotes() -> bytes:
    return b'{"model":"' + b'\\"' * (24 << 20) + b'"}'


def json_of_texts() -> bytes:
    return b'{"texts":[' + b",".join([b'"' + b"\\u0041" * 85_000 + b'"'] * 90) + b"]}"


def json_for_a_large_answer() -> bytes:
    """It has 32 MB, and as JSON a third more."""
    prompt = {"box": {"x_min": 20, "y_min": 20, "x_max": 100, "y_max": 90}}
    image = {"encoded": base64.b64encode(SMALL.encoded).decode()}
    return json.dumps({"image": image, "prompts": [prompt] * 1000, "include_logits": True}).encode()


def json_for_polygons() -> bytes:
    image = {"encoded": base64.b64encode(SMALL.encoded).decode()}
    return json.dumps(
        {
            "image": image,
            "points_per_side": 40,
            "min_predicted_iou": 0,
            "min_stability_score": 0,
            "nms_iou_threshold": 1,
            "mask_format": "MASK_FORMAT_POLYGONS",
        }
    ).encode()


def json_for_embeddings() -> bytes:
    return json.dumps({"texts": [f"circle {index}" for index in range(1024)]}).encode()


def form_part(name: str, content: bytes) -> bytes:
    return b"--XX\r\nContent-Disposition: form-data; %b\r\n\r\n%b\r\n" % (name.encode(), content)


def form_of_4096_texts() -> bytes:
    return form_part('name="texts"', b"a" * 100) * 4096 + b"--XX--\r\n"


def form_of_prompts() -> bytes:
    units = b"[" + b",".join([b"{}"] * (STRUCTURE_BYTES // 3)) + b"]"
    return form_part('name="prompts"', units) + b"--XX--\r\n"


def form_of_a_large_file() -> bytes:
    file = form_part('name="image"; filename="a.bmp"', bmp(4000, 2790))
    return file + form_part('name="caption"', b"a red circle") + b"--XX--\r\n"


def form_of_line_ends() -> bytes:
    return form_part('name="image"; filename="a"', b"\r\n--X" * (6 << 20)) + b"--XX--\r\n"


HTTP: list[tuple[str, str, Callable[[], bytes], int]] = [
    ("/v1/objects:detect", JSON, json_of_48_megabytes, 200),
    ("/v1/regions:segment", JSON, lambda: json_that_is_structure(b"{}", b"prompts"), 400),
    ("/v1/regions:segment", JSON, lambda: json_that_is_structure(b'{"points":[{}]}', b"prompts"), 400),
    ("/v1/regions:segment", JSON, lambda: json_that_is_structure(b"[]", b"prompts"), 400),
    ("/v1/texts:embed", JSON, lambda: json_that_is_structure(b'""', b"texts"), 400),
    ("/v1/objects:detect", JSON, json_of_names, 400),
    ("/v1/objects:detect", JSON, json_of_escapes, 400),
    ("/v1/objects:detect", JSON, json_of_escaped_quotes, 400),
    ("/v1/texts:embed", JSON, json_of_texts, 400),
    ("/v1/regions:segment", JSON, json_for_a_large_answer, 200),
    ("/v1/everything:segment", JSON, json_for_polygons, 200),
    ("/v1/texts:embed", JSON, json_for_embeddings, 200),
    ("/v1/texts:embed", FORM, form_of_4096_texts, 400),
    ("/v1/regions:segment", FORM, form_of_prompts, 400),
    ("/v1/objects:detect", FORM, form_of_a_large_file, 200),
    ("/v1/objects:detect", FORM, form_of_line_ends, 400),
]
"""Paths, types of bodies, bodies at their limits or made to hurt, and the statuses of their answers."""
