"""CLIP through gRPC, gateway and Triton against open_clip in PyTorch, same weights."""

import asyncio
import io
import json
import os
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import open_clip
import pytest
import torch
from numpy.typing import NDArray
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from skimage import data as skimage_data

from export import clip_weights
from export.weights import Options
from gateway.catalog_loading import load
from gateway.errors import InputError
from gateway.image_ids import ImageIds, secret_of
from gateway.pipelines.embedding import CLIP, Embedded, Embedder
from gateway.pipelines.images import RawImage
from gateway.pipelines.resources import Resources
from gateway.server import Gateway
from gateway.settings import Settings
from gateway.triton_servers import GrpcTriton
from visiongate import AsyncClient, ImageHandle, ImageId, Text, VisiongateError
from visiongate.operations import Operation, embedding
from visiongate.v1 import embedding_service_pb2
from wire import assert_refused, changed, copied, repeated

TEXTS = ["a photo of a cat.", "An  ASTRONAUT &amp; her flag", "coffee, 3 cups", "日本語 🙂", "word " * 75]
LABELS = ["cat", "cup of coffee", "astronaut", "cat"]
TOLERANCE = 1e-5


class Reference:
    """open_clip's transform, tokenizer and model."""

    def __init__(self) -> None:
        self.model, _ = clip_weights.build(Options(weights="random", size="tiny"))
        settings = PreprocessCfg(**self.model.visual.preprocess_cfg)
        self._transform = image_transform_v2(settings, is_train=False)

    @torch.no_grad()
    def images(self, images: Sequence[Any], normalize: bool = True) -> NDArray[np.float32]:
        pixels = torch.stack([self._transform(Image.fromarray(np.asarray(image))) for image in images])
        return np.asarray(self.model.encode_image(pixels, normalize=normalize))

    @torch.no_grad()
    def texts(self, texts: Sequence[str], normalize: bool = True) -> NDArray[np.float32]:
        return np.asarray(self.model.encode_text(open_clip.tokenize(list(texts)), normalize=normalize))

    @torch.no_grad()
    def probabilities(self, images: Sequence[Any], prompts: Sequence[str]) -> NDArray[np.float32]:
        logits = self.images(images) @ self.texts(prompts).T * self.model.logit_scale.exp().item()
        return torch.from_numpy(logits).softmax(-1).numpy()


@pytest.fixture(scope="module")
def reference() -> Reference:
    return Reference()


def photos() -> list[NDArray[np.uint8]]:
    rng = np.random.default_rng(0)
    return [
        skimage_data.astronaut(),
        skimage_data.coffee(),
        skimage_data.chelsea()[:251, :97],
        rng.integers(0, 256, (3, 64, 3), np.uint8),
        rng.integers(0, 256, (1, 1, 3), np.uint8),
        skimage_data.coffee()[:64, :64],
    ]


async def test_images_equal_open_clip(client: AsyncClient, reference: Reference) -> None:
    found = await client.embed_images(photos())
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, reference.images(photos()), atol=TOLERANCE)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=TOLERANCE)
    raw = await client.embed_images(photos(), normalize=False)
    np.testing.assert_allclose(raw, reference.images(photos(), normalize=False), atol=1e-4)
    assert np.abs(np.linalg.norm(raw, axis=1) - 1).min() > 0.1


async def test_texts_equal_open_clip(client: AsyncClient, reference: Reference) -> None:
    found = await client.embed_texts(TEXTS)
    np.testing.assert_allclose(found, reference.texts(TEXTS), atol=TOLERANCE)
    raw = await client.embed_texts(TEXTS, normalize=False)
    np.testing.assert_allclose(raw, reference.texts(TEXTS, normalize=False), atol=1e-4)


