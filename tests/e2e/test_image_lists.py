"""Lists of images for detection, segmentation and gaze: each item as its single call, errors included."""

import asyncio
import io
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bad_input import encoded
from export.demo.scenes import Scene
from export.demo.unseen import unseen
from gateway.server import Gateway
from gateway.settings import Settings
from visiongate import AsyncClient, ImageHandle, ImageId, VisiongateError
from visiongate.operations import Operation, detection, everything, gaze, segmentation
from wire import assert_refused, changed, copied

PHRASES = ["red circle", "blue square", "yellow star", "green triangle"]
FORMATS = ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF"]
COUNT = 16
UNKNOWN = ImageHandle(ImageId("0" * 64), 1, 1)


@dataclass(frozen=True)
class Task:
    """A method for one image and that for many, of the client."""

    one: Callable[..., Operation[Any]]
    many: Callable[..., Operation[Any]]
    arguments: tuple[Any, ...] = ()
    keywords: tuple[tuple[str, Any], ...] = ()

    def single(self, image: Any) -> Operation[Any]:
        return self.one(image, *self.arguments, **dict(self.keywords))

    def list(self, images: Any, *, strict: bool = False) -> Operation[Any]:
        return self.many(images, *self.arguments, strict=strict, **dict(self.keywords))


TASKS = {
    "detect": Task(detection.detect, detection.detect_batch, (PHRASES,)),
    "phrases": Task(segmentation.segment_phrases, segmentation.segment_phrases_batch, (PHRASES,)),
    "everything": Task(
        everything.segment_everything,
        everything.segment_everything_batch,
        (),
        (("points_per_side", 3), ("min_predicted_iou", 0.5), ("min_stability_score", 0.5)),
    ),
    "gaze": Task(gaze.estimate_gaze, gaze.estimate_gaze_batch, (), (("min_score", 0.3),)),
}


@pytest.fixture(scope="module")
def files() -> list[Any]:
    """Scenes of 16 sizes: in all formats, as pixels, and as arrays of one colour channel."""
    drawn = [_file(scene, index) for index, scene in enumerate(unseen(COUNT - 1))]
    return [*drawn, np.asarray(Image.open(io.BytesIO(drawn[0])).convert("RGB"))]


def _file(scene: Scene, index: int) -> bytes:
    picture = Image.fromarray(scene.image)
    picture = picture.resize((picture.width - 24 * index, picture.height - 11 * index))
    return encoded(picture, FORMATS[index % len(FORMATS)])


@pytest.mark.parametrize("name", TASKS)
async def test_a_list_has_the_answers_of_single_calls(
    demo_client: AsyncClient, files: list[Any], name: str
) -> None:
    task = TASKS[name]
    singles = [await demo_client.call(task.single(file)) for file in files]
    answer = await demo_client.call(task.list(files))
    assert len(answer) == COUNT
    assert not answer.errors
    assert sum(map(len, singles)) > 3
    for index, single in enumerate(singles):
        assert answer.info.images[index] == single.info.image
        assert_same(answer[index], single)
    assert (answer.info.model, answer.info.detection_model) == (
        singles[0].info.model, singles[0].info.detection_model
    )  # fmt: skip


def assert_same(items: Any, single: Any) -> None:
    """The results are equal, as far as a model's numbers do not depend on what else is in its batch."""
    assert len(items) == len(single)
    for item, other in zip(items, single, strict=True):
        one, two = item.as_dict(), other.as_dict()
        for entry in (one, two):
            entry.pop("phrase", None)
        _assert_near(one, two)


def _assert_near(one: Any, two: Any) -> None:
    match one:
        case dict():
            assert one.keys() == two.keys()
            for key in one:
                _assert_near(one[key], two[key])
        case list():
            assert len(one) == len(two)
            for first, second in zip(one, two, strict=True):
                _assert_near(first, second)
        case float():
            assert one == pytest.approx(two, abs=0.02)
        case _:
            assert one == two


@pytest.mark.parametrize("name", TASKS)
async def test_each_broken_image_has_the_error_that_it_has_alone(
    demo_client: AsyncClient, files: list[Any], name: str
) -> None:
    task = TASKS[name]
    wide = encoded(Image.new("1", (20_000, 9_000)), "PNG")
    items = [files[0], b"", files[0][:200], b"not an image", wide, UNKNOWN, files[1]]
    answer = await demo_client.call(task.list(items))
    assert set(answer.errors) == set(range(1, len(items) - 1))
    for index, error in answer.errors.items():
        with pytest.raises(VisiongateError) as caught:
            await demo_client.call(task.single(items[index]))
        alone = caught.value
        assert (error.code, error.reason) == (alone.code, alone.reason)
        assert error.field == (alone.field or "").replace("image", f"images[{index}]", 1) or not alone.field
        assert error.message == alone.message.replace("image", f"images[{index}]", 1)
        assert not len(answer[index])
        assert answer.info.images[index] is None
    assert_same(answer[0], await demo_client.call(task.single(items[0])))
    assert_same(answer[-1], await demo_client.call(task.single(items[-1])))
    with pytest.raises(VisiongateError) as caught:
        await demo_client.call(task.list([files[0], files[1], files[2], b"not an image"], strict=True))
    assert caught.value.field == "images[3].encoded"


