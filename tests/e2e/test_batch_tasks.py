"""The tasks of jobs, and `visiongate.ray`, through a real gateway: each row as the single call's answer."""

import asyncio
import io
from collections.abc import AsyncIterator
from typing import Any

import grpc
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from bad_input import encoded
from export.demo import show
from export.demo.unseen import unseen
from gateway.server import Gateway
from gateway.settings import Settings
from visiongate import AsyncClient, Client, InvalidArgumentError, VisiongateError
from visiongate.batch.task import Row, Task
from visiongate.batch.tasks import make_task, probed

PHRASES = ["red circle", "blue square", "yellow star"]
GRID: dict[str, Any] = {"points_per_side": 3, "min_predicted_iou": 0.5, "min_stability_score": 0.5}
TASKS: dict[str, tuple[str, dict[str, Any]]] = {
    "embed": ("embed", {}),
    "embed16": ("embed", {"dtype": "float16", "normalize": False}),
    "classify": ("classify", {"labels": PHRASES, "top_k": 2}),
    "detect": ("detect", {"phrases": PHRASES}),
    "caption": ("detect", {"caption": "red circle. blue square."}),
    "phrases": ("segment", {"phrases": PHRASES}),
    "everything": ("segment", GRID),
    "ocr": ("ocr", {}),
    "gaze": ("gaze", {}),
}


@pytest.fixture(scope="module")
async def server(demo_settings: Settings) -> AsyncIterator[str]:
    async with Gateway(demo_settings) as gateway:
        yield f"127.0.0.1:{gateway.port}"


@pytest.fixture(scope="module")
def files() -> list[bytes]:
    """A scene of everything, a broken file, a scene that EXIF data turn upright, one of few things."""
    on_its_side = Image.Exif()
    on_its_side[0x0112] = 6
    first, second = (Image.fromarray(scene.image) for scene in (show.scene(0), unseen(1)[0]))
    return [
        encoded(first, "PNG"),
        b"not an image",
        encoded(first.rotate(90, expand=True), "JPEG", exif=on_its_side, quality=95),
        encoded(second, "JPEG", quality=95),
    ]


async def rows_of(task: Task, files: list[bytes], client: AsyncClient) -> list[Row | VisiongateError]:
    return list(task.rows(await client.call(task.operation(files))))


def table_of(task: Task, rows: list[Row | VisiongateError]) -> pa.Table:
    """The rows as a job writes them to a file."""
    entries = [row.values if isinstance(row, Row) else {} for row in rows]
    table = pa.table(
        {name: pa.array([entry.get(name) for entry in entries], kind)
         for name, kind in zip(task.columns.names, task.columns.types, strict=True)},
        schema=task.columns,
    )  # fmt: skip
    file = io.BytesIO()
    pq.write_table(table, file)
    return pq.read_table(io.BytesIO(file.getvalue()))


async def probed_task(name: str, server: str) -> Task:
    kind, settings = TASKS[name]

    def ask() -> Task:
        with Client(server) as client:
            return probed(make_task(kind, **settings), client)

    # In a thread: the gateway answers from this one.
    return await asyncio.to_thread(ask)


@pytest.mark.parametrize("name", TASKS)
async def test_each_row_is_as_if_its_file_were_alone(
    server: str, demo_client: AsyncClient, files: list[bytes], name: str
) -> None:
    task = await probed_task(name, server)
    together = await rows_of(task, files, demo_client)
    alone = [row for file in files for row in await rows_of(task, [file], demo_client)]
    failed = together.pop(1), alone.pop(1)
    for error in failed:
        assert isinstance(error, InvalidArgumentError)
        assert error.field == "image.encoded"
        assert not error.message.startswith("image")
        assert error.message
    width, height = Image.open(io.BytesIO(files[0])).size
    assert [(row.width, row.height) for row in together[:2] if isinstance(row, Row)] == [(width, height)] * 2
    assert_alike(table_of(task, together).to_pylist(), table_of(task, alone).to_pylist())


def assert_alike(one: Any, other: Any) -> None:
    """Equal; numbers may differ as much as a batch of another size rounds."""
    match one:
        case dict():
            assert one.keys() == other.keys()
            for name in one:
                assert_alike(one[name], other[name])
        case list():
            assert len(one) == len(other)
            for each, its in zip(one, other, strict=True):
                assert_alike(each, its)
        case float():
            assert one == pytest.approx(other, rel=1e-3, abs=1e-3)
        case _:
            assert one == other


