"""What the SDK asks about the server."""

from importlib.metadata import version

import httpx

from recorded_calls import answer
from visiongate import AsyncClient


async def test_info(sdk_http: httpx.AsyncClient) -> None:
    first, second = [(await sdk_http.get("/info")).json() for _ in range(2)]
    assert (first["name"], first["version"]) == ("visiongate", version("visiongate-server"))
    assert first["uuid"] == second["uuid"] != ""


async def test_the_registry_lists_what_is_ready(
    sdk_http: httpx.AsyncClient, demo_client: AsyncClient
) -> None:
    found = (await answer(sdk_http, "registry", b""))["models"]
    expected = await demo_client.list_models()
    assert [each["model_id"] for each in found] == [f"{each.family}/{each.variant}" for each in expected]
    tasks = {each["model_id"].partition("/")[0]: each["task_type"] for each in found}
    assert tasks["grounding_dino"] == "object-detection"
    assert (tasks["clip"], tasks["sam"], tasks["doctr"], tasks["gaze"]) == ("embed", "embed", "ocr", "gaze")
    assert all(each["input_width"] == each["input_height"] > 0 for each in found)