@pytest.mark.parametrize("name", TASKS)
async def test_an_empty_list_has_an_empty_answer(demo_client: AsyncClient, name: str) -> None:
    answer = await demo_client.call(TASKS[name].list([]))
    assert (len(answer), answer.errors, bool(answer.info.model)) == (0, {}, True)


@pytest.mark.parametrize("name", ["detect", "gaze"])
async def test_lists_side_by_side_do_not_mix(demo_client: AsyncClient, files: list[Any], name: str) -> None:
    task = TASKS[name]
    parts = [files[:3], files[3:5], files[5:8]]
    answers = await asyncio.gather(*(demo_client.call(task.list(part)) for part in parts))
    for part, answer in zip(parts, answers, strict=True):
        for file, items in zip(part, answer, strict=True):
            assert_same(items, await demo_client.call(task.single(file)))


@pytest.mark.parametrize("name", TASKS)
async def test_what_concerns_all_images_fails_the_call(
    demo_client: AsyncClient, files: list[Any], name: str
) -> None:
    task, small = TASKS[name], files[:2]
    wrong: dict[str, Any] = {
        "detect": {"model": "giant"},
        "phrases": {"segmentation_model": "giant"},
        "everything": {"points_per_side": 129},
        "gaze": {"query.min_score": 2.0},
    }[name]  # type: ignore[assignment]
    ((field, _),) = wrong.items()
    await assert_refused(demo_client, changed(copied(task.list(small)), wrong), field, "")


@pytest.fixture(scope="module")
async def limited(demo_settings: Settings) -> AsyncIterator[Callable[..., Awaitable[AsyncClient]]]:
    """Clients of gateways with other limits."""
    opened: list[Any] = []

    async def client(**limits: int) -> AsyncClient:
        gateway = await Gateway(demo_settings.model_copy(update=limits)).__aenter__()
        opened.append(gateway)
        connected = await AsyncClient(f"127.0.0.1:{gateway.port}").__aenter__()
        opened.append(connected)
        return connected

    yield client
    for each in reversed(opened):
        await each.__aexit__(None, None, None)


async def test_limits_of_a_list_are_refused_by_name(limited: Any, files: list[Any]) -> None:
    client = await limited(max_images=3, max_grid_points=20)
    for task in TASKS.values():
        await assert_refused(client, task.list(files[:4]), "images", "the limit is 3")
    everything = TASKS["everything"]
    assert len(await client.call(everything.list(files[:2]))) == 2
    await assert_refused(client, everything.list(files[:3]), "images", "27 points")


async def test_an_answer_that_is_too_large_is_an_item_s_or_the_list_s(limited: Any, files: list[Any]) -> None:
    """Alone too large: that image's error. Too large together: the call's."""
    task = TASKS["phrases"]
    singles = [await (await limited()).call(task.single(file)) for file in files[:6]]
    pixels = [len(found) * found.info.image.width * found.info.image.height for found in singles]
    largest = int(np.argmax(pixels))
    rest = sum(pixels) - pixels[largest]
    assert max(pixels) > 0
    client = await limited(max_mask_pixels=max(pixels) - 1)
    if rest < max(pixels):
        answer = await client.call(task.list(files[:6]))
        assert set(answer.errors) == {largest}
    await assert_refused(client, task.list([files[largest]], strict=True), "query.max_detections", "limit")
    answer = await client.call(task.list([files[largest], b""]))
    assert [error.field for error in answer.errors.values()] == ["query.max_detections", "images[1].encoded"]
    client = await limited(max_mask_pixels=max(pixels))
    await assert_refused(client, task.list([files[largest]] * 2), "images", "send fewer")
    assert len(await client.call(task.list([files[largest]]))) == 1


async def test_what_an_item_holds_is_released_with_it(limited: Any, files: list[Any]) -> None:
    """All images of this list together hold far more than a process may, a few at a time do not."""
    big = encoded(Image.open(io.BytesIO(files[0])).resize((1600, 1200)), "JPEG")
    client = await limited(max_bytes_in_flight=40 << 20, images_in_flight=2, max_message_bytes=8 << 20)
    answer = await client.call(TASKS["phrases"].list([big] * 8))
    single = await client.call(TASKS["phrases"].single(big))
    for items in answer:
        assert_same(items, single)
