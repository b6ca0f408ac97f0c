"""CLIP: embeddings as the model gives them, and cosines."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gateway.http.inference_sdk.asked import Asked, check_count, image_names, image_tree
from gateway.http.json_text import Tree

_KINDS = ("image", "text")
_VERSION = "clip_version_id"
_NAMES = {"model": _VERSION}
_FORM = {"normalize": False, "strict": True, "embedding_format": "EMBEDDING_FORMAT_FLOAT32"}


async def embed_image(asked: Asked) -> Tree:
    """Embed one image, or several."""
    images = asked.images()
    request = {"images": images.trees, "model": asked.version(_VERSION), **_FORM}
    response = await asked.call("EmbedImages", request, {**images.names(), **_NAMES})
    # The SDK fails without the frame_id.
    return {"embeddings": _rows(response), "time": asked.seconds(), "frame_id": None, "inference_id": None}


async def embed_text(asked: Asked) -> Tree:
    """Embed one text, or several."""
    value = asked.required("text")
    texts, names = (value, {"texts": "text"}) if isinstance(value, list) else ([value], {"texts[0]": "text"})
    request = {"texts": texts, "truncate": True, "model": asked.version(_VERSION), **_FORM}
    response = await asked.call("EmbedTexts", request, {**names, **_NAMES})
    return {"embeddings": _rows(response), "time": asked.seconds(), "inference_id": None}


async def compare(asked: Asked) -> Tree:
    """Compare one image or text with others: a list of them, or an object that gives each a name."""
    names: dict[str, str] = dict(_NAMES)
    subject_kind = asked.choice("subject_type", "image", _KINDS)
    subject = _content(asked.required("subject"), subject_kind, "subject", "subject", names)
    kind = asked.choice("prompt_type", "text", _KINDS)
    prompt = asked.required("prompt")
    labels: list[str] | None = None
    if isinstance(prompt, list):
        prompts, paths = prompt, [f"prompt[{index}]" for index in range(len(prompt))]
    elif isinstance(prompt, dict) and not (kind == "image" and isinstance(prompt.get("type"), str)):
        labels, prompts = list(prompt), list(prompt.values())
        paths = [f"prompt.{label}" for label in labels]
    else:
        prompts, paths = [prompt], ["prompt"]
    check_count(len(prompts), "prompt")
    candidates = [
        _content(item, kind, f"candidates[{index}]", path, names)
        for index, (item, path) in enumerate(zip(prompts, paths, strict=True))
    ]
    names["candidates"] = "prompt"
    request = {
        "subject": subject,
        "candidates": candidates,
        "truncate": True,
        "strict": True,
        "model": asked.version(_VERSION),
    }
    response = await asked.call("CompareImagesAndTexts", request, names)
    cosines = [result.similarity for result in response.results]
    similarity = cosines if labels is None else dict(zip(labels, cosines, strict=True))
    return {"similarity": similarity, "time": asked.seconds(), "parent_id": None, "inference_id": None}


def _content(value: Tree, kind: str, field: str, path: str, names: dict[str, str]) -> Tree:
    """Return an image or a text as the API takes it, and add the caller's names of it."""
    if kind == "text":
        names[f"{field}.text"] = path
        return {"text": value}
    names |= image_names(f"{field}.image", path)
    return {"image": image_tree(value, path)}


def _rows(response: Any) -> Iterator[NDArray[np.float32]]:
    return (np.frombuffer(result.embedding.packed, "<f4") for result in response.results)
