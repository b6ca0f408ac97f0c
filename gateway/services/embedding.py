"""EmbeddingService: protobuf in, `Embedder`, protobuf out."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from gateway.admission import weigh
from gateway.catalog import Variant
from gateway.errors import InputError, InvalidArgumentError
from gateway.message_pieces import varint
from gateway.models import clip
from gateway.models.clip import ClipSpec
from gateway.pipelines.answer_bytes import AnswerBytes
from gateway.pipelines.embedding import CLIP, ClassifiedImage, Embedded, Embedder, LabelScore, Similarity
from gateway.pipelines.images import ImageSource
from gateway.pipelines.items import attempt
from gateway.pipelines.resources import Resources
from gateway.services.messages.checks import Range, check_count
from gateway.services.messages.fields import field, item_error
from gateway.services.messages.images import (
    image_message,
    image_path,
    image_paths,
    image_source,
    image_sources,
)
from gateway.services.messages.timings import timings_message
from gateway.services.service import Context, Service
from visiongate.v1 import embedding_service_pb2, embedding_service_pb2_grpc, image_pb2

EmbedRequest = embedding_service_pb2.EmbedImagesRequest | embedding_service_pb2.EmbedTextsRequest

# A call counts as one for each so many.
IMAGES_OF_A_PLACE, TEXTS_OF_A_PLACE = 16, 256
DEFAULT_TEMPLATE = "a photo of a {}."
PLACEHOLDER = "{}"
# How the numbers of a packed embedding are written.
PACKED_TYPES = {
    embedding_service_pb2.EMBEDDING_FORMAT_FLOAT32: "<f4",
    embedding_service_pb2.EMBEDDING_FORMAT_FLOAT16: "<f2",
}
# How a message with the field `values`, packed as proto3 does, begins.
_VALUES_TAG = bytes([embedding_service_pb2.Embedding.VALUES_FIELD_NUMBER << 3 | 2])
VALUES_FORMATS = {
    embedding_service_pb2.EMBEDDING_FORMAT_UNSPECIFIED,
    embedding_service_pb2.EMBEDDING_FORMAT_VALUES,
}
_FORMATS = {*VALUES_FORMATS, *PACKED_TYPES}
# The same with the largest number of each.
_PACKED = {number: (np.dtype(name), np.finfo(name).max) for number, name in PACKED_TYPES.items()}


class EmbeddingService(embedding_service_pb2_grpc.EmbeddingServiceServicer):
    """Images and texts in one space."""

    def __init__(self, resources: Resources) -> None:
        self._settings = resources.settings
        self._catalog = resources.catalog
        self._threads = resources.threads
        self._embedder = Embedder(resources)

    async def EmbedImages(  # noqa: N802
        self, request: embedding_service_pb2.EmbedImagesRequest, context: Context
    ) -> embedding_service_pb2.EmbedImagesResponse:
        _check_format(request)
        check_count(len(request.images), self._settings.max_images, "images", "images")
        weigh(len(request.images), IMAGES_OF_A_PLACE)
        model = self._choose(request.model)
        path = image_paths(request.images, "images")
        sources = image_sources(request.images, self._settings)
        with field(path):
            items = await self._embedder.embed_images(sources, model, strict=request.strict)

        def response() -> embedding_service_pb2.EmbedImagesResponse:
            messages = _embedding_messages(items, request)
            return embedding_service_pb2.EmbedImagesResponse(
                results=[
                    embedding_service_pb2.EmbedImagesResult(error=item_error(message, path(index)))
                    if isinstance(message, InputError)
                    else embedding_service_pb2.EmbedImagesResult(embedding=message, image=_image(item))
                    for index, (item, message) in enumerate(zip(items, messages, strict=True))
                ],
                model=model.name,
                timings=timings_message(request.include_timings),
                dimensions=model.spec.embedding_size,
            )

        return await self._threads.run_if_large(len(items), response)

    async def EmbedTexts(  # noqa: N802
        self, request: embedding_service_pb2.EmbedTextsRequest, context: Context
    ) -> embedding_service_pb2.EmbedTextsResponse:
        _check_format(request)
        check_count(len(request.texts), self._settings.max_texts, "texts", "texts")
        weigh(len(request.texts), TEXTS_OF_A_PLACE)
        model = self._choose(request.model)
        texts = [attempt(self._text, text) for text in request.texts]
        with field(_list_path("texts")):
            tokens = await self._embedder.tokenize(
                texts, model, truncate=request.truncate, strict=request.strict
            )
        items = await self._embedder.embed_texts(tokens, model)

        def response() -> embedding_service_pb2.EmbedTextsResponse:
            return embedding_service_pb2.EmbedTextsResponse(
                results=[
                    embedding_service_pb2.EmbedTextsResult(error=item_error(message, f"texts[{index}]"))
                    if isinstance(message, InputError)
                    else embedding_service_pb2.EmbedTextsResult(embedding=message)
                    for index, message in enumerate(_embedding_messages(items, request))
                ],
                model=model.name,
                timings=timings_message(request.include_timings),
                dimensions=model.spec.embedding_size,
            )

        return await self._threads.run_if_large(len(items), response)

    async def CompareImagesAndTexts(  # noqa: N802
        self, request: embedding_service_pb2.CompareImagesAndTextsRequest, context: Context
    ) -> embedding_service_pb2.CompareImagesAndTextsResponse:
        images = sum(candidate.HasField("image") for candidate in request.candidates)
        texts = len(request.candidates) - images
        check_count(texts, self._settings.max_texts, "candidates", "texts")
        check_count(images, self._settings.max_images, "candidates", "images")
        weigh(IMAGES_OF_A_PLACE * texts + TEXTS_OF_A_PLACE * images, IMAGES_OF_A_PLACE * TEXTS_OF_A_PLACE)
        model = self._choose(request.model)

        def path(index: int | None) -> str:
            if index is None:
                return _content_path(request.subject, "subject")
            return _content_path(request.candidates[index], f"candidates[{index}]")

        with field(path):
            subject = self._content(request.subject)
            candidates = [attempt(self._content, candidate) for candidate in request.candidates]
            subject_image, items = await self._embedder.compare(
                subject, candidates, model, truncate=request.truncate, strict=request.strict
            )

        def response() -> embedding_service_pb2.CompareImagesAndTextsResponse:
            return embedding_service_pb2.CompareImagesAndTextsResponse(
                results=[_comparison_result(item, path(index)) for index, item in enumerate(items)],
                subject_image=None if subject_image is None else image_message(subject_image),
                timings=timings_message(request.include_timings),
                model=model.name,
            )

        return await self._threads.run_if_large(len(items), response)

    async def ClassifyImages(  # noqa: N802
        self, request: embedding_service_pb2.ClassifyImagesRequest, context: Context
    ) -> embedding_service_pb2.ClassifyImagesResponse:
        check_count(len(request.images), self._settings.max_images, "images", "images")
        template = self._template(request)
        check_count(len(request.labels), self._settings.max_texts, "labels", "labels")
        if not request.labels:
            raise InvalidArgumentError("labels", "is empty: say what the images may show")
        top_k = Range(1).check(request.top_k if request.HasField("top_k") else len(request.labels), "top_k")
        weigh(len(request.images), IMAGES_OF_A_PLACE)
        model = self._choose(request.model)
        # Even the shortest labels make an answer of so many bytes.
        shortest = sorted(map(len, request.labels))[:top_k]
        with field("top_k"):
            await AnswerBytes(self._settings.max_response_bytes).add(len(request.images) * sum(shortest))
        labels = [attempt(self._text, label) for label in request.labels]
        with field(_list_path("labels")):
            # Not str.format: braces of a label, and other braces of the template, mean nothing.
            prompts = [
                label if isinstance(label, InputError) else template.replace(PLACEHOLDER, label)
                for label in labels
            ]
            tokens = await self._embedder.tokenize(prompts, model, truncate=request.truncate, strict=True)
        path = image_paths(request.images, "images")
        with field(path):
            items = await self._embedder.classify(
                image_sources(request.images, self._settings),
                [item for item in tokens if not isinstance(item, InputError)],
                model,
                top_k=top_k,
                strict=request.strict,
            )

        def response() -> embedding_service_pb2.ClassifyImagesResponse:
            return embedding_service_pb2.ClassifyImagesResponse(
                results=[
                    _classification_result(item, request.labels, path(index))
                    for index, item in enumerate(items)
                ],
                timings=timings_message(request.include_timings),
                model=model.name,
            )

        return await self._threads.run_if_large(len(items) * min(top_k, len(request.labels)), response)

    def _choose(self, name: str) -> Variant[ClipSpec]:
        with field("model"):
            return self._catalog.choose(CLIP, name)

    def _text(self, text: str) -> str:
        if not text.strip():
            raise InputError("is empty")
        limit = self._settings.max_text_length
        if len(text) > limit:
            raise InputError(f"has {len(text)} characters; the limit is {limit}")
        return text

    def _content(self, item: embedding_service_pb2.ImageOrText) -> ImageSource | str:
        match item.WhichOneof("content"):
            case "image":
                return image_source(item.image, self._settings)
            case "text":
                return self._text(item.text)
            case _:
                raise InputError("is missing: set image or text")

    def _template(self, request: embedding_service_pb2.ClassifyImagesRequest) -> str:
        template = request.prompt_template if request.HasField("prompt_template") else DEFAULT_TEMPLATE
        check_count(len(template), self._settings.max_text_length, "prompt_template", "characters")
        if template.count(PLACEHOLDER) != 1:
            raise InvalidArgumentError(
                "prompt_template",
                f"has {PLACEHOLDER!r} {template.count(PLACEHOLDER)} times; it must be in it once",
            )
        return template


SERVICE = Service(
    embedding_service_pb2.DESCRIPTOR,
    EmbeddingService,
    embedding_service_pb2_grpc.add_EmbeddingServiceServicer_to_server,
    (CLIP,),
)


def _image(item: Embedded | Similarity | InputError) -> image_pb2.ImageInfo | None:
    return None if isinstance(item, InputError) or item.image is None else image_message(item.image)


def _list_path(name: str) -> Callable[[int | None], str]:
    return lambda index: name if index is None else f"{name}[{index}]"


def _content_path(item: embedding_service_pb2.ImageOrText, path: str) -> str:
    content = item.WhichOneof("content")
    if content == "image":
        return image_path(item.image, f"{path}.image")
    return f"{path}.text" if content == "text" else path


def _check_format(request: EmbedRequest) -> None:
    if request.embedding_format not in _FORMATS:
        raise InvalidArgumentError("embedding_format", f"{request.embedding_format} is not a known format")


def _embedding_messages(
    items: Sequence[Embedded | InputError], request: EmbedRequest
) -> list[embedding_service_pb2.Embedding | InputError]:
    """Write embeddings as the request asks. Errors stay in their places."""
    rows = np.array([item.vector for item in items if isinstance(item, Embedded)], np.float32)
    if len(rows) and (request.normalize or not request.HasField("normalize")):
        rows = clip.normalise(rows)
    if request.embedding_format in VALUES_FORMATS:
        messages = (_values_message(row) for row in rows)
    else:
        number_type, limit = _PACKED[request.embedding_format]
        packed = np.minimum(np.maximum(rows, -limit), limit).astype(number_type, copy=False)
        messages = (embedding_service_pb2.Embedding(packed=row.tobytes()) for row in packed)
    return [item if isinstance(item, InputError) else next(messages) for item in items]


def _values_message(row: NDArray[np.float32]) -> embedding_service_pb2.Embedding:
    """Return an embedding as a list of numbers: ten times as fast as by a list of Python's."""
    return embedding_service_pb2.Embedding.FromString(
        _VALUES_TAG + varint(row.nbytes) + row.astype("<f4", copy=False).tobytes()
    )


def _comparison_result(
    item: Similarity | InputError, path: str
) -> embedding_service_pb2.CompareImagesAndTextsResult:
    if isinstance(item, InputError):
        return embedding_service_pb2.CompareImagesAndTextsResult(error=item_error(item, path))
    return embedding_service_pb2.CompareImagesAndTextsResult(similarity=item.cosine, image=_image(item))


def _classification_result(
    item: ClassifiedImage | InputError, labels: Sequence[str], path: str
) -> embedding_service_pb2.ClassifyImagesResult:
    if isinstance(item, InputError):
        return embedding_service_pb2.ClassifyImagesResult(error=item_error(item, path))

    def score_message(score: LabelScore) -> embedding_service_pb2.LabelScore:
        return embedding_service_pb2.LabelScore(
            label=labels[score.index],
            label_index=score.index,
            probability=score.probability,
            similarity=score.similarity,
        )

    return embedding_service_pb2.ClassifyImagesResult(
        classification=embedding_service_pb2.Classification(
            labels=map(score_message, item.scores), image=image_message(item.image)
        )
    )
