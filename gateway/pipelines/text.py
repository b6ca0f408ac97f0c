"""The text of pages: docTR."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from gateway.catalog import Family, Role, Variant
from gateway.models.boxes import turn_back
from gateway.models.doctr import DoctrSpec, Places
from gateway.models.doctr_layout import arrange
from gateway.models.doctr_recognition import Decoded
from gateway.pipelines.core import Call, Core, ImageSource, LoadedImage, gather

DOCTR = Family(
    "doctr",
    "text",
    (
        Role(
            "doctr_detection",
            inputs={"image": ("UINT8", 4)},
            outputs={"probability_map": ("FP32", 3)},
        ),
        Role("doctr_recognition", inputs={"crop": ("UINT8", 4)}, outputs={"logits": ("FP32", 3)}),
    ),
    DoctrSpec.from_parameters,
)

# Of a request, so that memory does not grow with it: decoded pages, and batches of words on their way.
PAGES_AT_ONCE = 4
BATCHES_AT_ONCE = 4


@dataclass(frozen=True, slots=True)
class TextQuery:
    """How to read: thresholds that are None are the model's own."""

    rotated: bool
    bin_threshold: float | None
    box_threshold: float | None
    lines: bool
    blocks: bool
    find_orientation: bool


@dataclass(frozen=True, eq=False, slots=True)
class Word:
    """quadrilateral: float32 [4, 2] in pixels, clockwise from the top-left corner; scores 0 to 1."""

    text: str
    confidence: float
    quadrilateral: NDArray[np.float32]
    detection_score: float


@dataclass(frozen=True, eq=False, slots=True)
class Page:
    """blocks: of lines of words, in reading order.

    turns: by how many quarter turns clockwise the image was turned to be read. Places are of the image as it
    came.
    """

    image: LoadedImage
    blocks: list[list[list[Word]]]
    turns: int = 0


class Reader:
    """docTR in front of Triton."""

    def __init__(self, core: Core) -> None:
        self._core = core

    def choose(self, variant: str) -> Variant[DoctrSpec]:
        """The variant of that name, or the default one for an empty name."""
        return self._core.catalog.choose(DOCTR, variant, DoctrSpec)

    async def read(
        self, sources: Sequence[ImageSource], query: TextQuery, model: Variant[DoctrSpec], call: Call
    ) -> list[Page]:
        """The words of each image; `images[i]` is the field of what is wrong with one."""
        pages = asyncio.Semaphore(PAGES_AT_ONCE)
        batches = asyncio.Semaphore(BATCHES_AT_ONCE)

        async def read_page(index: int, source: ImageSource) -> Page:
            async with pages:
                image = await self._core.load_image(source, call, f"images[{index}]")
                # One after the other: four of a page at once would hold four times its memory.
                readings = [
                    await self._read_turned(model, image, turns, query, batches, call)
                    for turns in range(4 if query.find_orientation else 1)
                ]
                return max(readings, key=_certainty)

        return await gather(read_page(index, source) for index, source in enumerate(sources))

    async def _read_turned(
        self,
        model: Variant[DoctrSpec],
        image: LoadedImage,
        turns: int,
        query: TextQuery,
        batches: asyncio.Semaphore,
        call: Call,
    ) -> Page:
        """Reads an image after some quarter turns clockwise."""
        turned = LoadedImage(image.image_id, np.ascontiguousarray(np.rot90(image.pixels, -turns)))
        places = await self._find_words(model, turned, query, call)
        step = self._batch(model)
        read = await gather(
            self._read_words(model, turned, places[start : start + step], batches, call)
            for start in range(0, len(places), step)
        )
        with call.stage("postprocess"):
            return await self._core.run(_page, image, turns, places, [*chain.from_iterable(read)], query)

    def _batch(self, model: Variant[DoctrSpec]) -> int:
        return min(self._core.settings.recognition_batch, model.max_batch_sizes["doctr_recognition"])

    async def _find_words(
        self, model: Variant[DoctrSpec], image: LoadedImage, query: TextQuery, call: Call
    ) -> Places:
        doctr = model.spec
        detection = doctr.thresholds
        if query.bin_threshold is not None:
            detection = replace(detection, bin_threshold=query.bin_threshold)
        if query.box_threshold is not None:
            detection = replace(detection, box_threshold=query.box_threshold)
        with call.stage("preprocess"):
            canvas = await self._core.run(doctr.preprocess, image.pixels)
        with call.stage("inference"):
            tensors = await self._core.triton.infer(
                model.triton_models["doctr_detection"], {"image": canvas[None]}, ("probability_map",)
            )
        with call.stage("postprocess"):
            return await self._core.run(
                doctr.find_words, tensors["probability_map"][0], image.size, detection, rotated=query.rotated
            )

    async def _read_words(
        self,
        model: Variant[DoctrSpec],
        image: LoadedImage,
        places: Places,
        batches: asyncio.Semaphore,
        call: Call,
    ) -> list[Decoded | None]:
        """What some words say. Triton joins the batches of all calls: each is a request of its own."""
        step = self._batch(model)
        async with batches:
            with call.stage("preprocess"):
                crops = await self._core.run(model.spec.cut, image.pixels, places)
            logits = []
            # Wide words are several crops: a batch of words may be more than one of crops.
            for start in range(0, len(crops.pixels), step):
                with call.stage("inference"):
                    tensors = await self._core.triton.infer(
                        model.triton_models["doctr_recognition"],
                        {"crop": crops.pixels[start : start + step]},
                        ("logits",),
                    )
                logits.append(tensors["logits"])
            with call.stage("postprocess"):
                return await self._core.run(model.spec.read, crops, logits)


def _certainty(page: Page) -> float:
    """Text upside down is found too, but its characters are unsure."""
    words = [word for lines in page.blocks for line in lines for word in line]
    return sum(word.confidence * len(word.text) for word in words)


def _page(
    image: LoadedImage, turns: int, places: Places, read: Sequence[Decoded | None], query: TextQuery
) -> Page:
    """Words without pixels are dropped, before they can have a say in where lines are."""
    size = image.size if turns % 2 == 0 else (image.width, image.height)
    places = places[np.array([word is not None for word in read], np.bool_)]
    words = [
        Word(decoded.text, decoded.confidence, turn_back(quadrilateral, turns, image.size), float(score))
        for decoded, quadrilateral, score in zip(
            filter(None, read), places.quadrilaterals(size), places.scores, strict=True
        )
    ]
    blocks = arrange(places.points, size, lines=query.lines, blocks=query.blocks)
    return Page(image, [[[words[index] for index in line] for line in lines] for lines in blocks], turns)
