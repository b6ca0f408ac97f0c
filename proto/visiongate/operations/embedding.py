"""Embeddings: images and texts in one space."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visiongate.answer import Answer, ArrayAnswer
from visiongate.operations import arguments, splitting
from visiongate.operations.answers import item_images, read_errors, read_info
from visiongate.operations.image import ImageLike, image_message
from visiongate.operations.operation import Operation
from visiongate.v1 import embedding_service_pb2


@dataclass(frozen=True, slots=True)
class Text:
    """A text, for arguments that read a plain string as the path or URI of an image."""

    text: str


@dataclass(frozen=True, slots=True)
class LabelScore:
    """How well a label fits an image: `probability` among all labels of the request, 0 to 1.

    `label_index` is its index in the request, `similarity` the cosine of image and prompt, -1 to 1.
    """

    label: str
    label_index: int
    probability: float
    similarity: float

    def as_dict(self) -> dict[str, Any]:
        """Return what JSON holds."""
        return {
            "label": self.label,
            "label_index": self.label_index,
            "probability": round(self.probability, 6),
            "similarity": round(self.similarity, 6),
        }


def embed_images(
    images: Iterable[ImageLike], *, normalize: bool = True, model: str = "", strict: bool = True
) -> Operation[ArrayAnswer]:
    """Embed images: float32 [N, D], a row for each image, in the order given.

    Rows have length 1, so the dot product of two is their cosine similarity. With `normalize=False` they
    stay as the model gives them. Embeddings of different models cannot be compared.

    An image that cannot be used fails the call. With `strict=False` its row is NaN, and the answer's
    `errors` say why.

    A list that is too long for one request is sent in several; all images are held in memory.
    """
    keywords: dict[str, Any] = {
        "normalize": arguments.flag(normalize, "normalize"),
        "embedding_format": embedding_service_pb2.EMBEDDING_FORMAT_FLOAT32,
        "model": arguments.text(model, "model"),
        "include_timings": True,
        "strict": arguments.flag(strict, "strict"),
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
            _rows(response.results, response.dimensions),
            read_info(
                response,
                request_id,
                item_images(response.results),
                errors=read_errors(response.results, "images", request_id),
            ),
        ),
        more,
        list_name="images",
    )


def embed_texts(
    texts: Iterable[str],
    *,
    truncate: bool = False,
    normalize: bool = True,
    model: str = "",
    strict: bool = True,
) -> Operation[ArrayAnswer]:
    """Embed texts: float32 [N, D], a row for each text, in the order given.

    Rows have length 1, so the dot product of two is their cosine similarity. With `normalize=False` they
    stay as the model gives them.

    A text that is too long for the model is an error, or with `truncate` cut to its beginning. A text that
    cannot be used fails the call. With `strict=False` its row is NaN, and the answer's `errors` say why.
    """
    keywords: dict[str, Any] = {
        "truncate": arguments.flag(truncate, "truncate"),
        "normalize": arguments.flag(normalize, "normalize"),
        "embedding_format": embedding_service_pb2.EMBEDDING_FORMAT_FLOAT32,
        "model": arguments.text(model, "model"),
        "include_timings": True,
        "strict": arguments.flag(strict, "strict"),
    }
    request, more = splitting.requests(
        lambda part: embedding_service_pb2.EmbedTextsRequest(texts=part, **keywords),
        arguments.texts(texts, "texts"),
        splitting.share_of_text,
    )
    return Operation(
        "/visiongate.v1.EmbeddingService/EmbedTexts",
        request,
        embedding_service_pb2.EmbedTextsResponse,
        lambda response, request_id: ArrayAnswer(
            _rows(response.results, response.dimensions),
            read_info(response, request_id, errors=read_errors(response.results, "texts", request_id)),
        ),
        more,
        list_name="texts",
    )


def compare(
    subject: ImageLike | Text,
    candidates: Iterable[ImageLike | Text],
    *,
    truncate: bool = False,
    model: str = "",
    strict: bool = True,
) -> Operation[ArrayAnswer]:
    """Say how similar an image or a text is to each of many: cosines float32 [N], -1 to 1, in their order.

    Texts are `visiongate.Text("a cat")`; a plain string is the path or URI of an image.

    A candidate that cannot be used fails the call. With `strict=False` its cosine is NaN, and the answer's
    `errors` say why.
    """
    keywords: dict[str, Any] = {
        "subject": _image_or_text(subject, "subject"),
        "truncate": arguments.flag(truncate, "truncate"),
        "model": arguments.text(model, "model"),
        "include_timings": True,
        "strict": arguments.flag(strict, "strict"),
    }
    request, more = splitting.requests(
        lambda part: embedding_service_pb2.CompareImagesAndTextsRequest(candidates=part, **keywords),
        _images_and_texts(candidates, "candidates"),
        lambda item: (
            1 / splitting.MAX_IMAGES if item.HasField("image") else splitting.share_of_text(item.text)
        ),
    )
    return Operation(
        "/visiongate.v1.EmbeddingService/CompareImagesAndTexts",
        request,
        embedding_service_pb2.CompareImagesAndTextsResponse,
        _read_comparisons,
        more,
        list_name="candidates",
    )


def classify(
    images: Iterable[ImageLike],
    labels: Iterable[str],
    *,
    prompt_template: str | None = None,
    top_k: int | None = None,
    truncate: bool = False,
    model: str = "",
    strict: bool = True,
) -> Operation[Answer[list[LabelScore]]]:
    """Say which labels fit images: for each image all labels, or the `top_k` best, best first.

    The model is asked about `prompt_template` ("a photo of a {}." by default) with each label in it.

    An image that cannot be used fails the call. With `strict=False` its list of labels is empty, and the
    answer's `errors` say why.

    A list that is too long for one request is sent in several; all images are held in memory.
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
        "strict": arguments.flag(strict, "strict"),
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
        list_name="images",
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


def _rows(results: Sequence[Any], dimensions: int) -> NDArray[np.float32]:
    """Read embeddings: float32 [N, D], also if N is 0. The row of an error is NaN."""
    rows = np.full((len(results), dimensions), np.nan, np.float32)
    for row, result in zip(rows, results, strict=True):
        if result.HasField("embedding"):
            row[:] = np.frombuffer(result.embedding.packed, "<f4")
    return rows


def _read_comparisons(
    response: embedding_service_pb2.CompareImagesAndTextsResponse, request_id: str
) -> ArrayAnswer:
    results = response.results
    cosines = [item.similarity if item.HasField("similarity") else np.nan for item in results]
    info = read_info(
        response,
        request_id,
        item_images(results),
        errors=read_errors(results, "candidates", request_id),
        subject_image=response.subject_image if response.HasField("subject_image") else None,
    )
    return ArrayAnswer(np.array(cosines, np.float32), info)


def _read_classifications(
    response: embedding_service_pb2.ClassifyImagesResponse, request_id: str
) -> Answer[list[LabelScore]]:
    results = response.results
    info = read_info(
        response,
        request_id,
        item_images([result.classification for result in results]),
        errors=read_errors(results, "images", request_id),
    )
    return Answer(
        [
            [
                LabelScore(item.label, item.label_index, item.probability, item.similarity)
                for item in result.classification.labels
            ]
            for result in results
        ],
        info,
    )
