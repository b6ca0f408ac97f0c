"""The text of pages: docTR."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from gateway.call import stage
from gateway.catalog import Family, Role, Variant
from gateway.concurrency import gather
from gateway.errors import InputError
from gateway.models.boxes import turn_back
from gateway.models.doctr import DoctrSpec, Places
from gateway.models.doctr_layout import arrange
from gateway.models.doctr_recognition import Decoded
from gateway.pipelines.images import ImageInfo, ImageSource, LoadedImage
from gateway.pipelines.items import work_on_each
from gateway.pipelines.resources import Resources

_DETECTOR = Role("doctr_detection", inputs={"image": ("UINT8", 4)}, outputs={"probability_map": ("FP32", 3)})
_RECOGNIZER = Role("doctr_recognition", inputs={"crop": ("UINT8", 4)}, outputs={"logits": ("FP32", 3)})
DOCTR = Family("doctr", "text", (_DETECTOR, _RECOGNIZER), DoctrSpec.from_parameters)


@dataclass(frozen=True, slots=True)
class TextQuery:
    """How to read. A threshold of None is the model's own.

    min_pixel_score and min_word_score are docTR's bin_thresh and box_thresh.
    """

    rotated_words: bool
    min_pixel_score: float | None
    min_word_score: float | None
    group_lines: bool
    group_blocks: bool
    detect_orientation: bool


@dataclass(frozen=True, eq=False, slots=True)
class Word:
    """A word that was read.

    quadrilateral: float32 [4, 2] in pixels, clockwise from the top-left corner. Scores are 0 to 1.
    """

    text: str
    confidence: float
    quadrilateral: NDArray[np.float32]
    detection_score: float


@dataclass(frozen=True, eq=False, slots=True)
class Page:
    """The text of an image.

    blocks: lists of lines, which are lists of words, in reading order. turns: the quarter turns clockwise
    after which the image was read. Coordinates are those of the image as it came.
    """

    image: ImageInfo
    blocks: list[list[list[Word]]]
    turns: int = 0


class Reader:
    """docTR in front of Triton."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources

    async def read(
        self,
        sources: Sequence[ImageSource | InputError],
        query: TextQuery,
        model: Variant[DoctrSpec],
        *,
        strict: bool,
    ) -> list[Page | InputError]:
        """Return the words of each image. Images are worked on as `work_on_each` says."""
        settings, images = self._resources.settings, self._resources.images
        # Bounds of a request, so that memory does not grow with it: decoded pages, and batches of words.
        pages = asyncio.Semaphore(settings.pages_in_flight)
        batches = asyncio.Semaphore(settings.batches_in_flight)

        async def read_page(source: ImageSource) -> Page:
            async with pages:
                image = await images.load(source)
                # One after the other: four readings of a page at once would hold four times its memory.
                readings = [
                    await self._read_turned(model, image, turns, query, batches)
                    for turns in range(4 if query.detect_orientation else 1)
                ]
                return max(readings, key=_certainty)

        return await work_on_each(read_page, sources, strict=strict)

    async def _read_turned(
        self,
        model: Variant[DoctrSpec],
        image: LoadedImage,
        turns: int,
        query: TextQuery,
        batches: asyncio.Semaphore,
    ) -> Page:
        """Read an image after some quarter turns clockwise."""
        turned = LoadedImage(image.image_id, np.ascontiguousarray(np.rot90(image.pixels, -turns)))
        places = await self._find_words(model, turned, query)
        step = self._batch_size(model)
        words = await gather(
            self._read_words(model, turned, places[start : start + step], batches)
            for start in range(0, len(places), step)
        )
        with stage("postprocess"):
            return await self._resources.threads.run(
                _page, image, turns, places, [*chain.from_iterable(words)], query
            )

    def _batch_size(self, model: Variant[DoctrSpec]) -> int:
        return min(self._resources.settings.recognition_batch, model.max_batch_sizes[_RECOGNIZER.name])

    async def _find_words(self, model: Variant[DoctrSpec], image: LoadedImage, query: TextQuery) -> Places:
        spec, threads = model.spec, self._resources.threads
        thresholds = spec.thresholds
        if query.min_pixel_score is not None:
            thresholds = replace(thresholds, bin_threshold=query.min_pixel_score)
        if query.min_word_score is not None:
            thresholds = replace(thresholds, box_threshold=query.min_word_score)
        with stage("preprocess"):
            canvas = await threads.run(spec.preprocess, image.pixels)
        tensors = await self._resources.infer(model, _DETECTOR, {"image": canvas[None]})
        with stage("postprocess"):
            return await threads.run(
                spec.find_words,
                tensors["probability_map"][0],
                image.size,
                thresholds,
                rotated=query.rotated_words,
            )

    async def _read_words(
        self, model: Variant[DoctrSpec], image: LoadedImage, places: Places, batches: asyncio.Semaphore
    ) -> list[Decoded | None]:
        """Return what some words say. Each batch is a request of its own: Triton joins those of all calls."""
        threads, step = self._resources.threads, self._batch_size(model)
        async with batches:
            with stage("preprocess"):
                crops = await threads.run(model.spec.cut, image.pixels, places)
            logits = []
            # A wide word is several crops, so a batch of words may be more than one batch of crops.
            for start in range(0, len(crops.pixels), step):
                tensors = await self._resources.infer(
                    model, _RECOGNIZER, {"crop": crops.pixels[start : start + step]}
                )
                logits.append(tensors["logits"])
            with stage("postprocess"):
                return await threads.run(model.spec.read, crops, logits)


def _certainty(page: Page) -> float:
    """Return how sure a reading is. Upside-down text is detected too, but with low confidence."""
    words = [word for lines in page.blocks for line in lines for word in line]
    return sum(word.confidence * len(word.text) for word in words)


def _page(
    image: LoadedImage, turns: int, places: Places, decoded_words: Sequence[Decoded | None], query: TextQuery
) -> Page:
    """Arrange the words. Words without pixels are dropped first, so that they do not affect the lines."""
    size = image.size if turns % 2 == 0 else (image.width, image.height)
    places = places[np.array([word is not None for word in decoded_words], np.bool_)]
    words = [
        Word(decoded.text, decoded.confidence, turn_back(quadrilateral, turns, image.size), float(score))
        for decoded, quadrilateral, score in zip(
            filter(None, decoded_words), places.quadrilaterals(size), places.scores, strict=True
        )
    ]
    blocks = arrange(places.points, size, lines=query.group_lines, blocks=query.group_blocks)
    return Page(image.info, [[[words[index] for index in line] for line in lines] for lines in blocks], turns)
