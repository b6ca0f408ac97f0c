"""`visiongate mcp` as assistants run it: a process, the protocol's own client, and a real gateway."""

import asyncio
import base64
import io
import json
import math
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import httpx
import numpy as np
import pytest
from mcp.client import Client
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp_types import CallToolResult, ImageContent, TextContent
from numpy.typing import NDArray
from PIL import Image

from export.demo import scenes, show
from export.demo.agreement import right_boxes
from gateway.server import Gateway
from gateway.settings import Settings

COMMAND = str(Path(sys.executable).parent / "visiongate")
# No proxy of the machine that the tests run on.
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}


@dataclass(frozen=True)
class Seen:
    """A tool's answer as an assistant has it: data, and the picture if there is one."""

    data: dict[str, Any]
    picture: NDArray[np.uint8] | None


def seen(result: CallToolResult) -> Seen:
    assert not result.is_error, result.content
    text, *pictures = result.content
    assert isinstance(text, TextContent)
    data = json.loads(text.text)
    assert data == result.structured_content
    if not pictures:
        return Seen(data, None)
    [picture] = pictures
    assert isinstance(picture, ImageContent)
    assert picture.mime_type == "image/jpeg"
    with Image.open(io.BytesIO(base64.b64decode(picture.data))) as image:
        assert image.format == "JPEG"
        return Seen(data, np.asarray(image.convert("RGB")))


def error(result: CallToolResult) -> str:
    assert result.is_error
    [text] = result.content
    assert isinstance(text, TextContent)
    return text.text


