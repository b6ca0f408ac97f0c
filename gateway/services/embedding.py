"""EmbeddingService: protobuf in, `Embedder`, protobuf out."""

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from gateway import messages
from gateway.errors import InvalidArgumentError
from gateway.models import clip
from gateway.pipelines.core import Call, Core
from gateway.pipelines.embedding import CLIP, Embedder, ImageInfo, Picture, Text
from gateway.services.service import Context, Service
from gateway.settings import Settings
from visiongate.v1 import embedding_service_pb2, embedding_service_pb2_grpc, image_pb2

DEFAULT_TEMPLATE = "a photo of a {}."
PLACEHOLDER = "{}"


class EmbeddingService(embedding_service_pb2_grpc.EmbeddingServiceServicer):
    """Images and texts in one space."""

    def __init__(self, core: Core) -> None:
        self._settings = core.settings
        self._embedder = Embedder(core)

    async def EmbedImages(  # noqa: N802
        self, request: embedding_service_pb2.EmbedImagesRequest, context: Context
    ) -> embedding_service_pb2.EmbedImagesResponse:
        call = Call()
        pictures = self._pictures(request.images)
        model = self._embedder.choose(request.model)
        vectors, images = await self._embedder.embed_images(pictures, model, call)
        return embedding_service_pb2.EmbedImagesResponse(
            embeddings=_embeddings(vectors, request.raw),
            images=map(_image_info, images),
            model=model.name,
            timings=messages.timings_message(call, request.include_timings),
            dimensions=model.spec.embedding_size,
        )

    async def EmbedTexts(  # noqa: N802
        self, request: embedding_service_pb2.EmbedTextsRequest, context: Context
    ) -> embedding_service_pb2.EmbedTextsResponse:
        call = Call()
        texts = self._texts(request.texts, "texts")
        model = self._embedder.choose(request.model)
        vectors = await self._embedder.embed_texts(texts, model, call, truncate=request.truncate)
        return embedding_service_pb2.EmbedTextsResponse(
            embeddings=_embeddings(vectors, request.raw),
            model=model.name,
            timings=messages.timings_message(call, request.include_timings),
            dimensions=model.spec.embedding_size,
        )

    async def CompareImagesAndTexts(  # noqa: N802
        self, request: embedding_service_pb2.CompareImagesAndTextsRequest, context: Context
    ) -> embedding_service_pb2.CompareImagesAndTextsResponse:
        call = Call()
        subject = self._image_or_text(request.subject, "subject")
        candidates = [
            self._image_or_text(candidate, f"candidates[{index}]")
            for index, candidate in enumerate(request.candidates)
        ]
        pictures = sum(isinstance(candidate, Picture) for candidate in candidates)
        _check_count("candidates", len(candidates) - pictures, self._settings.max_texts, "texts")
        _check_count("candidates", pictures, self._settings.max_images, "images")
        model = self._embedder.choose(request.model)
        similarities, images = await self._embedder.compare(
            subject, candidates, model, call, truncate=request.truncate
        )
        subject_image, *candidate_images = [None if image is None else _image_info(image) for image in images]
        return embedding_service_pb2.CompareImagesAndTextsResponse(
            comparisons=[
                embedding_service_pb2.Comparison(similarity=similarity, image=image)
                for similarity, image in zip(similarities.tolist(), candidate_images, strict=True)
            ],
            subject_image=subject_image,
            timings=messages.timings_message(call, request.include_timings),
            model=model.name,
        )

    async def ClassifyImages(  # noqa: N802
        self, request: embedding_service_pb2.ClassifyImagesRequest, context: Context
    ) -> embedding_service_pb2.ClassifyImagesResponse:
        call = Call()
        pictures = self._pictures(request.images)
        labels = self._texts(request.labels, "labels")
        if not labels:
            raise InvalidArgumentError("labels", "is empty: say what the images may show")
        prompts = _prompts(request, labels, self._settings)
        top_k = request.top_k if request.HasField("top_k") else len(labels)
        if top_k < 1:
            raise InvalidArgumentError("top_k", "is 0; it must be 1 or more")
        model = self._embedder.choose(request.model)
        found = await self._embedder.classify(
            pictures, prompts, model, call, top_k=top_k, truncate=request.truncate
        )
        return embedding_service_pb2.ClassifyImagesResponse(
            classifications=[
                embedding_service_pb2.Classification(
                    labels=[
                        embedding_service_pb2.LabelScore(
                            label=labels[score.index].text,
                            label_index=score.index,
                            probability=score.probability,
                            similarity=score.similarity,
                        )
                        for score in scores
                    ],
                    image=_image_info(image),
                )
                for image, scores in found
            ],
            timings=messages.timings_message(call, request.include_timings),
            model=model.name,
        )

    def _pictures(self, images: Sequence[image_pb2.Image]) -> list[Picture]:
        _check_count("images", len(images), self._settings.max_images, "images")
        return [self._picture(image, f"images[{index}]") for index, image in enumerate(images)]

    def _picture(self, image: image_pb2.Image, field: str) -> Picture:
        return Picture(messages.image_source(image, self._settings, field), field)

    def _texts(self, texts: Sequence[str], field: str) -> list[Text]:
        _check_count(field, len(texts), self._settings.max_texts, field)
        return [_text(text, f"{field}[{index}]", self._settings) for index, text in enumerate(texts)]

    def _image_or_text(self, item: embedding_service_pb2.ImageOrText, field: str) -> Picture | Text:
        match item.WhichOneof("content"):
            case "image":
                return self._picture(item.image, f"{field}.image")
            case "text":
                return _text(item.text, f"{field}.text", self._settings)
            case _:
                raise InvalidArgumentError(field, "is missing: set image or text")


SERVICE = Service(
    embedding_service_pb2.DESCRIPTOR.services_by_name["EmbeddingService"].full_name,
    (CLIP,),
    lambda core, server: embedding_service_pb2_grpc.add_EmbeddingServiceServicer_to_server(
        EmbeddingService(core), server
    ),
)


def _text(text: str, field: str, settings: Settings) -> Text:
    if not text.strip():
        raise InvalidArgumentError(field, "is empty")
    messages.check_length(len(text), field, settings)
    return Text(text, field)


def _prompts(
    request: embedding_service_pb2.ClassifyImagesRequest, labels: Sequence[Text], settings: Settings
) -> list[Text]:
    template = request.prompt_template if request.HasField("prompt_template") else DEFAULT_TEMPLATE
    messages.check_length(len(template), "prompt_template", settings)
    if template.count(PLACEHOLDER) != 1:
        raise InvalidArgumentError(
            "prompt_template",
            f"has {PLACEHOLDER!r} {template.count(PLACEHOLDER)} times; it must be in it once",
        )
    # Not str.format: braces of a label, and other ones of the template, mean nothing.
    return [Text(template.replace(PLACEHOLDER, label.text), label.field) for label in labels]


def _check_count(field: str, count: int, limit: int, what: str) -> None:
    if count > limit:
        raise InvalidArgumentError(field, f"has {count} {what}; the limit is {limit}")


def _embeddings(vectors: NDArray[np.float32], raw: bool) -> Iterable[embedding_service_pb2.Embedding]:
    rows = vectors if raw else clip.normalise(vectors)
    return (embedding_service_pb2.Embedding(values=row.tolist()) for row in rows)


def _image_info(image: ImageInfo) -> image_pb2.ImageInfo:
    return image_pb2.ImageInfo(image_id=image.image_id, width=image.width, height=image.height)
