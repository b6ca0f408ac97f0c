"""The unmodified inference-sdk against a gateway with the demo models. `make compat` runs this.

Each version is in a Python environment of its own: it needs packages that would disturb the project's.
"""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import supervision
from pycocotools import mask as coco

from export.demo import show
from gateway.api_keys import ApiKey, write_keys
from gateway.settings import Settings
from http_front import serving
from recorded_calls import png
from visiongate import AsyncClient, Text

ENVIRONMENTS = Path(sys.prefix).parent / "build" / "compat"
CALLS = Path(__file__).parent / "sdk_calls.py"
PICTURE = png(show.scene(0).image)


@pytest.fixture(scope="module")
async def url_and_key(
    demo_settings: Settings, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Any]:
    key, text = ApiKey.generate("tester")
    path = tmp_path_factory.mktemp("keys") / "keys.toml"
    write_keys(path, [key])
    settings = demo_settings.model_copy(update={"inference_sdk_routes": True, "api_keys": path})
    async with serving(settings) as front:
        yield front.url, text


async def answers(version: str, url_and_key: tuple[str, str], folder: Path) -> Any:
    """What the calls of a version of the SDK return."""
    (folder / "picture.png").write_bytes(PICTURE)
    process = await asyncio.create_subprocess_exec(
        *(ENVIRONMENTS / version / "bin" / "python", CALLS, "call", *url_and_key, folder / "picture.png"),
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await process.communicate()
    assert process.returncode == 0
    return json.loads(output)


@pytest.fixture(scope="module")
async def found(url_and_key: tuple[str, str], tmp_path_factory: pytest.TempPathFactory) -> Any:
    return await answers("1.8.3", url_and_key, tmp_path_factory.mktemp("1.8.3"))


async def test_clip(found: Any, demo_client: AsyncClient) -> None:
    # The SDK sends the picture as JPEG.
    image = await demo_client.embed_images([PICTURE], normalize=False)
    texts = await demo_client.embed_texts(["a red circle", "a face"], normalize=False)

    def assert_alike(one: Any, other: Any) -> None:
        cosine = np.vdot(one, other) / np.linalg.norm(one) / np.linalg.norm(other)
        assert cosine > 0.98
        assert np.linalg.norm(one) == pytest.approx(np.linalg.norm(other), rel=0.05)

    assert_alike(found["clip_embed_image"]["embeddings"], image)
    assert len(found["clip_embed_images"]) == 2
    for each in found["clip_embed_images"]:
        assert_alike(each["embeddings"], image)
    for name in ("clip_embed_text", "clip_embed_text_header", "clip_embed_text_async"):
        np.testing.assert_allclose(found[name]["embeddings"], texts[:1], atol=1e-5)
    np.testing.assert_allclose(found["clip_embed_texts"]["embeddings"], texts, atol=1e-5)
    cosines = await demo_client.compare(PICTURE, [Text("a red circle"), Text("a face")])
    assert found["clip_compare_texts"]["similarity"] == pytest.approx(list(cosines), abs=0.05)
    assert found["clip_compare_images"]["similarity"] == pytest.approx([cosines[1]] * 2, abs=0.05)
    assert found["clip_compare_named"]["similarity"].keys() == {"one", "two"}


async def test_text(found: Any) -> None:
    assert set(found["ocr"]["result"].split()) >= {"Triton", "sees", "2026"}
    detections = supervision.Detections.from_inference(found["ocr_boxes"])
    assert set(detections.data["class_name"]) >= {"Triton", "sees", "2026"}


async def test_detection(found: Any) -> None:
    detections = supervision.Detections.from_inference(found["yolo_world"][0])
    assert set(detections.data["class_name"]) == {"red circle", "blue square"}


async def test_masks(found: Any) -> None:
    [runs] = found["sam2_rle"]["predictions"]
    assert coco.decode(runs["masks"])[252, 136] == 1
    for name in ("sam2_polygons", "sam3_visual"):
        [prediction] = found[name]["predictions"]
        outline = np.array(prediction["masks"][0], np.int32)
        assert supervision.polygon_to_mask(outline, resolution_wh=(800, 600))[252, 136] == 1
    concepts = supervision.Detections.from_sam3(found["sam3_concept"], resolution_wh=(800, 600))
    assert np.asarray(concepts.mask)[0, 252, 136]
    assert found["sam3_embed"]["image_id"]


async def test_the_server_and_its_errors(found: Any) -> None:
    assert found["info"]["name"] == "visiongate"
    assert "clip/demo" in [model["model_id"] for model in found["registry"]["models"]]
    assert found["wrong"] == {"status": 400, "message": found["wrong"]["message"]}
    assert found["wrong"]["message"].startswith("text[1]: is empty")
    assert found["not_served"]["status"] == 501


async def test_the_last_version_that_asks_for_gaze(url_and_key: tuple[str, str], tmp_path: Path) -> None:
    # A list for each picture; this version adds them up.
    [found] = (await answers("1.2.7", url_and_key, tmp_path))["gaze"]
    [face] = found["predictions"]
    assert face["face"]["x"] == pytest.approx(0.8 * 800, abs=40)
    assert face["yaw"] == pytest.approx(np.radians(28), abs=0.35)