def drawn(picture: NDArray[np.uint8] | None, image: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Where a picture differs from its image by more than JPEG does: bool [H, W]."""
    assert picture is not None
    assert picture.shape == image.shape
    differences: NDArray[np.int64] = np.abs(picture.astype(np.int64) - image)
    return np.asarray(differences.max(2) > 60)


@pytest.fixture(scope="module")
def scene() -> scenes.Scene:
    return show.scene(0)


@pytest.fixture(scope="module")
def root(scene: scenes.Scene, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the scene, the scene at four times its size, and an image of nothing."""
    folder = tmp_path_factory.mktemp("pictures")
    picture = Image.fromarray(scene.image)
    picture.save(folder / "scene.png")
    (folder / "large").mkdir()
    picture.resize((3200, 2400)).save(folder / "large" / "scene.jpg", quality=95)
    Image.new("RGB", (320, 240), "white").save(folder / "white.png")
    (folder / "text.png").write_text("no image")
    return folder


@pytest.fixture(scope="module")
async def server(demo_settings: Settings) -> AsyncIterator[str]:
    async with Gateway(demo_settings) as gateway:
        yield f"127.0.0.1:{gateway.port}"


@asynccontextmanager
async def assistant(server: str, *arguments: str, log: TextIO) -> AsyncIterator[Client]:
    """A client of `visiongate mcp`, over its standard input and output."""
    command = StdioServerParameters(
        command=COMMAND, args=["mcp", "--server", server, *arguments], env=ENVIRONMENT
    )
    async with Client(stdio_client(command, errlog=log)) as client:
        yield client


def iou(box: list[int], other: NDArray[np.floating]) -> float:
    """The intersection over union of two boxes."""
    first = np.array(box, float)
    sides = np.minimum(first[2:], other[2:]) - np.maximum(first[:2], other[:2])
    both = sides.clip(0).prod()
    return float(both / ((first[2:] - first[:2]).prod() + (other[2:] - other[:2]).prod() - both))


async def test_objects_are_found_and_cut_out(
    server: str, scene: scenes.Scene, root: Path, tmp_path: Path
) -> None:
    star = next(thing for thing in scene.things if thing.shape == "star")
    with (tmp_path / "log").open("w+") as log:
        async with assistant(server, "--root", str(root), log=log) as client:

            async def call(tool: str, **arguments: Any) -> Seen:
                return seen(await client.call_tool(tool, {"image": "scene.png"} | arguments))

            found = await call("detect_objects", phrases=[thing.phrase for thing in scene.things])
            boxes = [(item["phrase"], np.array(item["box"])) for item in found.data["objects"]]
            assert right_boxes(scene, boxes) == len(scene.things)
            assert (found.data["width"], found.data["height"]) == show.SIZE
            assert drawn(found.picture, scene.image).any()

            cut = await call("segment_objects", phrases=[star.phrase])
            [item] = cut.data["objects"]
            assert item["area"] == pytest.approx(star.mask.sum(), rel=0.15)
            changed = drawn(cut.picture, scene.image)
            # The star is coloured, and besides a box and a caption nothing else.
            assert changed[star.mask].mean() > 0.3
            assert changed[~star.mask].mean() < 0.05

            middle = ((star.box[:2] + star.box[2:]) / 2).tolist()
            for prompt in ({"points": [middle]}, {"box": star.box.tolist(), "background_points": [[5, 5]]}):
                at = await call("segment_at", **prompt)
                assert at.data["area"] == pytest.approx(star.mask.sum(), rel=0.15)
                assert iou(at.data["box"], star.box) > 0.6
                assert drawn(at.picture, scene.image)[star.mask].any()
        log.seek(0)
        assert log.read() == ""


async def test_text_labels_gazes_and_models(
    server: str, scene: scenes.Scene, root: Path, tmp_path: Path
) -> None:
    with (tmp_path / "log").open("w+") as log:
        async with assistant(server, "--root", str(root), log=log) as client:

            async def call(tool: str, **arguments: Any) -> Seen:
                return seen(await client.call_tool(tool, {"image": "scene.png"} | arguments))

            page = await call("read_text", with_boxes=True)
            assert {word.text for word in scene.words} <= set(page.data["text"].split())
            [line] = [line for line in page.data["lines"] if line["text"] == "Triton"]
            assert iou(line["box"], scene.words[0].box) > 0.6
            assert drawn(page.picture, scene.image).any()

            labels = ["a red circle", "a page of text"]
            fits = await call("classify_image", labels=labels)
            assert {entry["label"] for entry in fits.data["labels"]} == set(labels)
            assert sum(entry["probability"] for entry in fits.data["labels"]) == pytest.approx(1, abs=0.01)
            assert drawn(fits.picture, scene.image).any()

            gazes = await call("estimate_gaze")
            [face] = gazes.data["faces"]
            yaw, pitch = map(math.degrees, scene.faces[0].yaw_pitch)
            assert (face["yaw_degrees"], face["pitch_degrees"]) == pytest.approx((yaw, pitch), abs=12)
            assert drawn(gazes.picture, scene.image).any()

            ranked = await call("rank_images", images=["white.png", "text.png", "scene.png"])
            first, second, bad = ranked.data["images"]
            assert first == {"index": 2, "similarity": 1}
            assert second["index"] == 0
            assert bad["index"] == 1
            assert bad["error"].startswith("images[1].encoded: ")
            assert ranked.picture is None
            words = await client.call_tool("rank_images", {"images": ["white.png"], "text": "a red circle"})
            assert -1 < seen(words).data["images"][0]["similarity"] < 1

            models = seen(await client.call_tool("list_models", {}))
            assert {"grounding_dino", "sam", "clip"} <= {model["family"] for model in models.data["models"]}
        log.seek(0)
        assert log.read() == ""


async def test_images_large_small_and_as_data(
    server: str, scene: scenes.Scene, root: Path, tmp_path: Path
) -> None:
    arguments = {"phrases": [scene.things[0].phrase]}
    with (tmp_path / "log").open("w+") as log:
        async with assistant(server, "--root", str(root), log=log) as client:

            async def detect(image: str, **more: Any) -> CallToolResult:
                return await client.call_tool("detect_objects", {"image": image} | arguments | more)

            large = seen(await detect("large/scene.jpg"))
            # The data is about the image itself, the picture is smaller.
            assert (large.data["width"], large.data["height"]) == (3200, 2400)
            assert iou(large.data["objects"][0]["box"], 4 * scene.things[0].box) > 0.7
            assert large.picture is not None
            assert large.picture.shape == (768, 1024, 3)
            assert seen(await detect("scene.png", with_picture=False)).picture is None

            encoded = base64.b64encode((root / "scene.png").read_bytes()).decode()
            by_path = seen(await detect("scene.png"))
            for image in (encoded, f"data:image/png;base64,{encoded}", str(root / "scene.png")):
                assert seen(await detect(image)).data == by_path.data

            nothing = seen(await detect("white.png"))
            assert nothing.data["objects"] == []
            assert "lower min_score" in nothing.data["note"]
            assert nothing.picture is not None

            assert "image.encoded: " in error(await detect("text.png"))
            assert "is not below" in error(await detect("../../etc/passwd"))
            assert "and none is taken" in error(await detect("https://a.test/b.png"))
            empty = error(await detect("white.png", phrases=[" "]))
            assert "tool detect_objects: phrases.values[0]: is empty" in empty
            assert "tool detect_objects: model: " in error(await detect("white.png", model="x"))


async def test_addresses_go_to_the_server_whose_settings_decide(
    server: str, root: Path, tmp_path: Path
) -> None:
    with (tmp_path / "log").open("w+") as log:
        async with assistant(server, "--allow-uris", log=log) as client:
            said = error(await client.call_tool("read_text", {"image": "https://a.test/b.png"}))
            assert "tool read_text: image.uri: is not taken by this server" in said
            asked = {"image": str(root / "scene.png")}
            assert "no files are read here" in error(await client.call_tool("read_text", asked))


async def test_a_server_that_is_away_is_said_and_found_again(demo_settings: Settings, tmp_path: Path) -> None:
    async with Gateway(demo_settings) as gateway:
        port = gateway.port
    with (tmp_path / "log").open("w+") as log:
        async with assistant(f"127.0.0.1:{port}", log=log) as client:
            away = f"nothing answers at 127.0.0.1:{port}"
            assert away in error(await client.call_tool("list_models", {}))
            for _restart in range(2):
                async with Gateway(demo_settings.model_copy(update={"port": port})):
                    # The connection is made anew within a second or so.
                    for _attempt in range(200):
                        result = await client.call_tool("list_models", {})
                        if not result.is_error:
                            break
                        await asyncio.sleep(0.1)
                    assert seen(result).data["models"]
                assert f"127.0.0.1:{port}" in error(await client.call_tool("list_models", {}))


@asynccontextmanager
async def over_http(server: str) -> AsyncIterator[str]:
    """The address of a `visiongate mcp` over HTTP, which ends on SIGTERM."""
    process = await asyncio.create_subprocess_exec(
        COMMAND,
        "mcp",
        "--server",
        server,
        "--http-port",
        "0",
        stderr=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    assert process.stdout is not None
    try:
        line = (await process.stderr.readline()).decode()
        found = re.fullmatch(r"MCP at (http://127\.0\.0\.1:\d+/mcp)\n", line)
        assert found, line
        yield found[1]
    finally:
        process.terminate()
        # Both are read to their ends.
        printed = await process.communicate()
    assert process.returncode == 128 + signal.SIGTERM
    assert printed[0] == b""
    assert b"Traceback" not in printed[1]


async def test_over_http_image_data_alone_is_taken(server: str, scene: scenes.Scene, root: Path) -> None:
    phrase = scene.things[0].phrase
    async with over_http(server) as address, Client(address) as client:
        # Noise cannot be compressed: larger than the 4 MiB that the package takes by default.
        noise = np.random.default_rng(0).integers(0, 256, (1400, 1400, 3), np.uint8)
        noise[:600, :800] = scene.image
        file = io.BytesIO()
        Image.fromarray(noise).save(file, "PNG")
        encoded = base64.b64encode(file.getvalue()).decode()
        assert len(encoded) > 5 << 20
        for image in (encoded, base64.b64encode((root / "scene.png").read_bytes()).decode()):
            found = seen(await client.call_tool("detect_objects", {"image": image, "phrases": [phrase]}))
            assert found.picture is not None
        assert iou(found.data["objects"][0]["box"], scene.things[0].box) > 0.7
        for image in (str(root / "scene.png"), "scene.png", f"file://{root}/scene.png"):
            result = await client.call_tool("read_text", {"image": image})
            assert "no files are read here" in error(result) or "and none is taken" in error(result)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"host": "evil.test"}, 421),
        ({"host": "evil.test:80"}, 421),
        ({"origin": "http://evil.test"}, 403),
        ({"origin": "null"}, 403),
        ({"content-type": "text/plain"}, 400),
    ],
)
async def test_web_pages_of_others_do_not_get_in(
    http_address: str, headers: dict[str, str], status: int
) -> None:
    request = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}
    usual = {"accept": "application/json, text/event-stream", "content-type": "application/json"}
    async with httpx.AsyncClient(trust_env=False) as client:
        answer = await client.post(http_address, content=json.dumps(request), headers=usual | headers)
    assert answer.status_code == status, answer.text
    assert "access-control-allow-origin" not in answer.headers