@pytest.mark.parametrize("mode", ["L", "RGBA", "CMYK", "I;16", "P"])
async def test_images_of_any_kind(client: AsyncClient, reference: Reference, mode: str) -> None:
    picture = Image.fromarray(skimage_data.chelsea())
    file = io.BytesIO()
    if mode == "I;16":
        values = np.asarray(picture.convert("L")).astype(np.uint16) << 8
        Image.fromarray(values).save(file, "PNG")
        expected = picture.convert("L").convert("RGB")
    else:
        picture.convert(mode).save(file, "TIFF" if mode == "CMYK" else "PNG")
        expected = picture.convert(mode).convert("RGB")
    found = await client.embed_images([file.getvalue()])
    np.testing.assert_allclose(found, reference.images([expected]), atol=TOLERANCE)


async def test_photos_as_files(
    client: AsyncClient,
    settings: Settings,
    reference: Reference,
    data: Callable[[str], Path],
    photo: Callable[[str], Any],
) -> None:
    """Large JPEGs are decoded at a reduced size, unless a setting says otherwise."""
    names = ["truck.jpg", "cat_dog.jpeg", "skimage_page.png"]
    files = [data(f"images/{name}") for name in names]
    expected = reference.images([photo(name) for name in names])
    found = await client.embed_images(files)
    np.testing.assert_allclose(found[1:], expected[1:], atol=TOLERANCE)
    assert found[0] @ expected[0] > 0.9995
    in_full = settings.model_copy(update={"scaled_decoding": False, "port": 0})
    async with Gateway(in_full) as other, AsyncClient(f"127.0.0.1:{other.port}") as its_client:
        np.testing.assert_allclose(await its_client.embed_images(files), expected, atol=TOLERANCE)


async def test_comparisons_equal_open_clip(client: AsyncClient, reference: Reference) -> None:
    astronaut, coffee, *_ = photos()
    candidates: list[Any] = [Text("a cat"), coffee, Text("a cup of coffee"), astronaut, Text("a cat")]
    rows = np.stack(
        [
            *reference.texts(["a cat"]),
            *reference.images([coffee]),
            *reference.texts(["a cup of coffee"]),
            *reference.images([astronaut]),
            *reference.texts(["a cat"]),
        ]
    )
    found = await client.compare(astronaut, candidates)
    np.testing.assert_allclose(found, rows @ reference.images([astronaut])[0], atol=TOLERANCE)
    assert found[3] == pytest.approx(1)
    found = await client.compare(Text("a cat"), candidates)
    np.testing.assert_allclose(found, rows @ reference.texts(["a cat"])[0], atol=TOLERANCE)
    assert found[0] == found[4] == pytest.approx(1)


async def test_comparisons_tell_of_images(client: AsyncClient, gateway: Gateway) -> None:
    request = embedding.compare(Text("a cat"), [photos()[1], Text("a dog")]).request
    response: Any = await ask(gateway, "CompareImagesAndTexts", request)
    assert [item.HasField("image") for item in response.results] == [True, False]
    info = response.results[0].image
    assert (info.width, info.height) == (600, 400)
    assert not response.HasField("subject_image")
    kept = ImageHandle(ImageId(info.image_id), 600, 400)
    assert (await client.compare(kept, [photos()[1]]))[0] == pytest.approx(1)


@pytest.mark.parametrize("template", [None, "{}", "a drawing of a {}, {0} {{"])
async def test_classes_equal_open_clip(
    client: AsyncClient, reference: Reference, template: str | None
) -> None:
    prompts = [(template or "a photo of a {}.").replace("{}", label) for label in LABELS]
    expected = reference.probabilities(photos(), prompts)
    similarities = reference.images(photos()) @ reference.texts(prompts).T
    found = await client.classify(photos(), LABELS, prompt_template=template)
    assert len(found) == len(photos())
    for scores, row, cosines in zip(found, expected, similarities, strict=True):
        assert [score.label_index for score in scores] == np.argsort(-row, kind="stable").tolist()
        assert [score.label for score in scores] == [LABELS[score.label_index] for score in scores]
        np.testing.assert_allclose(
            [score.probability for score in scores], row[[s.label_index for s in scores]], atol=1e-3
        )
        np.testing.assert_allclose(
            [score.similarity for score in scores], cosines[[s.label_index for s in scores]], atol=TOLERANCE
        )
        assert sum(score.probability for score in scores) == pytest.approx(1, abs=1e-5)
    # The softmax is sharpened by the model's own scale: without it all would be near 1/4.
    assert max(score.probability for scores in found for score in scores) > 0.4


