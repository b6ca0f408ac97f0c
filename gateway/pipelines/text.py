"""The text of pages: docTR, PP-OCR."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gateway.cache import Keep
from gateway.call import stage
from gateway.catalog import Family, Role, Variant
from gateway.concurrency import Slots, gather
from gateway.errors import InputError
from gateway.models.boxes import turn_back
from gateway.models.doctr import DoctrSpec
from gateway.models.parameters import ParameterReader
from gateway.models.text import Places, Span, Steps, TextSpec
from gateway.models.text_lines import LineSpec
from gateway.pipelines.images import ImageInfo, ImageSource, LoadedImage
from gateway.pipelines.items import work_on_each
from gateway.pipelines.resources import Resources
from gateway.reservations import reserve

_DETECTOR = Role("doctr_detection", inputs={"image": ("UINT8", 4)}, outputs={"probability_map": ("FP32", 3)})
_RECOGNIZER = Role(
    "doctr_recognition",
    inputs={"crop": ("UINT8", 4)},
    outputs={"classes": ("INT32", 2), "probabilities": ("FP32", 2)},
    finite=("probabilities",),
)

# What the detection networks find, by the parameter `unit`.
_SPECS: Mapping[str, Callable[[Mapping[str, str], Path], TextSpec]] = {
    "word": DoctrSpec.from_parameters,
    "line": LineSpec.from_parameters,
}


def _read_spec(parameters: Mapping[str, str], folder: Path) -> TextSpec:
    return _SPECS[ParameterReader(parameters).one_of("unit", _SPECS, "word")](parameters, folder)


DOCTR = Family("doctr", "text", (_DETECTOR, _RECOGNIZER), _read_spec, lambda spec: spec.vocabulary)


@dataclass(frozen=True, slots=True)
class TextQuery:
    """How to read. A threshold, and by_columns, of None is the model's own.

    min_pixel_score and min_word_score are docTR's bin_thresh and box_thresh.
    """

    rotated_words: bool
    min_pixel_score: float | None
    min_word_score: float | None
    min_confidence: float | None
    group_lines: bool
    group_blocks: bool
    by_columns: bool | None
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
    after which the image was read. Coordinates are those of the image as it came. certainty: the number of
    characters, each as much as it is certain, without those that run down the page.
    """

    image: ImageInfo
    blocks: list[list[list[Word]]]
    turns: int
    certainty: float


