"""Real text: PP-OCRv6's trained networks through gRPC, gateway and Triton, on pages whose text is known."""

import itertools
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from rapidocr import RapidOCR

import drawn_pages
from drawn_pages import LATIN, RECEIPT, SCANNED, SCRIPTS
from export import onnx_file, pp_ocr
from export.weights import Options
from gateway.embedded import EmbeddedTriton
from gateway.server import Gateway
from gateway.settings import Settings
from visiongate import AsyncClient, Page

Pixels = NDArray[np.uint8]
Photo = Callable[[str], Pixels]


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pp_ocr")
    onnx_file.place(pp_ocr.prepare(Options(weights="rapidocr", variant="pp_ocrv6_small")), folder)
    return folder


@pytest.fixture(scope="module")
async def client(repository: Path) -> AsyncIterator[AsyncClient]:
    with EmbeddedTriton(repository) as triton:
        settings = Settings(triton=triton.grpc_address, repository=repository, port=0, grace_s=0)
        async with Gateway(settings) as server, AsyncClient(f"127.0.0.1:{server.port}") as connected:
            yield connected


@pytest.fixture(scope="module")
def package() -> Callable[[Pixels], list[str]]:
    """The lines that the package's own pipeline reads, without its classifier of upside-down lines."""
    pipeline = RapidOCR(params={"Global.log_level": "error"})

    def read(image: Pixels) -> list[str]:
        answer: Any = pipeline(np.ascontiguousarray(image[..., ::-1]), use_cls=False)
        return list(answer.txts or [])

    return read


def lines(page: Page) -> list[str]:
    return [" ".join(word.text for word in line) for block in page.blocks for line in block]


def entries(rows: Sequence[tuple[str, str]]) -> list[str]:
    return [entry for row in rows for entry in row if entry]


@pytest.fixture(scope="module")
def pages(photo: Photo) -> dict[str, tuple[Pixels, list[str]]]:
    """Pages and the lines on them."""
    receipts = {f"receipt {angle}": (drawn_pages.receipt(angle), entries(RECEIPT)) for angle in (0, 2, 5, -5)}
    return {
        "scanned": (photo("skimage_page.png"), SCANNED),
        "scripts": (drawn_pages.scripts(), SCRIPTS),
        "groceries": (photo("groceries.jpg"), []),
        "truck": (photo("truck.jpg"), []),
        **receipts,
    }


@pytest.fixture(scope="module")
async def answers(client: AsyncClient, pages: dict[str, tuple[Pixels, list[str]]]) -> dict[str, Page]:
    """What is read of the pages, in one call."""
    read = await client.recognize_text([image for image, _ in pages.values()])
    return dict(zip(pages, read, strict=True))


async def test_no_character_is_wrong(
    pages: dict[str, tuple[Pixels, list[str]]], answers: dict[str, Page]
) -> None:
    """On a scanned page, on receipts, tilted ones too, row by row, and in other scripts."""
    assert {name: lines(page) for name, page in answers.items()} == {
        name: truth for name, (_, truth) in pages.items()
    }
    for page in answers.values():
        for word in page.words():
            assert word.confidence > 0.5
            assert word.quadrilateral[0, 1] == word.quadrilateral[1, 1]


def errors(truth: str, text: str) -> int:
    """Levenshtein's distance."""
    row = list(range(len(text) + 1))
    for i, wanted in enumerate(truth, 1):
        previous, row[0] = row[0], i
        for j, found in enumerate(text, 1):
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (wanted != found))
    return row[-1]


async def test_no_line_is_read_worse_than_by_the_package(
    pages: dict[str, tuple[Pixels, list[str]]],
    answers: dict[str, Page],
    package: Callable[[Pixels], list[str]],
) -> None:
    for name in pages.keys() - {"receipt -5"}:
        image, truth = pages[name]
        ours, theirs = lines(answers[name]), package(image)
        assert len(ours) <= max(len(theirs), len(truth))
        for line in truth:
            best, reference = (
                min((errors(line, text) for text in texts), default=len(line)) for texts in (ours, theirs)
            )
            assert best <= reference, line


@pytest.mark.parametrize("name", ["receipt 2", "scanned"])
async def test_a_page_among_others_equals_the_page_alone(
    client: AsyncClient, pages: dict[str, tuple[Pixels, list[str]]], answers: dict[str, Page], name: str
) -> None:
    (alone,) = await client.recognize_text([pages[name][0]])
    assert answers[name].text == alone.text
    for one, two in zip(answers[name].words(), alone.words(), strict=True):
        np.testing.assert_array_equal(one.quadrilateral, two.quadrilateral)
        assert one.confidence == pytest.approx(two.confidence, abs=1e-4)


