"""Bad input never hurts: each is answered, or refused by a status that says what is wrong with it."""

import asyncio
import gc
import random
import re
import struct
import zlib
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import numpy as np
import pytest
from google.protobuf import descriptor_pool
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from PIL import Image

import bad_input
from gateway.models import image as images
from gateway.server import Gateway
from gateway.services.registry import SERVICES
from gateway.settings import Settings
from visiongate import AsyncClient, Text
from visiongate.operations import (
    Operation,
    detection,
    embedding,
    everything,
    gaze,
    models,
    segmentation,
    text,
)
from visiongate.v1 import embedding_service_pb2

LIMIT = 64_000_000
MEBIBYTE = 1 << 20
DAMAGED_IMAGES = 12_000
# Of each method, through the gateway.
IMAGES, MESSAGES, GARBAGE = 20, 30, 15
CALLS_AT_ONCE = 8

REFUSALS = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.UNIMPLEMENTED,
}
PICTURE = bad_input.encoded(Image.effect_noise((48, 36), 90).convert("RGB"), "PNG")
ZEROS = zlib.compress(bytes(100_000_000))


def resident() -> int:
    """Bytes of memory that the process holds."""
    return 4096 * int(Path("/proc/self/statm").read_text().split()[1])


def peak() -> int:
    """The most bytes of memory that the process held since `reset_peak`."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return 1024 * int(found[1])


def reset_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def test_damaged_images_are_images_or_refused() -> None:
    refused: Counter[str] = Counter()
    resident_at_half = 0
    for index, data in enumerate(bad_input.damaged_images(DAMAGED_IMAGES, seed=20)):
        if index == DAMAGED_IMAGES // 2:
            gc.collect()
            resident_at_half = resident()
        try:
            decoded = images.decode(data, max_pixels=250_000)
        except images.ImageError as error:
            refused[str(error)] += 1
        else:
            assert decoded.dtype == np.uint8
            assert decoded.shape[2] == 3
    gc.collect()
    assert resident() - resident_at_half < 30 * MEBIBYTE
    # Neither all nothing nor all harmless.
    assert DAMAGED_IMAGES // 5 < refused.total() < DAMAGED_IMAGES * 9 // 10


def test_what_is_damaged_was_good() -> None:
    for data in bad_input.good_images():
        assert images.decode(data, max_pixels=LIMIT).shape in ((18, 24, 3), (24, 18, 3))


def header_bombs() -> Sequence[Any]:
    # 81 million pixels pass Pillow's own check, 169 million make it warn, 60,000 squared make it raise.
    sizes = [(9_000, 9_000), (13_000, 13_000), (60_000, 60_000), (65_535, 65_535), (1, 65_000_000)]
    narrow = [size for size in sizes if max(size) < 1 << 16]
    bombs = {
        "png": [bad_input.png(size=size) for size in [*sizes, (0x7FFFFFFF, 0x7FFFFFFF)]],
        "tiff": [
            bad_input.tiff({256: (4, 1, width), 257: (4, 1, height)}, bytes(256)) for width, height in sizes
        ],
        "bmp": [bad_input.bmp_of(*size) for size in sizes],
        "jpeg": [bad_input.jpeg_of(*size) for size in narrow],
        "gif": [bad_input.gif_of(size, (8, 8)) for size in narrow],
        "gif frame": [bad_input.gif_of((8, 8), size) for size in narrow],
        "webp": [bad_input.webp_of(*size) for size in ((9_000, 9_000), (13_000, 13_000), (16_384, 16_384))],
        "avif": [bad_input.avif_of(size) for size in sizes],
        # The frame is what takes memory, whatever is said of it.
        "avif frame": [bad_input.avif_of(size, 3_000) for size in ((8, 8), (1_000, 1_000))],
        "heic": [bad_input.heic_of(*size) for size in sizes],
        "webp animation": [bad_input.animated_webp_of(*size) for size in narrow],
    }
    return [
        pytest.param(data, id=f"{kind} {index}")
        for kind, files in bombs.items()
        for index, data in enumerate(files)
    ]


def part_bombs() -> Sequence[Any]:
    """Files whose size is in order, and whose parts are not."""
    jpeg, gif = bad_input.jpeg_of(8, 8), bad_input.gif_of((8, 8), (8, 8))
    after_palette = gif.index(b",", 13 + 3 * (2 << (gif[10] & 7)))
    huge_tile = {322: (4, 1, 32_768), 323: (4, 1, 60_000), 324: (4, 1, 256), 325: (4, 1, 256)}
    strips = 1_000_000
    bombs = {
        "png text": bad_input.png(bad_input.png_chunk(b"tEXt", b"a\0") * 500_000),
        "png unknown chunks": bad_input.png(bad_input.png_chunk(b"abCd", b"") * 500_000),
        "png zTXt": bad_input.png(bad_input.png_chunk(b"zTXt", b"k\0\0" + ZEROS)),
        "png iTXt": bad_input.png(bad_input.png_chunk(b"iTXt", b"k\0\1\0\0\0" + ZEROS)),
        "png iCCP": bad_input.png(bad_input.png_chunk(b"iCCP", b"k\0\0" + ZEROS)),
        "png texts": bad_input.png(
            bad_input.png_chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(1_000_000))) * 100
        ),
        "jpeg comments": jpeg[:2] + b"\xff\xfe\0\2" * 1_000_000 + jpeg[2:],
        "jpeg segments": jpeg[:2] + b"\xff\xe2\0\2" * 1_000_000 + jpeg[2:],
        "jpeg fill": jpeg[:2] + b"\xff" * 4_000_000 + jpeg[2:],
        "jpeg scans": bad_input.jpeg_of_scans(2_000, 1_000),
        "jpeg scans, few": bad_input.jpeg_of_scans(64, 60),
        "gif blocks": gif[:after_palette] + b"!\xfe\0" * 1_000_000 + gif[after_palette:],
        "gif zeros": gif[:after_palette] + bytes(4_000_000) + gif[after_palette:],
        **{
            f"tiff tile, compression {compression}": bad_input.tiff(
                huge_tile | {259: (3, 1, compression)}, bytes(256)
            )
            for compression in (5, 7, 8, 32773, 34925, 50000)
        },
        "tiff strips": bad_input.tiff(
            {257: (4, 1, strips), 273: (4, strips, 256), 278: (4, 1, 1)}, bytes(4 * strips)
        ),
        "tiff strips of bytes": bad_input.tiff(
            {257: (4, 1, strips), 273: (1, strips, 256), 278: (4, 1, 1)}, bytes(strips)
        ),
        "avif boxes": bad_input.avif_of((8, 8)) + b"\0\0\0\x08free" * 1_000_000,
        "tiff samples": bad_input.tiff({277: (3, 1, 65_535)}, bytes(256)),
    }
    return [pytest.param(data, id=name) for name, data in bombs.items()]


@pytest.mark.parametrize("data", [*header_bombs(), *part_bombs()])
def test_bombs_are_refused_before_they_take_memory(data: bytes) -> None:
    reset_peak()
    before = resident()
    with pytest.raises(images.ImageError) as caught:
        images.decode(data, max_pixels=LIMIT)
    assert str(caught.value).endswith(".")
    assert peak() - before < 64 * MEBIBYTE


def odd_metadata() -> Sequence[Any]:
    picture = Image.new("RGB", (8, 8))
    noise = random.Random(1).randbytes(9_000)
    files = {
        "tiff tag over the end": bad_input.tiff({270: (2, 0x7FFFFFFF, 8)}, bytes(256)),
        "tiff directories in themselves": bad_input.tiff({34665: (4, 1, 8), 34853: (4, 1, 8)}, bytes(256)),
        "jpeg exif": bad_input.encoded(picture, "JPEG", exif=b"Exif\0\0" + noise),
        "jpeg icc": bad_input.encoded(picture, "JPEG", icc_profile=bytes(10_000_000)),
        "webp icc": bad_input.encoded(picture, "WEBP", icc_profile=bytes(10_000_000)),
        "webp xmp": bad_input.encoded(picture, "WEBP", xmp=b"<x>" * 1_000_000),
        "png exif": bad_input.encoded(picture, "PNG", exif=b"MM\0*\0\0\0\x08\xff\xff" + noise),
        "jpeg with some scans": bad_input.jpeg_of_scans(64, 20),
        # Such as a phone's video.
        "jpeg with scans behind it": bad_input.jpeg_of(8, 8) + b"\xff\xda" * 1000,
    }
    return [pytest.param(data, id=name) for name, data in files.items()]


@pytest.mark.parametrize("data", odd_metadata())
def test_odd_metadata_does_not_cost_the_image(data: bytes) -> None:
    assert images.decode(data, max_pixels=LIMIT).shape[2] == 3


def test_pieces_of_a_jpeg_header_do_not_count_as_scans() -> None:
    thumbnail = struct.pack(">H", 2 + 4000) + b"\xff\xda" * 2000
    data = bad_input.jpeg_of(8, 8)
    assert images.decode(data[:2] + b"\xff\xe5" + thumbnail + data[2:], max_pixels=LIMIT).shape == (8, 8, 3)


@pytest.fixture(scope="module")
async def port(demo_settings: Settings) -> AsyncIterator[int]:
    """A gateway that keeps little, and takes few prompts: whatever passes must be quick."""
    limits = {
        "max_grid_points": 16,
        "max_prompts": 40,
        "image_cache_bytes": MEBIBYTE,
        "sam_embedding_cache_bytes": MEBIBYTE,
        "clip_text_cache_bytes": MEBIBYTE,
        "clip_image_cache_bytes": MEBIBYTE,
    }
    async with Gateway(demo_settings.model_copy(update=limits)) as gateway:
        yield gateway.port


def examples() -> list[Operation[Any]]:
    """A good request for every method."""
    return [
        detection.detect(PICTURE, ["dog", "cat"], nms_iou_threshold=0.5),
        detection.detect_batch([PICTURE, PICTURE], ["dog", "cat"]),
        segmentation.segment(PICTURE, boxes=[[1, 1, 9, 9], [2, 2, 8, 8]], points=[[[3, 3]], [[4, 4]]]),
        segmentation.segment_phrases(PICTURE, ["dog", "cat"]),
        segmentation.segment_phrases_batch([PICTURE, PICTURE], ["dog", "cat"]),
        everything.segment_everything(PICTURE, points_per_side=2),
        everything.segment_everything_batch([PICTURE, PICTURE], points_per_side=2),
        segmentation.encode_image(PICTURE),
        embedding.embed_images([PICTURE, PICTURE]),
        embedding.embed_texts(["a dog", "a cat"]),
        embedding.compare(Text("a dog"), [Text("a cat"), PICTURE]),
        embedding.classify([PICTURE], ["dog", "cat"], top_k=1),
        gaze.estimate_gaze(PICTURE, min_score=0.5),
        gaze.estimate_gaze_batch([PICTURE, PICTURE]),
        text.recognize_text([PICTURE]),
        models.list_models(),
    ]


def test_every_method_has_an_example() -> None:
    pool = descriptor_pool.Default()
    methods = {
        f"/{service.name}/{method.name}"
        for service in SERVICES
        for method in pool.FindServiceByName(service.name).methods
        if not method.client_streaming
    }
    assert {example.method for example in examples()} == methods


def set_image(request: Any, data: bytes) -> None:
    """Puts another image where the request has its first."""
    if isinstance(request, embedding_service_pb2.CompareImagesAndTextsRequest):
        request.subject.image.encoded = data
    elif "images" in request.DESCRIPTOR.fields_by_name:
        request.images[0].encoded = data
    elif "image" in request.DESCRIPTOR.fields_by_name:
        request.image.encoded = data


def bad_messages(seed: int) -> list[tuple[str, bytes]]:
    """Methods, and what is sent to them, in a mixed order."""
    rng = random.Random(seed)
    sent = []
    for example in examples():
        for data in bad_input.damaged_images(IMAGES, rng.randrange(1 << 30)):
            request = type(example.request)()
            request.CopyFrom(example.request)
            set_image(request, data)
            sent.append((example.method, request.SerializeToString()))
        for _ in range(MESSAGES if example.request.DESCRIPTOR.fields else 0):
            request = type(example.request)()
            request.CopyFrom(example.request)
            for _ in range(rng.choice((1, 1, 2, 4))):
                bad_input.damage_message(rng, request)
            sent.append((example.method, request.SerializeToString()))
        sent += [
            (example.method, bad_input.wire_garbage(rng, example.request.SerializeToString()))
            for _ in range(GARBAGE)
        ]
    rng.shuffle(sent)
    return sent


async def answer(channel: grpc.aio.Channel, method: str, data: bytes) -> str:
    """The status of a call, checked to be a good one with details."""
    call: Any = channel.unary_unary(method)
    try:
        await call(data, timeout=120)
    except grpc.aio.AioRpcError as error:
        check_refusal(error, f"{method} of {data[:300]!r}")
        return error.code().name
    return "OK"


def check_refusal(error: grpc.aio.AioRpcError, what: str) -> None:
    assert error.code() in REFUSALS, f"{error.code()} {error.details()}: {what}"
    status = rpc_status.from_call(error)  # type: ignore[arg-type]
    assert status is not None, f"{error.code()} {error.details()}: {what}"
    details = {detail.TypeName(): detail for detail in status.details}
    if error.code() is grpc.StatusCode.INVALID_ARGUMENT:
        bad_request = error_details_pb2.BadRequest()
        assert details["google.rpc.BadRequest"].Unpack(bad_request), what
        (violation,) = bad_request.field_violations
        assert violation.field, what
        assert violation.description, what
    else:
        assert "google.rpc.ErrorInfo" in details, what


async def test_bad_messages_are_answered_or_refused(port: int) -> None:
    messages = bad_messages(seed=21)
    found: Counter[str] = Counter()
    slots = asyncio.Semaphore(CALLS_AT_ONCE)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:

        async def send(method: str, data: bytes) -> None:
            async with slots:
                found[await answer(channel, method, data)] += 1

        async def send_all(part: list[tuple[str, bytes]]) -> int:
            async with asyncio.TaskGroup() as group:
                for method, data in part:
                    group.create_task(send(method, data))
            gc.collect()
            return resident()

        half = len(messages) // 2
        growth = -(await send_all(messages[:half])) + await send_all(messages[half:])
    assert growth < 100 * MEBIBYTE
    assert found["OK"] > len(messages) // 20
    assert found["INVALID_ARGUMENT"] > len(messages) // 4
    async with AsyncClient(f"127.0.0.1:{port}") as client:
        ((mask,),) = await client.segment(PICTURE, boxes=[[1, 1, 20, 20]])
        assert mask.pixels.shape == (36, 48)
