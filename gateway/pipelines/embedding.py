"""Images and texts in one space: CLIP."""

import asyncio
import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

import numpy as np
from cachetools import LRUCache
from numpy.typing import NDArray

from gateway.call import stage
from gateway.catalog import Family, Role, Variant
from gateway.concurrency import gather
from gateway.errors import InputError
from gateway.models import clip
from gateway.models.clip import ClipSpec
from gateway.models.tokenizer import TextTooLongError
from gateway.pipelines.clip_tower import Tower, Vector
from gateway.pipelines.images import ImageInfo, ImageSource
from gateway.pipelines.items import attempt, refuse_errors, work_on_each
from gateway.pipelines.model_inputs import Recipe
from gateway.pipelines.resources import Resources
from gateway.reservations import reserve

_TEXT_TOWER = Role(
    "clip_text",
    inputs={"input_ids": ("INT64", 2)},
    outputs={"text_embedding": ("FP32", 2)},
    finite=("text_embedding",),
)
_IMAGE_TOWER = Role(
    "clip_image",
    inputs={"image": ("UINT8", 4)},
    outputs={"image_embedding": ("FP32", 2)},
    finite=("image_embedding",),
)
# The text tower comes first, because its folder holds the tokenizer.
CLIP = Family("clip", "embedding", (_TEXT_TOWER, _IMAGE_TOWER), ClipSpec.from_parameters)

Tokens = NDArray[np.int64]

# Texts whose tokens are kept, with 1 KB or so each: those of a few large sets of labels.
_MAX_TOKENIZED, _MAX_KEPT_LENGTH = 8_192, 256


@dataclass(frozen=True, slots=True, eq=False)
class Embedded:
    """A vector float32 [D], as the model gives it; and what was read, if it is an image's."""

    vector: Vector
    image: ImageInfo | None = None


@dataclass(frozen=True, slots=True)
class Similarity:
    """A cosine, -1 to 1; and what was read, if the candidate is an image."""

    cosine: float
    image: ImageInfo | None


@dataclass(frozen=True, slots=True)
class LabelScore:
    """A label's place in the request, its probability among all labels, and its cosine with the image."""

    index: int
    probability: float
    similarity: float


@dataclass(frozen=True, slots=True)
class ClassifiedImage:
    """An image that was read, and the labels that fit it best, best first."""

    image: ImageInfo
    scores: list[LabelScore]