@pytest.mark.parametrize("degrees", [0, 20])
async def test_words_lie_where_they_stand(client: AsyncClient, degrees: float) -> None:
    font = ImageFont.truetype(LATIN, 30)
    page = drawn_pages.blank(900, 500)
    words, x = [], 100.0
    for text in ["Every", "word", "has", "a", "place", "of", "its", "own"]:
        ImageDraw.Draw(page).text((x, 220), text, drawn_pages.INK, font)
        words.append((text, x, x + font.getlength(text)))
        x += font.getlength(text + " ")
    (read,) = await client.recognize_text([drawn_pages.turned(page, degrees)], rotated_words=True)
    assert [word.text for word in read.words()] == [text for text, _, _ in words]
    turn = np.exp(1j * np.deg2rad(degrees))
    centre = complex(read.width, read.height) / 2
    for word, (_, start, end) in zip(read.words(), words, strict=True):
        corners = (word.quadrilateral[:, 0] + 1j * word.quadrilateral[:, 1] - centre) * turn + 450 + 250j
        left, right = corners[[0, 3]].mean(), corners[[1, 2]].mean()
        # To half a character.
        assert left.real == pytest.approx(start, abs=9)
        assert right.real == pytest.approx(end, abs=9)
        assert left.imag == pytest.approx(right.imag, abs=3)
        assert corners[[0, 1]].imag.max() < 230
        assert corners[[2, 3]].imag.min() > 240


PROSE = (
    "the quick brown fox jumps over the lazy dog while seven wizards quietly mix a bold new potion for "
    "the queen and her guests who arrive late in the evening by boat from an island in the north "
)
WORDS = PROSE.split()


def column(start: int, count: int = 9) -> list[str]:
    words = itertools.islice(itertools.cycle(WORDS), start, start + 5 * count)
    return [" ".join(line) for line in zip(*[words] * 5, strict=True)]


@pytest.mark.parametrize("count", [2, pytest.param(3, marks=pytest.mark.long)])
async def test_columns_are_read_one_after_the_other(client: AsyncClient, count: int) -> None:
    texts = [column(11 * index) for index in range(count)]
    image = drawn_pages.columns(texts, "Wizards at sea")
    (page,) = await client.recognize_text([image], group_blocks=True)
    assert lines(page) == ["Wizards at sea", *itertools.chain(*texts)]
    assert [len(block) for block in page.blocks] == [1, *map(len, texts)]
    (rows,) = await client.recognize_text([image], reading_order="rows")
    assert lines(rows) == ["Wizards at sea", *itertools.chain(*zip(*texts, strict=True))]
    assert len(rows.blocks) == 1


@pytest.mark.parametrize("turns", [1, pytest.param(2, marks=pytest.mark.long)])
async def test_pages_on_their_side_and_upside_down(client: AsyncClient, turns: int) -> None:
    image = np.rot90(drawn_pages.receipt(), turns).copy()
    (page,) = await client.recognize_text([image], detect_orientation=True)
    assert page.rotation_degrees == 90 * turns
    assert lines(page) == entries(RECEIPT)


async def test_text_that_runs_down_the_page(client: AsyncClient) -> None:
    """As on the back of a book: its place begins where its text does."""
    page = drawn_pages.blank(600, 200)
    ImageDraw.Draw(page).text((60, 80), "The back of a book", drawn_pages.INK, ImageFont.truetype(LATIN, 36))
    (read,) = await client.recognize_text([page.rotate(-90, expand=True)], rotated_words=True)
    assert read.text == "The back of a book"
    tops = [word.quadrilateral[[0, 3], 1].mean() for word in read.words()]
    assert tops == sorted(tops)
    assert all(word.quadrilateral[0, 0] > word.quadrilateral[3, 0] for word in read.words())


async def test_a_line_of_20_000_pixels(client: AsyncClient) -> None:
    font = ImageFont.truetype(LATIN, 67)
    text = (3 * PROSE).strip()
    page = drawn_pages.blank(20_000, 200)
    ImageDraw.Draw(page).text((30, 60), text, drawn_pages.INK, font)
    assert 19_000 < font.getlength(text) < 19_900
    (read,) = await client.recognize_text([page])
    assert read.text == text
    starts = [word.box[0] for word in read.words()]
    assert starts == sorted(starts)


@pytest.mark.parametrize("size", [(1, 1), (1, 400), (400, 1), (3, 5_000)])
async def test_slivers_are_answered(client: AsyncClient, size: tuple[int, int]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (size[0], size[1], 3), np.uint8)
    (page,) = await client.recognize_text([noise], min_pixel_score=0, min_word_score=0, min_confidence=0)
    assert (page.height, page.width) == size


async def test_uncertain_lines_are_left_out_unless_wanted(client: AsyncClient) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8))
    image = noise.resize((1200, 800), Image.Resampling.BICUBIC)
    (page,) = await client.recognize_text([image], min_pixel_score=0.05, min_word_score=0.05)
    (all_of_it,) = await client.recognize_text(
        [image], min_pixel_score=0.05, min_word_score=0.05, min_confidence=0
    )
    assert not page.blocks
    assert all_of_it.blocks
    assert all(word.text for word in all_of_it.words())


async def test_the_model_says_what_it_reads(client: AsyncClient) -> None:
    (model,) = await client.list_models()
    assert (model.task, model.family, model.variant, model.input_size) == (
        "text",
        "doctr",
        "pp_ocrv6_small",
        2016,
    )
    assert len(model.characters) == len(set(model.characters)) == 18_709
    assert set("Łódź € 東京 かな αβγ_") <= set(model.characters)
    assert not set("жяές한ع") & set(model.characters)
    assert list(model.scripts)[:2] == ["Han", "Latin"]
    assert set(model.scripts) == {"Han", "Latin", "Hiragana", "Katakana", "Greek"}
