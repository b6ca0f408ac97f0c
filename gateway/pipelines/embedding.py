"""Images and texts in one space: CLIP."""

import asyncio
import hashlib
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gateway.cache import ComputingCache
from gateway.catalog import Family, Role, Variant
from gateway.errors import InvalidArgumentError
from gateway.models import clip
from gateway.models.clip import ClipSpec
from gateway.models.tokenizer import TextTooLongError
from gateway.pipelines.core import Call, Core, ImageSource, gather

CLIP = Family(
    "clip",
    "embedding",
    (
        # First, because its folder holds the tokenizer.
        Role("clip_text", inputs={"input_ids": ("INT64", 2)}, outputs={"text_embedding": ("FP32", 2)}),
        Role("clip_image", inputs={"image": ("UINT8", 4)}, outputs={"image_embedding": ("FP32", 2)}),
    ),
    ClipSpec.from_parameters,
)

# One is in the model while another's tensors are on their way.
BATCHES_AT_ONCE = 2
# What keeping an embedding costs beside its numbers: its key, the array, the cache's own entries.
OVERHEAD_BYTES = 500

Vector = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Text:
    """A text; `field` is the request's, for what is wrong with it."""

    text: str
    field: str


@dataclass(frozen=True, slots=True)
class Picture:
    """An image; `field` is the request's, for what is wrong with it."""

    source: ImageSource
    field: str


@dataclass(frozen=True, slots=True)
class ImageInfo:
    """What stays of an image that was read."""

    image_id: str
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class LabelScore:
    """A label's place in the request, its probability among all labels, and its cosine with the image."""

    index: int
    probability: float
    similarity: float


class Embedder:
    """CLIP in front of Triton. One instance a process: it keeps the embeddings of texts and images."""

    def __init__(self, core: Core) -> None:
        self._core = core
        settings = core.settings
        self._texts = _Tower(
            core,
            "clip_text",
            "input_ids",
            "text_embedding",
            ComputingCache("text", settings.text_cache_bytes, _size_of),
        )
        self._images = _Tower(
            core,
            "clip_image",
            "image",
            "image_embedding",
            ComputingCache("image_vector", settings.image_vector_cache_bytes, _size_of),
        )

    def choose(self, variant: str) -> Variant[ClipSpec]:
        return self._core.catalog.choose(CLIP, variant, ClipSpec)

    async def embed_texts(
        self, texts: Sequence[Text], model: Variant[ClipSpec], call: Call, *, truncate: bool
    ) -> NDArray[np.float32]:
        """Embeddings float32 [N, D] of texts, as the model gives them."""
        return await self._embed_tokens(await self._encode(texts, model, call, truncate), model, call)

    async def embed_images(
        self, pictures: Sequence[Picture], model: Variant[ClipSpec], call: Call
    ) -> tuple[NDArray[np.float32], list[ImageInfo]]:
        """Embeddings float32 [N, D] of images, as the model gives them, and what was read."""
        # A decoded image may take hundreds of times what the model's input does: few at a time.
        slots = asyncio.Semaphore(self._core.settings.worker_threads)
        known: dict[str, Vector] = {}
        squares: dict[str, NDArray[np.uint8]] = {}

        async def prepare(picture: Picture) -> ImageInfo:
            async with slots:
                image = await self._core.load_image(picture.source, call, picture.field)
                vector = self._images.get(image.image_id, model)
                if vector is not None:
                    known[image.image_id] = vector
                elif image.image_id not in squares:
                    with call.stage("preprocess"):
                        squares[image.image_id] = await self._core.run(model.spec.preprocess, image.pixels)
                self._core.let_go(image)
                return ImageInfo(image.image_id, image.width, image.height)

        infos = await gather(prepare(picture) for picture in pictures)
        vectors = await self._images.embed(squares, model, call) | known
        return _rows([vectors[info.image_id] for info in infos], model.spec), infos

    async def compare(
        self,
        subject: Picture | Text,
        candidates: Sequence[Picture | Text],
        model: Variant[ClipSpec],
        call: Call,
        *,
        truncate: bool,
    ) -> tuple[NDArray[np.float32], list[ImageInfo | None]]:
        """Cosines float32 [N] of the subject with each candidate; what was read of all of them."""
        items = [subject, *candidates]
        texts = [item for item in items if isinstance(item, Text)]
        pictures = [item for item in items if isinstance(item, Picture)]
        text_rows, (image_rows, infos) = await self._embed_both(texts, pictures, model, call, truncate)
        of_texts, of_images = iter(text_rows), iter(zip(image_rows, infos, strict=True))
        pairs = [(next(of_texts), None) if isinstance(item, Text) else next(of_images) for item in items]
        with call.stage("postprocess"):
            rows = np.stack([row for row, _ in pairs])
            similarities = clip.cosines(rows[:1], rows[1:])[0]
        return similarities, [info for _, info in pairs]

    async def classify(
        self,
        pictures: Sequence[Picture],
        prompts: Sequence[Text],
        model: Variant[ClipSpec],
        call: Call,
        *,
        top_k: int,
        truncate: bool,
    ) -> list[tuple[ImageInfo, list[LabelScore]]]:
        """For each image the `top_k` prompts that fit it best, best first."""
        text_rows, (image_rows, infos) = await self._embed_both(prompts, pictures, model, call, truncate)
        with call.stage("postprocess"):
            scores = await self._core.run(_rank, model.spec, clip.cosines(image_rows, text_rows), top_k)
        return list(zip(infos, scores, strict=True))

    async def _embed_both(
        self,
        texts: Sequence[Text],
        pictures: Sequence[Picture],
        model: Variant[ClipSpec],
        call: Call,
        truncate: bool,
    ) -> tuple[NDArray[np.float32], tuple[NDArray[np.float32], list[ImageInfo]]]:
        # Said before any work: a text that is too long must cost nothing.
        tokens = await self._encode(texts, model, call, truncate)
        both: list[Any] = await gather(
            [self._embed_tokens(tokens, model, call), self.embed_images(pictures, model, call)]
        )
        of_texts, of_images = both
        return of_texts, of_images

    async def _encode(
        self, texts: Sequence[Text], model: Variant[ClipSpec], call: Call, truncate: bool
    ) -> list[NDArray[np.int64]]:
        def encode() -> list[NDArray[np.int64]]:
            return [_encode(model.spec, text, truncate) for text in texts]

        with call.stage("preprocess"):
            return await self._core.run(encode)

    async def _embed_tokens(
        self, tokens: Sequence[NDArray[np.int64]], model: Variant[ClipSpec], call: Call
    ) -> NDArray[np.float32]:
        # Not by the text: those that read the same to the model are the same.
        keys = [hashlib.sha256(ids.tobytes()).hexdigest() for ids in tokens]
        vectors = await self._texts.embed(dict(zip(keys, tokens, strict=True)), model, call)
        return _rows([vectors[key] for key in keys], model.spec)


