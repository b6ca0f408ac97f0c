"""`visiongate.ray.Ask` through a real gateway, without Ray: batches in, batches out."""

import asyncio
import pickle
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from bad_input import encoded
from export.demo import show
from gateway.server import Gateway
from gateway.settings import Settings
from visiongate import AsyncClient, Client, UnavailableError, VisiongateError
from visiongate.answer import AnswerInfo, ArrayAnswer, ImageInfo
from visiongate.ray import Ask

PICTURE = Image.fromarray(show.scene(0).image)
FILE = encoded(PICTURE, "PNG")
SMALL = np.asarray(PICTURE.resize((200, 150)))
PHRASES = ["red circle", "blue square"]


@pytest.fixture(scope="module")
async def server(demo_settings: Settings) -> AsyncIterator[str]:
    async with Gateway(demo_settings) as gateway:
        yield f"127.0.0.1:{gateway.port}"


async def asked(ask: Ask, batch: Any) -> Any:
    # In a thread: the gateway answers from this one.
    return await asyncio.to_thread(ask, batch)


async def test_a_table_keeps_its_columns_and_has_the_answers(server: str, demo_client: AsyncClient) -> None:
    table = pa.table({"name": ["a", "b", "c", "d"], "bytes": [FILE, b"not an image", None, FILE]})
    ask = Ask("detect", settings={"phrases": PHRASES}, server=server)
    answered = await asked(ask, table)
    assert answered.select(["name", "bytes"]).equals(table)
    assert answered.schema.names == ["name", "bytes", *ask.schema.names]
    assert ask.schema.names == ["status", "error_message", "width", "height", "detections"]
    rows = answered.to_pylist()
    assert [row["status"] for row in rows] == ["OK", "INVALID_ARGUMENT", "INVALID_ARGUMENT", "OK"]
    assert rows[2]["error_message"] == "there is no image"
    assert rows[1]["error_message"]
    assert not rows[1]["error_message"].startswith("image")
    assert [(row["width"], row["detections"] is None) for row in rows] == [
        (800, False), (None, True), (None, True), (800, False)
    ]  # fmt: skip
    found = await demo_client.detect(FILE, PHRASES)
    for row in (rows[0], rows[3]):
        assert [entry["phrase"] for entry in row["detections"]] == found.phrases
        boxes = [list(entry["box"].values()) for entry in row["detections"]]
        np.testing.assert_allclose(boxes, found.xyxy, atol=0.1)


async def test_every_form_of_image_has_its_row(server: str, tmp_path: Path) -> None:
    path = tmp_path / "scene.png"
    path.write_bytes(FILE)
    images = [
        FILE,
        {"bytes": FILE, "path": None},
        {"bytes": None, "path": str(path)},
        str(path),
        np.asarray(PICTURE),
        PICTURE,
        str(tmp_path / "none.png"),
        3,
        b"",
        np.zeros((4, 4), np.float32),
    ]
    answered = await asked(Ask("embed", server=server), {"bytes": images, "id": list(range(len(images)))})
    assert answered["id"] == list(range(len(images)))
    assert answered["status"] == ["OK"] * 6 + ["NOT_FOUND"] + ["INVALID_ARGUMENT"] * 3
    assert answered["error_message"][6] == f"the image: there is no file '{tmp_path}/none.png'"
    for vector in answered["embedding"][1:6]:
        np.testing.assert_allclose(vector, answered["embedding"][0], atol=1e-4)
    assert answered["embedding"][6:] == [None] * 4


async def test_batches_of_failures_alone_have_the_same_columns(server: str) -> None:
    """What joins tables of several batches needs the same types in all."""
    ask = Ask("embed", settings={"dtype": "float16"}, column="image", prefix="clip_", server=server)
    good = await asked(ask, pa.table({"image": [FILE]}))
    bad = await asked(ask, pa.table({"image": pa.array([None], pa.binary())}))
    none = await asked(ask, pa.table({"image": pa.array([], pa.binary())}))
    assert good.schema == bad.schema == none.schema
    assert pa.concat_tables([good, none, bad])["clip_status"].to_pylist() == ["OK", "INVALID_ARGUMENT"]
    assert good.schema.field("clip_embedding").type.value_type == pa.float16()


