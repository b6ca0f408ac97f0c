"""The tasks over HTTP: a route for each method, as the annotations in the .proto files have it."""

import asyncio
import io
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import grpc
import numpy as np
from google.api import annotations_pb2
from google.protobuf.descriptor import FileDescriptor, MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from PIL import Image
from pycocotools import mask as coco

from gateway.http import json_text
from gateway.http.calls import Calls
from gateway.http.exchange import Answer, Exchange
from gateway.http.forms import read_form
from gateway.http.json_reader import read_message
from gateway.http.json_writer import pieces_of
from gateway.http.statuses import HttpError
from visiongate.v1 import embedding_service_pb2, segmentation_service_pb2

JSON, FORM, PNG, NPY = "application/json", "multipart/form-data", "image/png", "application/x-npy"

MAX_ACCEPTED = 64
"""So many types of a header Accept are looked at."""
COPIES = 2
"""Of a body, beside itself: what is decoded of it, and what is sent to the gateway."""


@dataclass(frozen=True, slots=True)
class Operation:
    """A method of the API, and how it is asked for over HTTP."""

    http_method: str
    path: str
    method: MethodDescriptor

    @property
    def media_types(self) -> tuple[str, ...]:
        """The types that its answer can have, the default one first."""
        answer = self.method.output_type.full_name
        return (JSON, *(kind for kind, answers in _SPECIAL.items() if answer in answers))


_SPECIAL: Mapping[str, tuple[str, ...]] = {
    PNG: (
        segmentation_service_pb2.SegmentRegionsResponse.DESCRIPTOR.full_name,
        segmentation_service_pb2.SegmentPhrasesResponse.DESCRIPTOR.full_name,
        segmentation_service_pb2.SegmentEverythingResponse.DESCRIPTOR.full_name,
    ),
    NPY: (
        embedding_service_pb2.EmbedImagesResponse.DESCRIPTOR.full_name,
        embedding_service_pb2.EmbedTextsResponse.DESCRIPTOR.full_name,
    ),
}


def operations(files: Iterable[FileDescriptor]) -> Iterator[Operation]:
    """Yield the operations of .proto files. A method without an annotation is not to be had over HTTP."""
    for file in files:
        for service in file.services_by_name.values():
            for method in service.methods:
                rule = method.GetOptions().Extensions[annotations_pb2.http]
                kind = rule.WhichOneof("pattern")
                if kind is None:
                    continue
                path = getattr(rule, kind)
                if kind not in ("get", "post") or "{" in path or rule.body != ("*" if kind == "post" else ""):
                    raise NotImplementedError(f"{method.full_name}: this kind of route is not served yet")
                yield Operation(kind.upper(), path, method)


async def answer(operation: Operation, calls: Calls, exchange: Exchange) -> Answer:
    """Answer a request for an operation. Raises StatusError and CallError."""
    calls.admit(exchange)
    media_type = choose(exchange.headers.get("accept", ""), operation.media_types)
    request = GetMessageClass(operation.method.input_type)()
    if operation.http_method == "POST":
        await _read(exchange, request)
    _prepare(request, media_type)
    response = await calls.call(operation.method, request, exchange)
    del request
    match media_type:
        case "image/png":
            return Answer([await asyncio.to_thread(_png, response)], PNG)
        case "application/x-npy":
            return Answer([await asyncio.to_thread(_npy, response)], NPY)
    return Answer(pieces_of(response))


def choose(accept: str, offered: tuple[str, ...]) -> str:
    """Return which of the offered types a caller wants, by its header Accept. Raise HttpError if none."""
    wanted: list[tuple[float, str]] = []
    for part in accept.split(",")[:MAX_ACCEPTED] if accept.strip() else ["*/*"]:
        kind, *parameters = (word.strip().lower() for word in part.split(";"))
        weight = next((word[2:] for word in parameters if word.startswith("q=")), "1")
        try:
            wanted.append((float(weight), kind))
        except ValueError:
            continue
    for quality, kind in sorted(wanted, key=lambda each: -each[0]):
        for media_type in offered:
            if quality > 0 and kind in (media_type, "*/*", f"{media_type.partition('/')[0]}/*"):
                return media_type
    raise HttpError(
        406, grpc.StatusCode.INVALID_ARGUMENT, f"accept: the answer can be {' or '.join(offered)}"
    )


async def _read(exchange: Exchange, request: Message) -> None:
    """Fill the request with what the body says."""
    if exchange.media_type == JSON:
        text = await exchange.body()
        exchange.share.take(COPIES * len(text))
        await read_message(await json_text.parse(text, exchange.share.add), request)
    elif exchange.media_type == FORM:
        await read_form(exchange.chunks(), exchange.headers["content-type"], request, exchange.share.add)
        exchange.share.take(COPIES * request.ByteSize())
    else:
        raise HttpError(415, grpc.StatusCode.INVALID_ARGUMENT, f"content-type: must be {JSON} or {FORM}")


def _prepare(request: Any, media_type: str) -> None:
    """Ask the gateway for what the answer's type is made of."""
    if media_type == PNG:
        request.mask_format = segmentation_service_pb2.MASK_FORMAT_RLE
    elif media_type == NPY:
        request.strict = True
        if request.embedding_format != embedding_service_pb2.EMBEDDING_FORMAT_FLOAT16:
            request.embedding_format = embedding_service_pb2.EMBEDDING_FORMAT_FLOAT32


def _png(response: Any) -> bytes:
    """Return a picture of the image's size, white where any mask of the answer is; of three, the best."""
    if isinstance(response, segmentation_service_pb2.SegmentRegionsResponse):
        masks = [region.masks[0] for region in response.regions]
    elif isinstance(response, segmentation_service_pb2.SegmentPhrasesResponse):
        masks = [each.mask for each in response.objects]
    else:
        masks = [each.mask for each in response.masks]
    size = [response.image.height, response.image.width]
    runs = [{"size": size, "counts": mask.rle.counts} for mask in masks]
    pixels = coco.decode(coco.merge(runs)) if runs else np.zeros(size, np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels * np.uint8(255)).save(file, "PNG", compress_level=1)
    return file.getvalue()


def _npy(response: Any) -> bytes:
    """Return NumPy's file of the embeddings, [N, dimensions]."""
    data = b"".join(result.embedding.packed for result in response.results)
    count = len(response.results) * response.dimensions
    kind = "<f2" if len(data) == 2 * count and count else "<f4"
    file = io.BytesIO()
    np.save(file, np.frombuffer(data, kind).reshape(len(response.results), response.dimensions))
    return file.getvalue()
