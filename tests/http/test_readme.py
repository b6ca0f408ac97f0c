"""Every curl line of HTTP.md is run as it is written, against the demo models."""

import asyncio
import json
import re
import shutil
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

README = Path(__file__).parents[2] / "gateway" / "HTTP.md"
LINES = re.findall(r"^curl .*$", README.read_text(), re.MULTILINE)
SCENE = Path(__file__).parents[2] / "export" / "demo" / "demo.png"


def test_there_are_lines() -> None:
    assert len(LINES) > 8


@pytest.mark.parametrize("line", LINES)
async def test_curl_lines(line: str, demo_http: httpx.AsyncClient, tmp_path: Path) -> None:
    if shutil.which("curl") is None:
        pytest.skip("this machine has no curl")
    for name in ("photo.jpg", "other.jpg"):
        shutil.copy(SCENE, tmp_path / name)
    at = f"{demo_http.base_url.host}:{demo_http.base_url.port}"
    process = await asyncio.create_subprocess_shell(
        line.replace("127.0.0.1:8080", at).replace(
            "curl ", "curl --silent --show-error --fail-with-body ", 1
        ),
        cwd=tmp_path,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await process.communicate()
    assert process.returncode == 0, (output, errors)
    if "mask.png" in line:
        with Image.open(tmp_path / "mask.png") as mask:
            assert np.asarray(mask).any()
    elif "vectors.npy" in line:
        assert np.load(tmp_path / "vectors.npy").shape[0] == 2
    else:
        answer = json.loads(output)
        assert any(answer.values())
        assert "error" not in str(answer)


def test_every_reason_of_the_front_is_listed() -> None:
    """Beside those that gRPC has, too."""
    sources = (README.parent / "http").rglob("*.py")
    reasons = {reason for path in sources for reason in re.findall(r'reason="([A-Z_]+)"', path.read_text())}
    assert "FOREIGN_HOST" in reasons
    known = README.read_text() + (README.parents[1] / "proto" / "README.md").read_text()
    assert {reason for reason in reasons if f"`{reason}`" not in known} == set()
