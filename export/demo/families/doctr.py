"""docTR in the demo: words that are found and read."""

from collections.abc import Sequence

import numpy as np

from export.demo.agreement import MIN_IOU, paired_boxes
from export.demo.family import Answer, DemoFamily, Row
from export.demo.measure import Advance, Figure, Measure, ask_all
from export.demo.scenes import Scene
from visiongate import AsyncClient, Word, draw


async def reading(client: AsyncClient, pictures: Sequence[Scene], advance: Advance) -> list[Figure]:
    """Measure the share of the words that are found, and of those that are also read without a fault."""

    async def ask(index: int) -> tuple[int, int, int, int]:
        scene = pictures[index]
        [page] = await client.recognize_text([scene.image])
        words = list(page.words())
        hits = [
            scene.words[row].text == words[column].text
            for row, column, iou in _paired(scene, words)
            if iou >= MIN_IOU
        ]
        return len(hits), sum(hits), len(scene.words), len(words)

    hits, right, wanted, found = np.sum(await ask_all(ask, len(pictures), advance), axis=0)
    return [
        Figure("docTR: words found", hits / wanted, 0.95),
        Figure("docTR: words read without a fault", right / wanted, 0.95),
        Figure("docTR: of what it found, words", hits / max(1, found), 0.95),
    ]


async def read_words(client: AsyncClient, scene: Scene) -> Answer:
    """Ask for the words of the scene."""
    [page] = await client.recognize_text([scene.image])
    words = list(page.words())
    partners = {row: (column, iou) for row, column, iou in _paired(scene, words)}
    rows = []
    for index, drawn in enumerate(scene.words):
        truth = f"the word {drawn.text}"
        if index in partners:
            column, iou = partners[index]
            text = words[column].text
            rows.append(Row(truth, text, f"box IoU {iou:.2f}", is_right=text == drawn.text))
        else:
            rows.append(Row(truth, "not found", "", is_right=False))
    paired = {column for column, _ in partners.values()}
    extra = [word.text for column, word in enumerate(words) if column not in paired]
    rows += [Row("nothing", f"the word {text}", "", is_right=False) for text in extra]
    items = [draw.Item(group=1, caption=word.text, polygon=word.quadrilateral) for word in words]
    return Answer(rows, items)


def _paired(scene: Scene, words: Sequence[Word]) -> list[tuple[int, int, float]]:
    return paired_boxes((word.box for word in scene.words), (word.box for word in words))


FAMILY = DemoFamily(
    name="doctr",
    place=3,
    training="export.demo.train_doctr",
    measures=(Measure(reading),),
    ask=read_words,
)
