"""What inference-sdk sent, as tests/compat/record.py wrote it down."""

import base64
import io
import json
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from numpy.typing import NDArray
from PIL import Image

FOLDER = Path(__file__).parent / "http" / "recorded"
PICTURE = "PICTURE"


def png(pixels: NDArray[np.uint8]) -> bytes:
    """The file of a picture."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


async def send(client: httpx.AsyncClient, name: str, picture: bytes, **changes: Any) -> httpx.Response:
    """Send a recorded request, with other fields in its body if that is told; None takes a field away."""
    recorded = json.loads((FOLDER / f"{name}.json").read_text())
    body = _with_picture(recorded["body"], base64.b64encode(picture).decode())
    if changes:
        body = {name: value for name, value in {**body, **changes}.items() if value is not None}
    content = None if body is None else json.dumps(body)
    return await client.request(
        recorded["method"], recorded["path"], headers=recorded["headers"], content=content
    )


async def answer(client: httpx.AsyncClient, name: str, picture: bytes, **changes: Any) -> Any:
    """The answer to a recorded request, which must be one."""
    response = await send(client, name, picture, **changes)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/json"
    return response.json()


async def refusal(client: httpx.AsyncClient, name: str, picture: bytes, **changes: Any) -> tuple[int, str]:
    """The status and the words of a refused request, in the one form that the SDK reads."""
    response = await send(client, name, picture, **changes)
    assert response.headers["content-type"] == "application/json"
    body = response.json()
    assert body.keys() == {"message"}
    return response.status_code, body["message"]


def _with_picture(tree: Any, picture: str) -> Any:
    if isinstance(tree, dict):
        return {name: _with_picture(value, picture) for name, value in tree.items()}
    if isinstance(tree, list):
        return [_with_picture(value, picture) for value in tree]
    return picture if tree == PICTURE else tree
