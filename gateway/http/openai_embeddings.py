"""Embeddings as OpenAI's clients ask for them: of texts, and of images as data URIs."""

import base64
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import orjson
from google.rpc import code_pb2, error_details_pb2, status_pb2

from gateway.errors import InvalidArgumentError
from gateway.http import statuses, translation
from gateway.http.calls import Calls
from gateway.http.exchange import Answer, Exchange
from gateway.http.json_text import Cut, Tree
from gateway.http.statuses import CallError
from gateway.http.translation import Names

MAX_INPUTS = 2048
"""OpenAI's own limit. The gateway's are lower."""
FAMILY = "clip"
"""The name that stands for the default variant of the embedding model."""
_IMAGE = b"data:image/"
_FORMATS = ("float", "base64")


async def answer(calls: Calls, exchange: Exchange) -> Answer:
    """Answer a request. Raises StatusError and CallError."""
    calls.admit(exchange)
    body = await translation.read_object(exchange)
    written = body.get("encoding_format", "float")
    if written not in _FORMATS:
        raise InvalidArgumentError("encoding_format", f"must be {' or '.join(_FORMATS)}")
    inputs, model = _inputs(body), _model(body)
    truncate = body.get("truncate", False)
    texts = {index: item for index, item in enumerate(inputs) if not _is_image(item)}
    images = {index: {"encoded": item} for index, item in enumerate(inputs) if index not in texts}
    vectors: dict[int, bytes] = {}
    dimensions = 0
    for method, field, items, options in (
        ("EmbedTexts", "texts", texts, {"truncate": truncate}),
        ("EmbedImages", "images", images, {}),
    ):
        if items:
            request = {
                field: list(items.values()),
                "strict": True,
                "embedding_format": "EMBEDDING_FORMAT_FLOAT32",
                "model": model,
                **options,
            }
            response = await _ask(calls, exchange, method, request, _names(field, items))
            vectors |= zip(items, (result.embedding.packed for result in response.results), strict=True)
            # Images and texts are of one variant, whatever becomes the default meanwhile.
            model, dimensions = response.model, response.dimensions
    if body.get("dimensions", dimensions) != dimensions:
        raise InvalidArgumentError("dimensions", f"must be {dimensions}: {model} has no others")
    tree = {
        "object": "list",
        "data": _data(vectors, written),
        "model": model,
        # The gateway's answers do not say how many tokens a text has.
        "usage": {"prompt_tokens": 0, "total_tokens": 0},
    }
    return Answer(translation.write(tree))


def write_error(status: status_pb2.Status) -> bytes:
    """Write an error as OpenAI's clients read it."""
    http_status = statuses.http_status(status)
    code = {401: "invalid_api_key", 404: "model_not_found", 429: "rate_limit_exceeded"}.get(http_status)
    error = {
        "message": status.message,
        "type": "server_error" if http_status >= 500 else "invalid_request_error",
        "param": _param(status),
        "code": code,
    }
    return orjson.dumps({"error": error})


def _inputs(body: Mapping[str, Tree]) -> list[Tree]:
    """Return the texts and images of a request."""
    value = body.get("input")
    inputs = value if isinstance(value, list) else [value]
    if not inputs or value is None:
        raise InvalidArgumentError(
            "input", "is missing: give a text, an image as a data URI, or a list of them"
        )
    if len(inputs) > MAX_INPUTS:
        raise InvalidArgumentError("input", f"has {len(inputs)} items; the limit is {MAX_INPUTS}")
    for index, item in enumerate(inputs):
        if isinstance(item, int | list):
            raise InvalidArgumentError(
                "input", "has lists of tokens: send texts, the model's tokens are its own"
            )
        if not isinstance(item, str | Cut):
            raise InvalidArgumentError(f"input[{index}]", "must be a string")
    return inputs


def _is_image(item: Tree) -> bool:
    start = (
        item[: len(_IMAGE)].encode("utf-8", "replace")
        if isinstance(item, str)
        else bytes(item.raw[: len(_IMAGE)])
    )
    return start.lower() == _IMAGE


def _model(body: Mapping[str, Tree]) -> str:
    """Return the variant that a request names, empty for the default one."""
    name = body.get("model")
    if not isinstance(name, str) or not name:
        raise InvalidArgumentError("model", f"is missing: give {FAMILY}, or the name of a variant")
    return "" if name == FAMILY else name


def _names(field: str, items: Iterable[int]) -> Names:
    """Return the caller's names of the items of a field of the API, by their places among all inputs."""
    names = {field: "input"}
    for place, index in enumerate(items):
        names |= {f"{field}[{place}]{end}": f"input[{index}]" for end in ("", ".encoded")}
    return names


async def _ask(calls: Calls, exchange: Exchange, method: str, request: Tree, names: Names) -> Any:
    try:
        return await translation.ask(calls, exchange, method, request, names)
    except CallError as error:
        if _param(error.status) == "model" and error.status.code == code_pb2.INVALID_ARGUMENT:
            error.status.code = code_pb2.NOT_FOUND
        raise


def _param(status: status_pb2.Status) -> str | None:
    """Return the field that an error is about."""
    request = error_details_pb2.BadRequest()
    for detail in status.details:
        if detail.Unpack(request) and request.field_violations:
            return str(request.field_violations[0].field)
    return None


def _data(vectors: Mapping[int, bytes], written: str) -> Iterator[Tree]:
    for index, packed in sorted(vectors.items()):
        embedding = base64.b64encode(packed).decode() if written == "base64" else np.frombuffer(packed, "<f4")
        yield {"object": "embedding", "index": index, "embedding": embedding}
