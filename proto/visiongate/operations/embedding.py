"""Images and texts in one space."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from visiongate.answer import Answer, ArrayAnswer
from visiongate.operations import arguments, splitting
from visiongate.operations.answers import read_info
from visiongate.operations.image import ImageLike, image_message
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
    images: Iterable[ImageLike], *, raw: bool = False, model: str = ""
) -> Operation[ArrayAnswer]:
    """Embed images: float32 [N, D], rows of length 1 unless `raw`, in the order given.

    The dot product of two rows is their cosine similarity. Embeddings of different models do not compare.

    More images than one request takes go in several; all of them are held in memory.
    """
    keywords: dict[str, Any] = {
        "raw": arguments.flag(raw, "raw"),
        "model": arguments.text(model, "model"),
        "include_timings": True,
    }
    request, more = splitting.requests(
        lambda part: embedding_service_pb2.EmbedImagesRequest(images=part, **keywords),
        arguments.images(images),
        lambda image: 1 / splitting.MAX_IMAGES,
    )
    return Operation(
        "/visiongate.v1.EmbeddingService/EmbedImages",
        request,
        embedding_service_pb2.EmbedImagesResponse,
        lambda response, request_id: ArrayAnswer(
            _rows(response), read_info(response, request_id, response.images)
        ),
        more,
    )


def embed_texts(
    texts: Iterable[str], *, truncate: bool = False, raw: bool = False, model: str = ""
) -> Operation[ArrayAnswer]:
    """Embed texts: float32 [N, D], rows of length 1 unless `raw`, in the order given.

    A text that is too long for the model is an error, or with `truncate` cut to its beginning.
    """
    keywords: dict[str, Any] = {
        "truncate": arguments.flag(truncate, "truncate"),
        "raw": arguments.flag(raw, "raw"),
        "model": arguments.text(model, "model"),
        "include_timings": True,
    }
    request, more = splitting.requests(
        lambda part: embedding_service_pb2.EmbedTextsRequest(texts=part, **keywords),
        arguments.texts(texts, "texts"),
        lambda text: 1 / splitting.MAX_TEXTS,
    )
    return Operation(
        "/visiongate.v1.EmbeddingService/EmbedTexts",
        request,
        embedding_service_pb2.EmbedTextsResponse,
        lambda response, request_id: ArrayAnswer(_rows(response), read_info(response, request_id)),
        more,
    )


def compare(
    subject: ImageLike | Text,
    candidates: Iterable[ImageLike | Text],
    *,
    truncate: bool = False,
    model: str = "",
) -> Operation[ArrayAnswer]:
    """Say how alike an image or a text is to each of many: cosines float32 [N], -1 to 1, in their order.

    Texts are `visiongate.Text("a cat")`; a plain string is the path or URI of an image.
    """
    keywords: dict[str, Any] = {
        "subject": _image_or_text(subject, "subject"),
        "truncate": arguments.flag(truncate, "truncate"),
        "model": arguments.text(model, "model"),
        "include_timings": True,
    }
    request, more = splitting.requests(
        lambda part: embedding_service_pb2.CompareImagesAndTextsRequest(candidates=part, **keywords),
        _images_and_texts(candidates, "candidates"),
        lambda item: 1 / (splitting.MAX_IMAGES if item.HasField("image") else splitting.MAX_TEXTS),
    )
    return Operation(
        "/visiongate.v1.EmbeddingService/CompareImagesAndTexts",
        request,
        embedding_service_pb2.CompareImagesAndTextsResponse,
        _read_comparisons,
        more,
    )


def classify(
    images: Iterable[ImageLike],
    labels: Iterable[str],
    *,
    prompt_template: str | None = None,
    top_k: int | None = None,
    truncate: bool = False,
    model: str = "",
) -> Operation[Answer[list[LabelScore]]]:
    """Say which labels fit images: for each image all labels, or the `top_k` best, best first.

    The model is asked about `prompt_template` ("a photo of a {}." by default) with each label in it.

    More images than one request takes go in several; all of them are held in memory.
    """
    keywords: dict[str, Any] = {
        "labels": arguments.texts(labels, "labels"),
        "prompt_template": None
        if prompt_template is None
        else arguments.text(prompt_template, "prompt_template"),
        "top_k": arguments.whole_number(top_k, "top_k", 1),
        "truncate": arguments.flag(truncate, "truncate"),
        "model": arguments.text(model, "model"),
        "include_timings": True,
    }
    request, more = splitting.requests(
        lambda part: embedding_service_pb2.ClassifyImagesRequest(images=part, **keywords),
        arguments.images(images),
        lambda image: 1 / splitting.MAX_IMAGES,
    )
    return Operation(
        "/visiongate.v1.EmbeddingService/ClassifyImages",
        request,
        embedding_service_pb2.ClassifyImagesResponse,
        _read_classifications,
        more,
    )


def _images_and_texts(
    items: Iterable[ImageLike | Text], name: str
) -> list[embedding_service_pb2.ImageOrText]:
    what = "images and texts"
    arguments.check_several(items, name, what)
    return [
        _image_or_text(item, f"{name}[{index}]")
        for index, item in enumerate(arguments.listed(items, name, what))
    ]


def _image_or_text(item: ImageLike | Text, name: str) -> embedding_service_pb2.ImageOrText:
    if isinstance(item, Text):
        return embedding_service_pb2.ImageOrText(text=arguments.text(item.text, name))
    try:
        return embedding_service_pb2.ImageOrText(image=image_message(item, name))
    except OSError as error:
        if not isinstance(item, str) or os.path.exists(item):
            raise
        raise type(error)(f"{error}; a text is visiongate.Text({arguments.shown(item)})") from error


def _rows(
    response: embedding_service_pb2.EmbedImagesResponse | embedding_service_pb2.EmbedTextsResponse,
) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    """float32 [N, D], also where N is 0."""
    if not response.embeddings:
        return np.zeros((0, response.dimensions), np.float32)
    return np.array([embedding.values for embedding in response.embeddings], np.float32)


def _read_comparisons(
    response: embedding_service_pb2.CompareImagesAndTextsResponse, request_id: str
) -> ArrayAnswer:
    things = [response.subject_image] if response.HasField("subject_image") else []
    things += [item.image for item in response.comparisons if item.HasField("image")]
    cosines = np.array([item.similarity for item in response.comparisons], np.float32)
    return ArrayAnswer(cosines, read_info(response, request_id, things))


def _read_classifications(
    response: embedding_service_pb2.ClassifyImagesResponse, request_id: str
) -> Answer[list[LabelScore]]:
    return Answer(
        [
            [
                LabelScore(item.label, item.label_index, item.probability, item.similarity)
                for item in classification.labels
            ]
            for classification in response.classifications
        ],
        read_info(response, request_id, [item.image for item in response.classifications]),
    )