@pytest.fixture(scope="module")
async def http_address() -> AsyncIterator[str]:
    async with over_http("127.0.0.1:9") as address:
        yield address


@pytest.mark.parametrize("ending", ["input", signal.SIGTERM, signal.SIGINT])
async def test_the_process_ends_with_its_input_and_on_signals(ending: str | signal.Signals) -> None:
    process = await asyncio.create_subprocess_exec(
        COMMAND,
        "mcp",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    request = {"jsonrpc": "2.0", "id": 1, "method": "ping", "params": {}}
    process.stdin.write(json.dumps(request).encode() + b"\n")
    # It is at work, and waits for the next message.
    assert json.loads(await process.stdout.readline())["id"] == 1
    if isinstance(ending, signal.Signals):
        process.send_signal(ending)
        async with asyncio.timeout(10):
            assert await process.wait() == 128 + ending
    else:
        process.stdin.close()
        async with asyncio.timeout(10):
            assert await process.wait() == 0
    assert process.stderr is not None
    assert await process.stderr.read() == b""


async def test_a_port_that_is_taken_is_one_sentence(http_address: str) -> None:
    port = http_address.rpartition(":")[2].removesuffix("/mcp")
    process = await asyncio.create_subprocess_exec(
        COMMAND, "mcp", "--http-port", port, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    _, said = await process.communicate()
    assert process.returncode == 1
    assert f"--http-port {port}: " in said.decode()
    assert "Traceback" not in said.decode()