async def test_the_columns_hold_what_the_client_returns(
    server: str, demo_client: AsyncClient, files: list[bytes]
) -> None:
    """To the last bit, from the first scene."""
    scene = files[:1]

    async def values(name: str) -> Any:
        task = await probed_task(name, server)
        [row] = table_of(task, await rows_of(task, scene, demo_client)).to_pylist()
        return row

    [vector] = await demo_client.embed_images(scene)
    np.testing.assert_array_equal(np.float32((await values("embed"))["embedding"]), vector)

    [scores] = await demo_client.classify(scene, PHRASES, top_k=2)
    labels = (await values("classify"))["labels"]
    assert [tuple(label.values()) for label in labels] == [
        (score.label, score.label_index, score.probability, score.similarity) for score in scores
    ]

    found = await demo_client.segment_phrases(scene[0], PHRASES)
    detections = (await values("phrases"))["detections"]
    assert len(found) == len(detections) == 3
    for item, detection in zip(found, detections, strict=True):
        assert item.mask
        assert (detection["phrase"], detection["phrase_index"]) == (item.phrase, item.phrase_index)
        assert detection["score"] == item.score
        assert list(detection["box"].values()) == item.box.tolist()
        assert detection["mask"]["rle"] == item.mask.rle
        assert detection["mask"]["area"] == item.mask.area == item.mask.pixels.sum()
        assert list(detection["mask"]["box"].values()) == item.mask.box.tolist()
        assert detection["mask"]["predicted_iou"] == item.mask.predicted_iou

    grid_masks = await demo_client.segment_everything(scene[0], **GRID)
    masks = (await values("everything"))["masks"]
    assert [mask["mask"]["rle"] for mask in masks] == [item.mask.rle for item in grid_masks] != []
    assert list(masks[0]["point"].values()) == grid_masks[0].point.tolist()
    assert masks[0]["stability_score"] == grid_masks[0].stability_score

    [page] = await demo_client.recognize_text(scene)
    read = await values("ocr")
    words = list(page.words())
    assert (read["text"], read["rotation_degrees"]) == (page.text, 0)
    assert [word["text"] for word in read["words"]] == [word.text for word in words]
    assert [[list(corner.values()) for corner in word["quadrilateral"]] for word in read["words"]] == [
        word.quadrilateral.tolist() for word in words
    ]
    assert [word["line"] for word in read["words"]] == [
        index for index, line in enumerate(page.blocks[0]) for _ in line
    ]

    [face] = await demo_client.estimate_gaze(scene[0])
    [entry] = (await values("gaze"))["faces"]
    assert face.landmarks
    assert (entry["score"], entry["yaw"], entry["pitch"]) == (face.score, face.yaw, face.pitch)
    assert list(entry["direction"].values()) == face.direction.tolist()
    assert {name: list(point.values()) for name, point in entry["landmarks"].items()} == {
        name: point.tolist() for name, point in face.landmarks.items()
    }


async def test_captions_have_no_index_of_a_phrase(
    server: str, demo_client: AsyncClient, files: list[bytes]
) -> None:
    task = await probed_task("caption", server)
    [row] = table_of(task, await rows_of(task, files[:1], demo_client)).to_pylist()
    assert row["detections"]
    assert {detection["phrase_index"] for detection in row["detections"]} == {None}


async def test_a_probe_finds_what_the_server_refuses(server: str) -> None:
    refused: dict[str, tuple[str, dict[str, Any]]] = {
        "prompt_template": ("classify", {"labels": ["cat"], "prompt_template": "a photo"}),
        "labels": ("classify", {"labels": []}),
        "model": ("ocr", {"model": "none"}),
        "query": ("detect", {}),
    }

    def ask() -> None:
        with Client(server) as client:
            for field, (name, settings) in refused.items():
                with pytest.raises(VisiongateError) as caught:
                    probed(make_task(name, **settings), client)
                assert caught.value.field.startswith(field), caught.value

    await asyncio.to_thread(ask)


async def test_a_probe_tells_how_long_embeddings_are(server: str, demo_client: AsyncClient) -> None:
    [vector] = await demo_client.embed_images([np.zeros((4, 4, 3), np.uint8)])
    task = await probed_task("embed16", server)
    assert task.columns.field("embedding").type == pa.list_(pa.float16(), len(vector))
    # A file of failures alone has the same columns as any other.
    error = VisiongateError(grpc.StatusCode.NOT_FOUND, "no image")
    assert table_of(task, [error]).schema.types == task.columns.types
