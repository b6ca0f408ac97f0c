"""Text through gRPC, gateway and Triton against docTR's own `ocr_predictor` in PyTorch, same weights."""

import asyncio
import itertools
import json
import os
import sys
from collections.abc import Callable, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import torch
from doctr.datasets import VOCABS
from doctr.models import detection_predictor, ocr_predictor
from doctr.utils import Sample
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from skimage import data as skimage_data

from export.doctr_weights import Networks, build
from export.weights import Options
from gateway.models.doctr import fit
from gateway.server import Gateway
from gateway.settings import Settings
from visiongate import AsyncClient, ImageHandle, ImageId, Page, VisiongateError
from visiongate.operations import Operation, text
from wire import assert_refused, changed, repeated

Pixels = NDArray[np.uint8]
BLANK = np.zeros((120, 90, 3), np.uint8)


@pytest.fixture(scope="session")
def networks() -> Networks:
    return build(Options(weights="random", size="tiny"))


class SamePixels(torch.nn.Module):
    """docTR's Resize with the gateway's pixels.

    They differ by one grey level in a few of 100,000 values, which networks with random weights amplify.
    """

    return_padding_mask = False

    def __init__(self, resize: Any) -> None:
        super().__init__()
        self.size = resize.size
        self.preserve_aspect_ratio, self.symmetric_pad = resize.preserve_aspect_ratio, resize.symmetric_pad

    def forward(self, sample: Sample) -> Sample:
        pixels = fit(sample.image.permute(1, 2, 0).numpy(), tuple(self.size), centred=self.symmetric_pad)
        return sample.replace(image=torch.from_numpy(pixels).permute(2, 0, 1))


@pytest.fixture(scope="session")
def predict(networks: Networks) -> Callable[..., Any]:
    """docTR's answer for one page; unless `unmodified`, to the same resized pixels."""

    def run(image: Pixels, rotated: bool = False, unmodified: bool = False, **keywords: Any) -> Any:
        predictor = ocr_predictor(
            deepcopy(networks.detector),
            deepcopy(networks.recognizer),
            assume_straight_pages=not rotated,
            # The classifiers that turn pages and words by 90 degrees are models of their own.
            disable_page_orientation=True,
            disable_crop_orientation=True,
            **keywords,
        )
        if not unmodified:
            for part in (predictor.det_predictor, predictor.reco_predictor):
                part.pre_processor.resize = SamePixels(part.pre_processor.resize)
        (page,) = predictor([image.copy()]).pages
        return page

    return run