async def test_more_images_than_a_request_has_room_for_keep_their_order(server: str) -> None:
    sizes = [(150 + index, 100) for index in range(70)]
    pictures = [encoded(Image.new("RGB", size), "PNG") for size in sizes]
    pictures[33] = b"broken"
    answered = await asked(Ask("embed", server=server), {"bytes": np.array(pictures, object)})
    widths = [width for width, _ in sizes]
    assert answered["width"] == [*widths[:33], None, *widths[34:]]


async def test_a_pickled_one_asks_the_same(server: str) -> None:
    ask = Ask("embed", server=server, column="image")
    before = await asked(ask, {"image": [SMALL]})
    again = pickle.loads(pickle.dumps(ask))
    assert (
        pickle.dumps(again) == pickle.dumps(ask) == pickle.dumps(Ask("embed", server=server, column="image"))
    )
    assert await asked(again, {"image": [SMALL]}) == before


@pytest.mark.parametrize(
    ("batch", "kind", "sentence"),
    [
        ({"file": [FILE]}, KeyError, "the batch has no column 'bytes': its columns are file"),
        ({"bytes": [FILE], "status": [1]}, ValueError, "the batch has a column 'status' already: rename it"),
        ([FILE], TypeError, "a batch is a pyarrow.Table or a dict, not list"),
    ],
)
async def test_a_batch_that_does_not_fit_is_a_sentence(
    server: str, batch: Any, kind: type[Exception], sentence: str
) -> None:
    with pytest.raises(kind) as caught:
        await asked(Ask("embed", server=server), batch)
    assert caught.value.args[0].startswith(sentence)


async def test_what_is_wrong_with_all_the_work_raises(server: str) -> None:
    with pytest.raises(TypeError, match=r"^embed has no setting labels"):
        Ask("embed", settings={"labels": []})
    with pytest.raises(VisiongateError, match="model"):
        await asked(Ask("embed", settings={"model": "none"}, server=server), {"bytes": [FILE]})
    with pytest.raises(UnavailableError):
        await asked(Ask("embed", server="127.0.0.1:1", timeout=5), {"bytes": [FILE]})


async def test_an_image_that_no_request_can_hold_fails_alone(server: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (300, 300, 3), np.uint8)
    large = encoded(Image.fromarray(noise), "PNG")
    ask = Ask("embed", server=server, max_message_bytes=len(large))
    answered = await asked(ask, {"bytes": [SMALL, large, SMALL]})
    assert answered["status"] == ["OK", "RESOURCE_EXHAUSTED", "OK"]
    assert "the limit is" in answered["error_message"][1]


@pytest.mark.parametrize("is_there", [True, False])
def test_a_server_that_is_gone_is_no_fault_of_an_image(
    monkeypatch: pytest.MonkeyPatch, is_there: bool
) -> None:
    """An image that a living server never answers has a row; without a server the work ends."""
    error = UnavailableError(grpc.StatusCode.UNAVAILABLE, "nothing answers")

    class OneImageKills(Client):
        def call(self, operation: Any) -> Any:
            if operation.method.endswith("ListModels") and not is_there:
                raise error
            return answer(())

        def stream(self, operations: Any, **_: Any) -> Any:
            for key, operation in operations:
                files = [image.encoded for image in operation.request.images]
                yield key, error if b"killer" in files else answer(files)

    def answer(files: Sequence[bytes]) -> ArrayAnswer:
        images = tuple(ImageInfo("", len(file), 1) for file in files)
        return ArrayAnswer(np.zeros((len(files), 2), np.float32), AnswerInfo(images=images))

    monkeypatch.setattr("visiongate.ray.Client", OneImageKills)
    ask = Ask("embed")
    if not is_there:
        with pytest.raises(UnavailableError):
            ask({"bytes": [b"1", b"killer", b"333"]})
        return
    answered = ask({"bytes": [b"1", b"killer", b"333"]})
    assert answered["status"] == ["OK", "UNAVAILABLE", "OK"]
    assert answered["width"] == [1, None, 3]