@dataclass(slots=True)
class _Batch:
    """What will be one request to Triton: it takes items until it leaves."""

    name: str
    keys: list[str] = field(default_factory=list)
    has_left: bool = False


class _Tower:
    """One of CLIP's two networks: gives each item's vector, computed once and in batches."""

    def __init__(
        self, core: Core, role: str, tensor: str, output: str, vectors: ComputingCache[Vector]
    ) -> None:
        self._core = core
        self._role = role
        self._tensor = tensor
        self._output = output
        self._vectors = vectors
        # Keeps nothing. The items of a batch share its one request through it, whoever waits for which of
        # them: the request goes on as long as anyone does.
        self._batches = ComputingCache[dict[str, Vector]](None, 0, len)
        self._serial_numbers = itertools.count()

    def get(self, key: str, model: Variant[ClipSpec]) -> Vector | None:
        """A vector that is kept; `embed` follows where there is none."""
        return self._vectors.get(f"{model.name}/{key}", count_miss=False)

    async def embed(
        self, items: Mapping[str, NDArray[Any]], model: Variant[ClipSpec], call: Call
    ) -> dict[str, Vector]:
        """The vector of each item under its key, which tells its content."""
        size = model.max_batch_sizes[self._role]
        slots = asyncio.Semaphore(BATCHES_AT_ONCE)
        latest = _Batch(str(next(self._serial_numbers)))

        async def infer(batch: _Batch) -> dict[str, Vector]:
            batch.has_left = True
            async with slots:
                stacked = await self._core.run(np.stack, [items[key] for key in batch.keys])
                tensors = await self._core.triton.infer(
                    model.triton_models[self._role], {self._tensor: stacked}, (self._output,)
                )
            # Copies: a row that is kept must not hold on to its whole batch.
            return {key: row.copy() for key, row in zip(batch.keys, tensors[self._output], strict=True)}

        async def compute(key: str) -> Vector:
            # Only what is neither kept nor under way elsewhere comes here: all of it before `infer` does.
            nonlocal latest
            if latest.has_left or len(latest.keys) >= size:
                latest = _Batch(str(next(self._serial_numbers)))
            latest.keys.append(key)
            batch = latest
            vectors = await self._batches.get_or_compute(batch.name, lambda: infer(batch))
            return vectors[key]

        with call.stage("inference"):
            vectors = await gather(
                self._vectors.get_or_compute(f"{model.name}/{key}", partial(compute, key)) for key in items
            )
        return dict(zip(items, vectors, strict=True))


def _size_of(vector: Vector) -> int:
    return vector.nbytes + OVERHEAD_BYTES


def _rows(vectors: Sequence[Vector], spec: ClipSpec) -> NDArray[np.float32]:
    return np.array(vectors, np.float32).reshape(-1, spec.embedding_size)


def _encode(spec: ClipSpec, text: Text, truncate: bool) -> NDArray[np.int64]:
    try:
        return spec.encode(text.text, truncate=truncate)
    except TextTooLongError as error:
        raise InvalidArgumentError(text.field, f"{error}: shorten it, or set truncate") from error
    except ValueError as error:
        raise InvalidArgumentError(text.field, str(error)) from error


def _rank(spec: ClipSpec, similarities: NDArray[np.float32], top_k: int) -> list[list[LabelScore]]:
    probabilities = spec.probabilities(similarities)
    best_first = np.argsort(-probabilities, axis=1, kind="stable")[:, :top_k]
    return [
        [LabelScore(int(index), float(chances[index]), float(cosines[index])) for index in order]
        for chances, cosines, order in zip(probabilities, similarities, best_first, strict=True)
    ]