def written(angle: float = 0, lines: int = 14, size: tuple[int, int] = (700, 500)) -> Pixels:
    image = Image.new("RGB", size, (250, 245, 235))
    draw = ImageDraw.Draw(image)
    random = np.random.default_rng(0)
    for line in range(lines):
        words = ["".join(map(chr, random.integers(97, 123, random.integers(1, 9)))) for _ in range(7)]
        draw.text(
            (30, 20 + line * (size[1] - 40) // lines), " ".join(words), "navy", ImageFont.load_default(19)
        )
    return np.asarray(image.rotate(angle, Image.Resampling.BICUBIC, fillcolor=(250, 245, 235)))


def pictures() -> list[Any]:
    page = np.repeat(skimage_data.page()[:, :, None], 3, axis=2)
    return [
        pytest.param(page, id="page"),
        pytest.param(written(), id="written"),
        pytest.param(written(8), id="turned"),
        pytest.param(skimage_data.chelsea()[:, 100:230], id="portrait"),
        pytest.param(skimage_data.coffee()[:40], id="sliver"),
    ]


def corners(word: Any, page: Any) -> NDArray[np.float64]:
    """docTR's relative geometry, two or four corners, as four in pixels."""
    height, width = page.dimensions
    points = np.array(word.geometry, np.float64)
    if len(points) == 2:
        points = np.array([points[0], [points[1, 0], points[0, 1]], points[1], [points[0, 0], points[1, 1]]])
    scaled: NDArray[np.float64] = points * [width, height]
    return scaled


def assert_same_page(actual: Page, expected: Any) -> None:
    assert [[len(line) for line in block] for block in actual.blocks] == [
        [len(line.words) for line in block.lines] for block in expected.blocks
    ]
    words = [word for block in expected.blocks for line in block.lines for word in line.words]
    # Where two characters are as good as equal, rounding may choose: of all words, in one at most.
    assert sum(word.text != other.value for word, other in zip(actual.words(), words, strict=True)) <= 1
    for word, other in zip(actual.words(), words, strict=True):
        np.testing.assert_allclose(word.quadrilateral, corners(other, expected), atol=1)
        assert word.confidence == pytest.approx(other.confidence, abs=1e-3)
    assert actual.text == "\n\n".join(
        "\n".join(" ".join(word.text for word in line) for line in block) for block in actual.blocks
    )
    assert (actual.height, actual.width) == expected.dimensions


@pytest.mark.parametrize("image", pictures())
@pytest.mark.parametrize("rotated", [False, True])
async def test_pages_equal_doctr(
    client: AsyncClient, predict: Callable[..., Any], image: Pixels, rotated: bool
) -> None:
    (page,) = await client.recognize_text([image], rotated_words=rotated)
    try:
        expected = predict(image, rotated)
    except IndexError:
        # docTR cannot cut a word out that the page's edge leaves no width of. Such a word has no text.
        assert rotated
        assert all(np.ptp(word.quadrilateral[:, 0]) > 0 for word in page.words())
        return
    assert sum(len(line.words) for block in expected.blocks for line in block.lines) > 2
    assert_same_page(page, expected)


async def test_detection_scores_equal_doctr(client: AsyncClient, networks: Networks) -> None:
    """Of the detector alone: `ocr_predictor` mixes up the scores once it drops a word without pixels."""
    image = written()
    (page,) = await client.recognize_text([image])
    detector = detection_predictor(deepcopy(networks.detector))
    detector.pre_processor.resize = SamePixels(detector.pre_processor.resize)
    (found,) = detector([image.copy()])
    boxes = found["words"][:, :4] * [700, 500, 700, 500]
    for word in page.words():
        distances = np.abs(boxes - word.box).max(1)
        assert distances.min() < 0.1
        score = found["words"][distances.argmin(), 4]
        assert word.detection_score == pytest.approx(score, abs=1e-3)


@pytest.mark.parametrize("name", ["skimage_page.png", "groceries.jpg"])
async def test_real_photos_equal_doctr(
    client: AsyncClient, predict: Callable[..., Any], photo: Callable[[str], Pixels], name: str
) -> None:
    image = photo(name)
    (page,) = await client.recognize_text([image])
    assert_same_page(page, predict(image))


@pytest.mark.parametrize("name", ["skimage_page.png", "groceries.jpg"])
async def test_most_words_equal_those_of_unmodified_doctr(
    client: AsyncClient, predict: Callable[..., Any], photo: Callable[[str], Pixels], name: str
) -> None:
    image = photo(name)
    (page,) = await client.recognize_text([image])
    expected = predict(image, unmodified=True)
    words = {
        word.value: corners(word, expected)
        for word in itertools.chain(*(line.words for block in expected.blocks for line in block.lines))
    }
    same = [
        word.text in words and np.abs(word.quadrilateral - words[word.text]).max() <= 1
        for word in page.words()
    ]
    assert np.mean(same) > 0.8
    assert len(same) == pytest.approx(len(words), rel=0.1)


@pytest.mark.parametrize("rotated", [False, True])
async def test_blocks_equal_doctr(client: AsyncClient, predict: Callable[..., Any], rotated: bool) -> None:
    (page,) = await client.recognize_text([written()], group_blocks=True, rotated_words=rotated)
    assert_same_page(page, predict(written(), rotated, resolve_blocks=True))
    assert len(page.blocks) > 1
    (page,) = await client.recognize_text([written()], group_lines=False, rotated_words=rotated)
    assert_same_page(page, predict(written(), rotated, resolve_lines=False))
    assert [len(block) for block in page.blocks] == [1]


async def test_thresholds(client: AsyncClient, predict: Callable[..., Any]) -> None:
    (usual,) = await client.recognize_text([written()])
    (higher,) = await client.recognize_text([written()], min_pixel_score=0.5)
    (surer,) = await client.recognize_text([written()], min_word_score=0.5)
    assert 0 < len(list(surer.words())) < len(list(usual.words()))
    assert all(word.detection_score >= 0.5 for word in surer.words())
    assert area(higher) < area(usual)


async def test_uncertain_words_are_left_out_if_that_is_wanted(client: AsyncClient) -> None:
    (usual,) = await client.recognize_text([written()])
    middle = float(np.median([word.confidence for word in usual.words()]))
    (certain,) = await client.recognize_text([written()], min_confidence=middle)
    assert min(word.confidence for word in certain.words()) >= middle
    assert 0 < len(list(certain.words())) < len(list(usual.words()))


async def test_the_order_can_be_chosen(client: AsyncClient) -> None:
    """docTR's own is that of rows. What columns are: tests/e2e/test_pp_ocr.py."""
    (usual,) = await client.recognize_text([written()])
    (rows,) = await client.recognize_text([written()], reading_order="rows")
    assert_same_words(rows, usual)
    (columns,) = await client.recognize_text([written()], reading_order="columns", group_blocks=True)
    assert sorted(word.text for word in columns.words()) == sorted(word.text for word in usual.words())


def area(page: Page) -> float:
    return float(sum(np.prod(word.box[2:] - word.box[:2]) for word in page.words()))


async def test_words_of_a_turned_page_are_turned(client: AsyncClient) -> None:
    (page,) = await client.recognize_text([written(30)], rotated_words=True)
    edges = np.array([word.quadrilateral[1] - word.quadrilateral[0] for word in page.words()])
    assert (np.abs(edges[:, 1]) > 2).sum() > 3
    (upright,) = await client.recognize_text([written(30)])
    assert all(word.quadrilateral[1, 1] == word.quadrilateral[0, 1] for word in upright.words())


async def test_a_page_without_text_is_an_empty_page(client: AsyncClient) -> None:
    (page,) = await client.recognize_text([BLANK], min_word_score=1, min_pixel_score=1)
    assert (page.blocks, page.text, page.width, page.height) == ([], "", 90, 120)


async def test_pages_come_back_in_order(client: AsyncClient) -> None:
    images = [written(lines=count) for count in (3, 14, 1, 9, 6, 2)]
    together = await client.recognize_text(images)
    for image, page in zip(images, together, strict=True):
        (alone,) = await client.recognize_text([image])
        assert_same_words(page, alone)


def assert_same_words(page: Page, other: Page) -> None:
    assert page.text == other.text
    for one, two in zip(page.words(), other.words(), strict=True):
        np.testing.assert_array_equal(one.quadrilateral, two.quadrilateral)
        assert one.confidence == pytest.approx(two.confidence, abs=1e-4)


@pytest.mark.long
async def test_concurrent_calls_equal_the_same_calls_alone(client: AsyncClient) -> None:
    images = [written(lines=count, size=(600 + count, 400)) for count in range(1, 13)]
    together = await asyncio.gather(*(client.recognize_text([image]) for image in images))
    for image, (page,) in zip(images, together, strict=True):
        (alone,) = await client.recognize_text([image])
        assert_same_words(page, alone)


async def test_words_are_read_in_bounded_batches_of_triton(
    settings: Settings, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page's words are several requests, so that Triton can join them with those of other calls."""
    small = settings.model_copy(update={"recognition_batch": 8})
    async with Gateway(small) as server, AsyncClient(f"127.0.0.1:{server.port}") as few:
        resources = server._resources
        sent: list[tuple[str, int]] = []
        running = most = 0
        infer = resources.triton.infer

        async def counted(model: str, inputs: Any, outputs: Sequence[str]) -> Any:
            nonlocal running, most
            sent.append((model, len(next(iter(inputs.values())))))
            running += 1
            most = max(most, running)
            try:
                return await infer(model, inputs, outputs)
            finally:
                running -= 1

        monkeypatch.setattr(resources.triton, "infer", counted)
        (page,) = await few.recognize_text([written()])
        async with AsyncClient(f"127.0.0.1:{gateway.port}") as usual:
            (expected,) = await usual.recognize_text([written()])
        assert_same_words(page, expected)
        words = [size for model, size in sent if model == "doctr_recognition"]
        assert [size for model, size in sent if model == "doctr_detection"] == [1]
        assert sum(words) >= len(list(page.words()))
        assert max(words) == 8
        assert len(words) <= len(list(page.words())) / 8 + 1 + (sum(words) - len(list(page.words())))
        assert 1 < most <= 4


@pytest.mark.parametrize("turns", [1, 2, 3])
async def test_a_turned_page_is_read_as_the_page(client: AsyncClient, turns: int) -> None:
    image = np.asarray(written())
    height, width = image.shape[:2]
    (page,) = await client.recognize_text([image], detect_orientation=True)
    # Turned counter-clockwise: what is read of it must be turned clockwise by as much more.
    (turned,) = await client.recognize_text([np.rot90(image, turns).copy()], detect_orientation=True)
    assert turned.text == page.text
    assert page.text
    assert turned.rotation_degrees == (page.rotation_degrees + 90 * turns) % 360
    back = {
        1: lambda x, y: (width - y, x),
        2: lambda x, y: (width - x, height - y),
        3: lambda x, y: (y, height - x),
    }
    for one, other in zip(page.words(), turned.words(), strict=True):
        corners = [back[turns](x, y) for x, y in other.quadrilateral]
        np.testing.assert_allclose(corners, one.quadrilateral, atol=1)


async def test_a_forgotten_image(client: AsyncClient) -> None:
    with pytest.raises(VisiongateError) as caught:
        await client.recognize_text([written(), ImageHandle(ImageId("0" * 64), 1, 1)])
    assert caught.value.code is grpc.StatusCode.NOT_FOUND


async def test_an_image_that_the_server_knows(client: AsyncClient) -> None:
    read = await client.recognize_text([written()])
    (page,) = read
    kept = ImageId(read.info.image.image_id)
    (again,) = await client.recognize_text([ImageHandle(kept, 1, 1)])
    assert_same_words(page, again)


@pytest.mark.parametrize(
    ("operation", "field", "says"),
    [
        (repeated(text.recognize_text([BLANK]), "images", 33), "images", "32"),
        (text.recognize_text([b"no image"]), "images[0].encoded", "image"),
        (text.recognize_text([BLANK, b""]), "images[1].encoded", "empty"),
        (text.recognize_text([BLANK, BLANK, b"no image"]), "images[2].encoded", "image"),
        (changed(text.recognize_text([BLANK]), {"min_pixel_score": 1.5}), "min_pixel_score", "0 to 1"),
        (
            changed(text.recognize_text([BLANK]), {"min_word_score": float("nan")}),
            "min_word_score",
            "0 to 1",
        ),
        (changed(text.recognize_text([BLANK]), {"min_confidence": -1}), "min_confidence", "0 to 1"),
        (text.recognize_text([BLANK], group_lines=False, group_blocks=True), "group_blocks", "lines"),
        (
            text.recognize_text([BLANK], group_lines=False, reading_order="columns"),
            "reading_order",
            "lines",
        ),
        (changed(text.recognize_text([BLANK]), {"reading_order": 9}), "reading_order", "9"),
        (text.recognize_text([BLANK], model="giant"), "model", "tiny"),
    ],
)
async def test_bad_requests_name_the_field(
    client: AsyncClient, operation: Operation[Any], field: str, says: str
) -> None:
    await assert_refused(client, operation, field, says)


async def test_an_image_without_a_source(client: AsyncClient) -> None:
    operation = text.recognize_text([BLANK])
    request: Any = operation.request
    request.images[0].ClearField("source")
    with pytest.raises(VisiongateError) as caught:
        await client.call(operation)
    assert caught.value.field == "images[0]"


def test_one_image_is_a_list_too() -> None:
    for image in (b"file", "page.png", BLANK):
        with pytest.raises(TypeError, match="list"):
            text.recognize_text(image)  # type: ignore[arg-type]


async def test_timings_and_models(client: AsyncClient) -> None:
    timings = (await client.recognize_text([written()])).info.timings
    assert timings is not None
    assert min(timings.decode_ms, timings.preprocess_ms, timings.inference_ms, timings.postprocess_ms) > 0
    (model,) = [model for model in await client.list_models() if model.task == "text"]
    assert (model.family, model.variant, model.input_size, model.ready) == ("doctr", "tiny", 256, True)
    assert (model.characters, list(model.scripts)) == (VOCABS["french"], ["Latin"])
    (other,) = [model for model in await client.list_models() if model.task == "detection"]
    assert (other.characters, other.scripts) == ("", {})


async def ocr(gateway: Gateway, *arguments: str, code: int = 0) -> str:
    """What `visiongate ocr` prints."""
    process = await asyncio.create_subprocess_exec(
        str(Path(sys.executable).parent / "visiongate"),
        "ocr",
        *arguments,
        env=os.environ | {"VISIONGATE_SERVER": f"127.0.0.1:{gateway.port}", "NO_COLOR": "1"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode == code, err.decode()
    return out.decode() if code == 0 else err.decode()


async def test_the_command(client: AsyncClient, gateway: Gateway, tmp_path: Path) -> None:
    image = Image.fromarray(written(10))
    first, second, picture = (str(tmp_path / name) for name in ("a.png", "b.png", "new/out.png"))
    image.save(first)
    Image.fromarray(BLANK).save(second)
    (page,) = await client.recognize_text([image])
    assert await ocr(gateway, first) == page.text + "\n"
    (turned,) = await client.recognize_text([image], rotated_words=True)
    answer = json.loads(await ocr(gateway, first, "--rotated-words", "--json", "--save", picture))
    assert [(entry["photo"], entry["text"]) for entry in answer] == [(first, turned.text)]
    assert (np.asarray(Image.open(picture)) != np.asarray(image)).any()
    nothing = ("--min-pixel-score", "1", "--min-word-score", "1")
    assert await ocr(gateway, first, second, *nothing) == f"{first}:\n{second}:\n"
    assert "give one" in await ocr(gateway, first, second, "--save", picture, code=1)