class Reader:
    """Text detection and recognition in front of Triton."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources

    async def read(
        self,
        sources: Sequence[ImageSource | InputError],
        query: TextQuery,
        model: Variant[TextSpec],
        *,
        strict: bool,
    ) -> list[Page | InputError]:
        """Return the words of each image. Images are worked on as `work_on_each` says."""
        settings, images = self._resources.settings, self._resources.images
        # Bounds of a request, so that memory does not grow with it: decoded pages, and places in work.
        pages = asyncio.Semaphore(settings.pages_in_flight)
        # Of small pages there may be more requests, which Triton joins.
        places = Slots(settings.batches_in_flight * _batch_limit(self._resources, model))

        async def read_page(source: ImageSource) -> Page:
            async with pages:
                image = await images.load(source, keep=Keep.IF_ROOM)
                if query.detect_orientation:
                    await reserve(image.pixels.nbytes)  # a turned copy at a time
                # One after the other: four readings of a page at once would hold four times its memory.
                readings = [
                    await self._read_turned(model, image, turns, query, places)
                    for turns in range(4 if query.detect_orientation else 1)
                ]
                # Upside-down text is detected too, but with low confidence.
                return max(readings, key=lambda page: page.certainty)

        return await work_on_each(read_page, sources, strict=strict)

    async def _read_turned(
        self,
        model: Variant[TextSpec],
        image: LoadedImage,
        turns: int,
        query: TextQuery,
        slots: Slots,
    ) -> Page:
        """Read an image after some quarter turns clockwise."""
        spec, threads = model.spec, self._resources.threads
        turned = image
        if turns:
            with stage("preprocess"):
                turned = replace(image, pixels=await threads.run(_turn, image.pixels, turns))
        places = await self._find(model, turned, query)
        limit = _batch_limit(self._resources, model)
        groups = spec.batches(places, turned.size, limit)
        minimum = spec.min_confidence if query.min_confidence is None else query.min_confidence
        answers = await gather(
            self._read_places(model, turned, places[group], limit, minimum, slots) for group in groups
        )
        words: list[list[Span]] = [[] for _ in range(len(places))]
        for index, spans in zip(chain.from_iterable(groups), chain.from_iterable(answers), strict=True):
            words[index] = spans
        with stage("postprocess"):
            return await threads.run(_page, spec, image, turns, places, words, query)

    async def _find(self, model: Variant[TextSpec], image: LoadedImage, query: TextQuery) -> Places:
        spec, threads = model.spec, self._resources.threads
        thresholds = spec.thresholds
        if query.min_pixel_score is not None:
            thresholds = replace(thresholds, bin_threshold=query.min_pixel_score)
        if query.min_word_score is not None:
            thresholds = replace(thresholds, box_threshold=query.min_word_score)
        side = spec.input_size
        async with self._resources.working_room(
            pixels=image.width * image.height, sent=3 * side**2, received=4 * side**2
        ):
            with stage("preprocess"):
                canvas = await threads.run(spec.preprocess, image.pixels)
            tensors = await self._resources.infer(model, _DETECTOR, {"image": canvas[None]})
        with stage("postprocess"):
            return await threads.run(
                spec.find, tensors["probability_map"][0], image.size, thresholds, rotated=query.rotated_words
            )

    async def _read_places(
        self,
        model: Variant[TextSpec],
        image: LoadedImage,
        places: Places,
        limit: int,
        min_confidence: float,
        slots: Slots,
    ) -> list[list[Span]]:
        """Return what some places say. Each batch is a request of its own: Triton joins those of calls."""
        spec, threads = model.spec, self._resources.threads
        async with slots.take(len(places)), self._resources.working_room(sent=spec.batch_bytes(limit)):
            with stage("preprocess"):
                crops = await threads.run(spec.cut, image.pixels, places)
            steps = []
            # A wide place is several crops, so a batch of places may be more than one batch of crops.
            step = spec.crop_limit(crops, limit)
            for start in range(0, len(crops.pixels), step):
                tensors = await self._resources.infer(
                    model, _RECOGNIZER, {"crop": crops.pixels[start : start + step]}
                )
                steps.append(Steps(tensors["classes"], tensors["probabilities"]))
            with stage("postprocess"):
                return await threads.run(spec.read, crops, steps, min_confidence)


def _batch_limit(resources: Resources, model: Variant[TextSpec]) -> int:
    """Return the most places of a request to the recognition network."""
    return min(resources.settings.recognition_batch, model.max_batch_sizes[_RECOGNIZER.name])


def _turn(pixels: NDArray[np.uint8], turns: int) -> NDArray[np.uint8]:
    """Return a copy of pixels [H, W, 3] after some quarter turns clockwise."""
    return np.ascontiguousarray(np.rot90(pixels, -turns))


def _page(
    spec: TextSpec,
    image: LoadedImage,
    turns: int,
    places: Places,
    spans: Sequence[Sequence[Span]],
    query: TextQuery,
) -> Page:
    """Arrange the words. Places without any are dropped first, so that they do not affect the lines."""
    size = image.size if turns % 2 == 0 else (image.width, image.height)
    places = places[np.array([bool(words) for words in spans], np.bool_)]
    words: list[list[Word]] = []
    certainty = 0.0
    for place_spans, corners, score, on_side in zip(
        filter(None, spans), places.quadrilaterals(size), places.scores, places.on_side, strict=True
    ):
        words.append([])
        for span in place_spans:
            quadrilateral = span.quadrilateral(corners)
            if not query.rotated_words:
                quadrilateral = _upright(quadrilateral)
            turned_back = turn_back(quadrilateral, turns, image.size)
            words[-1].append(Word(span.text, span.confidence, turned_back, float(score)))
            certainty += 0 if on_side else span.confidence * len(span.text)
    # A line may be found to reach far into a column gap, where none of its characters is.
    ends = np.array([[words[0].start, words[-1].end] for words in spans if words]).reshape(-1, 2)
    blocks = spec.arrange(
        places.parts(*ends.T),
        size,
        lines=query.group_lines,
        blocks=query.group_blocks,
        by_columns=spec.by_columns if query.by_columns is None else query.by_columns,
    )
    return Page(
        image.info,
        [[[word for index in line for word in words[index]] for line in lines] for lines in blocks],
        turns,
        certainty,
    )


def _upright(corners: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the corners [4, 2] of the box around corners [4, 2], clockwise from the top-left one."""
    (x_min, y_min), (x_max, y_max) = corners.min(0), corners.max(0)
    return np.array([[x_min, y_min], [x_max, y_min], [x_max, y_max], [x_min, y_max]], np.float32)
