"""Images and texts in one space."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from visiongate.operations.image import EncodedImage, ImageLike, image_message
from visiongate.operations.operation import Operation
from visiongate.v1 import embedding_service_pb2


@dataclass(frozen=True, slots=True)
class Text:
    """A text, where a plain string would be the path or URI of an image."""

    text: str


@dataclass(frozen=True, slots=True)
class LabelScore:
    """How well a label fits an image: `probability` among all labels asked about, 0 to 1.

    `label_index` is its place in the request, `similarity` the cosine of image and prompt, -1 to 1.
    """

    label: str
    label_index: int
    probability: float
    similarity: float

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "label": self.label,
            "label_index": self.label_index,
            "probability": round(self.probability, 6),
            "similarity": round(self.similarity, 6),
        }


def embed_images(
    images: Sequence[ImageLike], *, raw: bool = False, model: str = ""
) -> Operation[NDArray[np.float32]]:
    """Embed images: float32 [N, D], rows of length 1 unless `raw`, in the order given.

    The dot product of two rows is their cosine similarity. Embeddings of different models do not compare.
    """
    return Operation(
        "/visiongate.v1.EmbeddingService/EmbedImages",
        embedding_service_pb2.EmbedImagesRequest(
            images=map(image_message, _several_images(images)), raw=raw, model=model
        ),
        embedding_service_pb2.EmbedImagesResponse,
        _read_embeddings,
    )


def embed_texts(
    texts: Sequence[str], *, truncate: bool = False, raw: bool = False, model: str = ""
) -> Operation[NDArray[np.float32]]:
    """Embed texts: float32 [N, D], rows of length 1 unless `raw`, in the order given.

    A text that is too long for the model is an error, or with `truncate` cut to its beginning.
    """
    return Operation(
        "/visiongate.v1.EmbeddingService/EmbedTexts",
        embedding_service_pb2.EmbedTextsRequest(
            texts=_several_texts(texts, "texts"), truncate=truncate, raw=raw, model=model
        ),
        embedding_service_pb2.EmbedTextsResponse,
        _read_embeddings,
    )


def compare(
    subject: ImageLike | Text,
    candidates: Sequence[ImageLike | Text],
    *,
    truncate: bool = False,
    model: str = "",
) -> Operation[NDArray[np.float32]]:
    """Say how alike an image or a text is to each of many: cosines float32 [N], -1 to 1, in their order.

    Texts are `visiongate.Text("a cat")`; a plain string is the path or URI of an image.
    """
    return Operation(
        "/visiongate.v1.EmbeddingService/CompareImagesAndTexts",
        embedding_service_pb2.CompareImagesAndTextsRequest(
            subject=_image_or_text(subject),
            candidates=map(_image_or_text, candidates),
            truncate=truncate,
            model=model,
        ),
        embedding_service_pb2.CompareImagesAndTextsResponse,
        lambda response, request_id: np.array([item.similarity for item in response.comparisons], np.float32),
    )


def classify(
    images: Sequence[ImageLike],
    labels: Sequence[str],
    *,
    prompt_template: str | None = None,
    top_k: int | None = None,
    truncate: bool = False,
    model: str = "",
) -> Operation[list[list[LabelScore]]]:
    """Say which labels fit images: for each image all labels, or the `top_k` best, best first.

    The model is asked about `prompt_template` ("a photo of a {}." by default) with each label in it.
    """
    return Operation(
        "/visiongate.v1.EmbeddingService/ClassifyImages",
        embedding_service_pb2.ClassifyImagesRequest(
            images=map(image_message, _several_images(images)),
            labels=_several_texts(labels, "labels"),
            prompt_template=prompt_template,
            top_k=top_k,
            truncate=truncate,
            model=model,
        ),
        embedding_service_pb2.ClassifyImagesResponse,
        lambda response, request_id: [
            [
                LabelScore(item.label, item.label_index, item.probability, item.similarity)
                for item in classification.labels
            ]
            for classification in response.classifications
        ],
    )


def _several_images(images: Sequence[ImageLike]) -> Sequence[ImageLike]:
    # All of these could be gone through, or almost: bytes as numbers, an array as its rows.
    lone = isinstance(images, str | bytes | os.PathLike | Image.Image | EncodedImage)
    if lone or (isinstance(images, np.ndarray) and images.ndim < 4):
        raise TypeError("images is a list of images; for a single one, put it into a list")
    return images


def _several_texts(texts: Sequence[str], name: str) -> Sequence[str]:
    if isinstance(texts, str):
        raise TypeError(f"{name} is a list of strings; for a single one, put it into a list")
    return texts


def _image_or_text(item: ImageLike | Text) -> embedding_service_pb2.ImageOrText:
    if isinstance(item, Text):
        return embedding_service_pb2.ImageOrText(text=item.text)
    return embedding_service_pb2.ImageOrText(image=image_message(item))


def _read_embeddings(
    response: embedding_service_pb2.EmbedImagesResponse | embedding_service_pb2.EmbedTextsResponse,
    request_id: str,
) -> NDArray[np.float32]:
    return np.array([embedding.values for embedding in response.embeddings], np.float32)