class Embedder:
    """CLIP in front of Triton. One instance a process: it keeps the embeddings of texts and images.

    Lists are worked on as `work_on_each` says: an item that cannot be used becomes its error, or with
    `strict` ends the work.
    """

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        settings = resources.settings
        # Texts come again, above all labels. To clean and split one takes a hundred times as long as to look.
        self._tokens: LRUCache[tuple[str, bool, str], Tokens] = LRUCache(_MAX_TOKENIZED)
        self._texts = Tower(resources, _TEXT_TOWER, "clip_text", settings.clip_text_cache_bytes)
        self._images = Tower(resources, _IMAGE_TOWER, "clip_image", settings.clip_image_cache_bytes)

    async def tokenize(
        self, texts: Sequence[str | InputError], model: Variant[ClipSpec], *, truncate: bool, strict: bool
    ) -> list[Tokens | InputError]:
        """Return the token ids of each text. With `truncate`, a text that is too long is cut."""

        def encode(text: str | InputError) -> Tokens:
            if isinstance(text, InputError):
                raise text
            try:
                return model.spec.encode(text, truncate=truncate)
            except TextTooLongError as error:
                raise InputError(f"{error}: shorten it, or set truncate") from error
            except ValueError as error:
                raise InputError(str(error)) from error

        def encode_all() -> list[Tokens | InputError]:
            return [attempt(encode, text) for text in unknown]

        with stage("preprocess"):
            found = [
                self._tokens.get((model.fingerprint, truncate, text)) if isinstance(text, str) else None
                for text in texts
            ]
            unknown = [text for text, item in zip(texts, found, strict=True) if item is None]
            encoded = iter(await self._resources.threads.run(encode_all) if unknown else ())
            tokens = [next(encoded) if item is None else item for item in found]
            for text, item in zip(texts, tokens, strict=True) if unknown else ():
                if isinstance(text, InputError) or isinstance(item, InputError):
                    continue
                if len(text) <= _MAX_KEPT_LENGTH:
                    self._tokens[model.fingerprint, truncate, text] = item
        if strict:
            refuse_errors(tokens)
        return tokens

    async def embed_texts(
        self, tokens: Sequence[Tokens | InputError], model: Variant[ClipSpec]
    ) -> list[Embedded | InputError]:
        """Return the embedding of each tokenized text."""
        # Not by the text: texts that read the same to the model are the same.
        keys = [
            item if isinstance(item, InputError) else hashlib.sha256(item.tobytes()).hexdigest()
            for item in tokens
        ]
        usable = {
            key: item
            for key, item in zip(keys, tokens, strict=True)
            if not isinstance(key, InputError) and not isinstance(item, InputError)
        }
        vectors = await self._texts.embed(usable, model)
        return [key if isinstance(key, InputError) else Embedded(vectors[key]) for key in keys]

    async def embed_images(
        self, sources: Sequence[ImageSource | InputError], model: Variant[ClipSpec], *, strict: bool
    ) -> list[Embedded | InputError]:
        """Return the embedding of each image."""
        images = self._resources.images
        # A decoded image may take hundreds of times the bytes of the model's input: few at a time.
        slots = asyncio.Semaphore(self._resources.settings.threads)
        await reserve(len(sources) * 3 * model.spec.input_size**2)
        known: dict[str, Vector] = {}
        squares: dict[str, NDArray[np.uint8]] = {}

        recipe: Recipe[NDArray[np.uint8]] = Recipe(
            model.fingerprint, model.spec.min_side, model.spec.preprocess_picture
        )

        def is_known(content_hash: str) -> bool:
            vector = self._images.get(content_hash, model)
            if vector is not None:
                known[content_hash] = vector
            return vector is not None or content_hash in squares

        async def prepare(source: ImageSource) -> ImageInfo:
            async with slots:
                prepared = await images.prepare(source, recipe, is_known)
                info, square = prepared
                if square is not None:
                    squares[info.content_hash] = square
                return info

        infos = await work_on_each(prepare, sources, strict=strict)
        vectors = await self._images.embed(squares, model) | known
        return [
            info if isinstance(info, InputError) else Embedded(vectors[info.content_hash], info)
            for info in infos
        ]

    async def compare(
        self,
        subject: ImageSource | str,
        candidates: Sequence[ImageSource | str | InputError],
        model: Variant[ClipSpec],
        *,
        truncate: bool,
        strict: bool,
    ) -> tuple[ImageInfo | None, list[Similarity | InputError]]:
        """Return what was read of the subject, and its cosine with each candidate.

        A subject that cannot be used is raised as an InputError without an index.
        """
        items: list[ImageSource | str | InputError] = [subject, *candidates]
        try:
            of_subject, *of_candidates = await self._embed_both(
                items, model, truncate=truncate, strict=strict
            )
        except InputError as error:
            # Counted from the subject on.
            error.index = error.index - 1 if error.index else None
            raise
        if isinstance(of_subject, InputError):
            raise of_subject
        usable = [item.vector for item in of_candidates if isinstance(item, Embedded)]
        with stage("postprocess"):
            cosines = iter(clip.cosines(of_subject.vector[None], _rows(usable, model.spec))[0].tolist())
        return of_subject.image, [
            item if isinstance(item, InputError) else Similarity(next(cosines), item.image)
            for item in of_candidates
        ]

    async def classify(
        self,
        sources: Sequence[ImageSource | InputError],
        prompts: Sequence[Tokens],
        model: Variant[ClipSpec],
        *,
        top_k: int,
        strict: bool,
    ) -> list[ClassifiedImage | InputError]:
        """Return for each image the `top_k` tokenized prompts that fit it best, best first."""
        of_prompts, of_images = await gather(
            [self.embed_texts(prompts, model), self.embed_images(sources, model, strict=strict)]
        )
        usable = [item for item in of_images if isinstance(item, Embedded)]
        columns = [item.vector for item in of_prompts if isinstance(item, Embedded)]
        with stage("postprocess"):
            similarities = clip.cosines(
                _rows([item.vector for item in usable], model.spec), _rows(columns, model.spec)
            )
            scores = iter(await self._resources.threads.run(_rank, model.spec, similarities, top_k))
        return [
            item
            if isinstance(item, InputError)
            else ClassifiedImage(cast(ImageInfo, item.image), next(scores))
            for item in of_images
        ]

    async def _embed_both(
        self,
        items: Sequence[ImageSource | str | InputError],
        model: Variant[ClipSpec],
        *,
        truncate: bool,
        strict: bool,
    ) -> list[Embedded | InputError]:
        """Return the embeddings of images and texts in their order."""
        text_places = [place for place, item in enumerate(items) if isinstance(item, str)]
        texts = [item for item in items if isinstance(item, str)]
        image_places = [place for place, item in enumerate(items) if not isinstance(item, str)]
        sources = [item for item in items if not isinstance(item, str)]
        with _places(text_places):
            # Before any other work: a text that is too long costs nothing.
            tokens = await self.tokenize(texts, model, truncate=truncate, strict=strict)
        with _places(image_places):
            of_texts, of_images = await gather(
                [self.embed_texts(tokens, model), self.embed_images(sources, model, strict=strict)]
            )
        results = dict(zip(text_places, of_texts, strict=True)) | dict(
            zip(image_places, of_images, strict=True)
        )
        return [results[place] for place in range(len(items))]


def _rows(vectors: Sequence[Vector], spec: ClipSpec) -> NDArray[np.float32]:
    return np.array(vectors, np.float32).reshape(-1, spec.embedding_size)


@contextmanager
def _places(places: Sequence[int]) -> Iterator[None]:
    """Inside, items are numbered among themselves. An InputError leaves with its place in the whole list."""
    try:
        yield
    except InputError as error:
        if error.index is not None:
            error.index = places[error.index]
        raise


def _rank(spec: ClipSpec, similarities: NDArray[np.float32], top_k: int) -> list[list[LabelScore]]:
    probabilities = spec.probabilities(similarities)
    best_first = np.argsort(-probabilities, axis=1, kind="stable")[:, :top_k]
    return [
        [LabelScore(int(index), float(chances[index]), float(cosines[index])) for index in order]
        for chances, cosines, order in zip(probabilities, similarities, best_first, strict=True)
    ]