async def test_top_k_are_the_first_of_all(client: AsyncClient) -> None:
    everything = await client.classify(photos(), LABELS)
    for top_k in (1, 3, 99):
        assert await client.classify(photos(), LABELS, top_k=top_k) == [row[:top_k] for row in everything]
    ((alone,),) = await client.classify(photos()[:1], ["cat"])
    assert alone.probability == 1


async def test_long_texts_are_cut_only_on_request(client: AsyncClient, reference: Reference) -> None:
    long = "many words of a caption " * 40
    found = await client.embed_texts([long], truncate=True)
    np.testing.assert_allclose(found, reference.texts([long]), atol=TOLERANCE)
    with pytest.raises(VisiongateError, match="the limit is 77") as caught:
        await client.embed_texts(["short", long])
    assert caught.value.field == "texts[1]"
    await client.compare(Text(long), [Text("a")], truncate=True)
    await client.classify(photos()[:1], [long], truncate=True)


async def test_many_items_equal_each_alone(client: AsyncClient, reference: Reference) -> None:
    """More than any batch holds, in a mixed order and with repetitions."""
    texts = [f"number {index % 90} of many" for index in range(200)]
    np.testing.assert_allclose(await client.embed_texts(texts), reference.texts(texts), atol=TOLERANCE)
    rng = np.random.default_rng(7)
    pictures = [rng.integers(0, 256, (20 + index % 5, 30, 3), np.uint8) for index in range(45)]
    pictures += pictures[:19]
    np.testing.assert_allclose(
        await client.embed_images(pictures), reference.images(pictures), atol=TOLERANCE
    )


async def test_concurrent_calls_share_and_differ(client: AsyncClient, reference: Reference) -> None:
    calls = [[f"text {(start * 7 + step) % 60}" for step in range(40)] for start in range(12)]
    answers = await asyncio.gather(*map(client.embed_texts, calls))
    for texts, answer in zip(calls, answers, strict=True):
        np.testing.assert_allclose(answer, reference.texts(texts), atol=TOLERANCE)


async def ask(gateway: Gateway, method: str, request: Any) -> Any:
    response_type = getattr(embedding_service_pb2, f"{method}Response")
    async with grpc.aio.insecure_channel(f"127.0.0.1:{gateway.port}") as channel:
        call: Any = channel.unary_unary(
            f"/visiongate.v1.EmbeddingService/{method}",
            request_serializer=type(request).SerializeToString,
            response_deserializer=response_type.FromString,
        )
        return await call(request)


async def test_responses_say_what_was_read_and_how_long_it_took(gateway: Gateway) -> None:
    request: Any = embedding.embed_images(photos()[:2]).request
    response = await ask(gateway, "EmbedImages", request)
    assert response.model == "tiny"
    assert [(image.width, image.height) for image in (item.image for item in response.results)] == [
        (512, 512),
        (600, 400),
    ]
    assert response.timings.inference_ms >= 0
    request.include_timings = False
    assert not (await ask(gateway, "EmbedImages", request)).HasField("timings")


