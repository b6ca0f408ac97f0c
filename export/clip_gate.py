"""What CLIP at int8 is held to: its embeddings, and the order in which they put captions and pictures.

Each tower is measured against the other one in float32. The pictures are drawn shapes and noise. The captions
name the shapes, and things of everyday life.
"""

from typing import Any

import numpy as np
import torch

from export.demo import scenes
from export.demo.clip_pictures import Square
from export.demo.scenes import Plan
from export.graph import Arrays
from export.measures import Gate, Measure
from export.pictures import noise

LEAST_COSINE = 0.99
LARGEST_SWAP = 0.05
"""As a share of the spread of all cosines of pictures and captions. What is nearer than that is a tie."""

_DRAWN, _NOISE = 16, 4
_SIDE = 240
_PLAN = Plan((1, 1), words=(0, 0), faces=(0, 0), shape_size=(0.3, 0.8))
_EVERYDAY = (
    "a photo of a cat",
    "a dog in the snow",
    "two people at a table",
    "a plate of food",
    "a street at night",
    "a page of text",
    "a red car",
    "the sea",
)


def image_gate(model: Any, tokenizer: Any) -> Gate:
    """Return what the image tower is held to."""
    return Gate([{"image": _pictures(model)}], _measures("image_embedding", _texts(model, tokenizer)))


def text_gate(model: Any, tokenizer: Any) -> Gate:
    """Return what the text tower is held to."""
    return Gate([{"input_ids": _tokens(tokenizer)}], _measures("text_embedding", _images(model)))


def largest_swap(scores: np.ndarray[Any, Any], expected: np.ndarray[Any, Any]) -> float:
    """Return how far apart what changes places in a row is expected to be, at most.

    Both are scores [rows,columns]. It is a share of the spread of all expected ones: 0 means the same order.
    """
    worst = 0.0
    for row, right in zip(scores, expected, strict=True):
        gaps = right[:, None] - right
        worst = max(worst, float(gaps[row[:, None] <= row].max()))
    return worst / float(np.ptp(expected))


def _measures(output: str, others: np.ndarray[Any, Any]) -> list[Measure]:
    """Return the measures of a tower by the other's embeddings [n,D]."""

    def cosine(_inputs: Arrays, actual: Arrays, expected: Arrays) -> float:
        return float((_unit(actual[output]) * _unit(expected[output])).sum(-1).min())

    def swap(_inputs: Arrays, actual: Arrays, expected: Arrays) -> float:
        scores, right = (_unit(embeddings[output]) @ _unit(others).T for embeddings in (actual, expected))
        return max(largest_swap(scores, right), largest_swap(scores.T, right.T))

    return [
        Measure("cosine", cosine, LEAST_COSINE),
        Measure("change of ranking", swap, LARGEST_SWAP, is_least=False),
    ]


def _pictures(model: Any) -> np.ndarray[Any, Any]:
    """Return pictures as the image tower takes them, uint8 [n,S,S,3]."""
    drawn = [scenes.draw(seed, _SIDE, _SIDE, _PLAN).image for seed in range(_DRAWN)]
    square = Square(model)
    return np.stack([square(image) for image in [*drawn, *noise(0, _NOISE, _SIDE, _SIDE)]])


def _tokens(tokenizer: Any) -> np.ndarray[Any, Any]:
    tokens: np.ndarray[Any, Any] = tokenizer([*(f"a {it}" for it in scenes.PHRASES), *_EVERYDAY]).numpy()
    return tokens


@torch.no_grad()
def _images(model: Any) -> np.ndarray[Any, Any]:
    from export.clip import ImageTower

    (embeddings,) = ImageTower(model)(torch.from_numpy(_pictures(model)))
    array: np.ndarray[Any, Any] = embeddings.numpy()
    return array


@torch.no_grad()
def _texts(model: Any, tokenizer: Any) -> np.ndarray[Any, Any]:
    array: np.ndarray[Any, Any] = model.encode_text(torch.from_numpy(_tokens(tokenizer))).numpy()
    return array


def _unit(rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    unit: np.ndarray[Any, Any] = rows / np.linalg.norm(rows, axis=-1, keepdims=True)
    return unit