class Counting(GrpcTriton):
    """Triton, and the sizes of the batches that it was asked for."""

    def __init__(self, address: str) -> None:
        super().__init__(address)
        self.batches: list[tuple[str, int]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.cancelled = 0

    async def asked(self, times: int) -> None:
        while len(self.batches) < times:  # noqa: ASYNC110
            await asyncio.sleep(0.001)

    async def infer(self, model: str, inputs: Any, outputs: Any) -> Any:
        self.batches.append((model, len(next(iter(inputs.values())))))
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return await super().infer(model, inputs, outputs)


class Asked:
    """An embedder of its own in front of the real Triton, whose caches nobody has filled."""

    def __init__(self, resources: Resources, triton: Any) -> None:
        self.triton = triton
        self.embedder = Embedder(resources)
        self.model = resources.catalog.choose(CLIP, "")

    async def texts(self, *texts: str) -> NDArray[np.float32]:
        tokens = await self.embedder.tokenize(texts, self.model, truncate=False, strict=True)
        return vectors(await self.embedder.embed_texts(tokens, self.model))

    async def images(self, sources: Sequence[RawImage]) -> tuple[NDArray[np.float32], set[str]]:
        items = await self.embedder.embed_images(sources, self.model, strict=True)
        return vectors(items), {
            item.image.image_id for item in items if isinstance(item, Embedded) and item.image
        }


def vectors(items: Sequence[Embedded | InputError]) -> NDArray[np.float32]:
    assert all(isinstance(item, Embedded) for item in items)
    return np.array([item.vector for item in items if isinstance(item, Embedded)])


@pytest.fixture
async def counting(settings: Settings) -> AsyncIterator[Asked]:
    triton = Counting(settings.triton)
    catalog = await load(triton, settings.repository, [CLIP])
    resources = Resources(triton, catalog, settings, ImageIds(secret_of(None)))
    yield Asked(resources, triton)
    resources.close()
    await triton.close()


async def test_texts_are_embedded_once_and_in_batches(counting: Asked) -> None:
    assert counting.model.max_batch_sizes["clip_text"] == 64
    first = await counting.texts(*(f"text {index % 100}" for index in range(150)))
    assert sorted(counting.triton.batches) == [("clip_text", 36), ("clip_text", 64)]
    # Known texts cost nothing, however they are written; new ones alone are asked for.
    again = await counting.texts("TEXT  3", "text 99", "one more")
    assert counting.triton.batches[2:] == [("clip_text", 1)]
    np.testing.assert_array_equal(again[:2], first[[3, 99]])


async def test_images_are_embedded_once_and_in_batches(counting: Asked) -> None:
    sources = [RawImage(bytes([index % 40]) * 12, 2, 2) for index in range(80)]
    first, ids = await counting.images(sources)
    assert sorted(counting.triton.batches) == [("clip_image", 8), ("clip_image", 32)]
    assert len(ids) == 40
    again, _ = await counting.images(sources[3:5])
    assert len(counting.triton.batches) == 2
    np.testing.assert_array_equal(again, first[3:5])


async def test_calls_that_meet_share_their_work(counting: Asked) -> None:
    triton = counting.triton
    triton.gate.clear()
    calls = [asyncio.create_task(counting.texts(*texts)) for texts in (["a", "b"], ["b", "c"], ["c", "a"])]
    await triton.asked(2)
    triton.gate.set()
    first, second, third = await asyncio.gather(*calls)
    assert sum(count for _, count in triton.batches) == 3
    np.testing.assert_array_equal(first[1], second[0])
    np.testing.assert_array_equal(first[0], third[1])


async def test_a_cancelled_call_leaves_others_their_work(counting: Asked) -> None:
    triton = counting.triton
    triton.gate.clear()
    doomed = asyncio.create_task(counting.texts("a", "b"))
    await triton.asked(1)
    other = asyncio.create_task(counting.texts("b"))
    await asyncio.sleep(0.05)
    doomed.cancel()
    await asyncio.sleep(0.05)
    assert triton.cancelled == 0
    triton.gate.set()
    assert (await other).shape == (1, 32)
    assert triton.batches == [("clip_text", 2)]
    with pytest.raises(asyncio.CancelledError):
        await doomed


async def test_a_cancelled_call_cancels_its_request(counting: Asked) -> None:
    triton = counting.triton
    triton.gate.clear()
    doomed = asyncio.create_task(counting.texts(*(f"text {index}" for index in range(500))))
    await triton.asked(2)
    doomed.cancel()
    with pytest.raises(asyncio.CancelledError):
        await doomed
    await asyncio.sleep(0.05)
    # Two batches at a time: the others were never sent.
    assert (len(triton.batches), triton.cancelled) == (2, 2)
    # A later call starts afresh.
    triton.gate.set()
    assert (await counting.texts("text 0")).shape == (1, 32)


async def test_without_any_cache_the_answers_are_the_same(settings: Settings, reference: Reference) -> None:
    bare = settings.model_copy(
        update={"clip_text_cache_bytes": 0, "clip_image_cache_bytes": 0, "image_cache_bytes": 0}
    )
    triton = GrpcTriton(bare.triton)
    catalog = await load(triton, bare.repository, [CLIP])
    resources = Resources(triton, catalog, bare, ImageIds(secret_of(None)))
    texts = ["a", "b", "a", *(f"text {index}" for index in range(70))]
    found = await Asked(resources, triton).texts(*texts)
    np.testing.assert_allclose(found, reference.texts(texts, normalize=False), atol=1e-4)
    resources.close()
    await triton.close()


PHOTO = skimage_data.coffee()
SMALL = PHOTO[:2, :2]
LONG = "word " * 100


@pytest.mark.parametrize(
    ("operation", "field", "says"),
    [
        (repeated(embedding.embed_images([SMALL]), "images", 65), "images", "has 65 images; the limit"),
        (embedding.embed_images([PHOTO, b"no image"]), "images[1].encoded", "not an image"),
        (embedding.embed_images([PHOTO, b""]), "images[1].encoded", "is empty"),
        (embedding.embed_images([PHOTO], model="giant"), "model", "tiny"),
        (repeated(embedding.embed_texts(["a"]), "texts", 1025), "texts", "has 1025 texts; the limit"),
        (embedding.embed_texts(["a", " \n"]), "texts[1]", "is empty"),
        (embedding.embed_texts(["a", "\ufeff&nbsp;"]), "texts[1]", "has no words"),
        (embedding.embed_texts(["a", LONG]), "texts[1]", "has 102 tokens, start and end counted; the "),
        (embedding.embed_texts([LONG]), "texts[0]", "the limit is 77: shorten it, or set truncate"),
        (embedding.embed_texts(["x" * 10_001], truncate=True), "texts[0]", "the limit is 10000"),
        (embedding.embed_texts(["a"], model="giant"), "model", "tiny"),
        (repeated(embedding.compare(PHOTO, [Text("a")]), "candidates", 1025), "candidates", "1025 texts"),
        (repeated(embedding.compare(PHOTO, [SMALL]), "candidates", 65), "candidates", "has 65 images; the "),
        (embedding.compare(PHOTO, [Text("a"), Text(LONG)]), "candidates[1].text", "the limit is 77"),
        (embedding.compare(Text(LONG), [PHOTO]), "subject.text", "the limit is 77"),
        (embedding.compare(Text(""), [PHOTO]), "subject.text", "is empty"),
        (embedding.compare(b"no", [PHOTO]), "subject.image.encoded", "not an image"),
        (embedding.compare(PHOTO, [PHOTO, b"no"]), "candidates[1].image.encoded", "not an image"),
        (embedding.compare(PHOTO, [PHOTO], model="giant"), "model", "tiny"),
        (embedding.classify([], []), "labels", "is empty"),
        (embedding.classify([PHOTO], []), "labels", "is empty"),
        (embedding.classify([PHOTO], ["a", ""]), "labels[1]", "is empty"),
        (embedding.classify([PHOTO], ["a"] * 1025), "labels", "has 1025 labels; the limit is 1024"),
        (embedding.classify([PHOTO], ["a", LONG]), "labels[1]", "the limit is 77"),
        (changed(embedding.classify([PHOTO], ["a"]), {"top_k": 0}), "top_k", "1 or more"),
        (embedding.classify([PHOTO], ["a"], prompt_template="a photo"), "prompt_template", "0 times"),
        (embedding.classify([PHOTO], ["a"], prompt_template=""), "prompt_template", "0 times"),
        (embedding.classify([PHOTO], ["a"], prompt_template="{} or {}"), "prompt_template", "2 times"),
        (embedding.classify([PHOTO], ["a"], prompt_template="{}" + LONG * 25), "prompt_template", "10000"),
        (embedding.classify([PHOTO], ["a"], model="giant"), "model", "tiny"),
    ],
)  # fmt: skip
async def test_bad_requests_name_the_field(
    client: AsyncClient, operation: Operation[Any], field: str, says: str
) -> None:
    await assert_refused(client, operation, field, says)


async def test_what_is_neither_image_nor_text(client: AsyncClient) -> None:
    operation = embedding.compare(PHOTO, [Text("a"), PHOTO])
    for part, field in (("candidates", "candidates[1]"), ("subject", "subject")):
        without = copied(operation)
        request: Any = without.request
        (request.candidates[1] if part == "candidates" else request.subject).Clear()
        with pytest.raises(VisiongateError, match="set image or text") as caught:
            await client.call(without)
        assert (caught.value.code, caught.value.field) == (grpc.StatusCode.INVALID_ARGUMENT, field)


async def test_a_forgotten_image_is_named(client: AsyncClient) -> None:
    with pytest.raises(VisiongateError, match=r"images\[1\].image_id") as caught:
        await client.embed_images([PHOTO, ImageHandle(ImageId("0" * 64), 1, 1)])
    assert (caught.value.code, caught.value.reason) == (grpc.StatusCode.NOT_FOUND, "IMAGE_NOT_CACHED")


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("picture") / "coffee.png"
    Image.fromarray(PHOTO).save(path)
    return path


async def command(gateway: Gateway, *arguments: str | Path, code: int = 0) -> str:
    """What `visiongate` prints, asking the gateway of this process."""
    process = await asyncio.create_subprocess_exec(
        str(Path(sys.executable).parent / "visiongate"),
        *map(str, arguments),
        env=os.environ
        | {"VISIONGATE_SERVER": f"127.0.0.1:{gateway.port}", "COLUMNS": "200", "NO_COLOR": "1"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await process.communicate()
    assert process.returncode == code, output + errors
    return (errors if code else output).decode()


async def test_command_embed(gateway: Gateway, picture: Path, tmp_path: Path, reference: Reference) -> None:
    out = tmp_path / "new" / "vectors"
    answer = json.loads(await command(gateway, "embed", picture, picture, "--out", out, "--json"))
    assert [entry["photo"] for entry in answer] == [str(picture)] * 2
    np.testing.assert_allclose(np.load(out), reference.images([PHOTO] * 2), atol=TOLERANCE)
    np.testing.assert_allclose([entry["embedding"] for entry in answer], np.load(out), atol=1e-7)
    table = await command(gateway, "embed", "--text", "a cat", "--text", "a dog")
    assert "a dog" in table
    assert f"{reference.texts(['a dog'])[0, 0]:.4f}" in table
    assert "give photos, or texts" in await command(gateway, "embed", code=1)
    assert "give photos, or texts" in await command(gateway, "embed", picture, "--text", "a", code=1)


async def test_command_classify(gateway: Gateway, picture: Path, tmp_path: Path, client: AsyncClient) -> None:
    saved = tmp_path / "out.png"
    arguments: list[str | Path] = ["classify", picture, "cat", "cup", "red spoon", "--template", "my {}"]
    answer = json.loads(await command(gateway, *arguments, "--top-k", "2", "--json", "--save", saved))
    ((first, second),) = await client.classify(
        [PHOTO], ["cat", "cup", "red spoon"], prompt_template="my {}", top_k=2
    )
    assert answer == [first.as_dict(), second.as_dict()]
    drawn = np.asarray(Image.open(saved))
    assert drawn.shape == PHOTO.shape
    assert (drawn != PHOTO).any()
    assert f"{first.probability:.1%}" in await command(gateway, *arguments)


async def test_command_compare(gateway: Gateway, picture: Path, client: AsyncClient) -> None:
    answer = json.loads(await command(gateway, "compare", picture, "a cat", "a cup", "--json"))
    expected = await client.compare(PHOTO, [Text("a cat"), Text("a cup")])
    assert [entry["text"] for entry in answer] == ["a cat", "a cup"]
    np.testing.assert_allclose([entry["similarity"] for entry in answer], expected, atol=1e-6)
    assert f"{expected[1]:.3f}" in await command(gateway, "compare", picture, "a cat", "a cup")
