"""The front answers drawn requests as its own OpenAPI document says, those that the document forbids too."""

import asyncio
import os
import re
import sys
from pathlib import Path

import httpx

from gateway.http import api
from gateway.services.registry import SERVICES

HERE = Path(__file__).parent
CONFIG = f"""
hooks = "{HERE / "schemathesis_hooks.py"}"

# A drawn x-timeout-s is often too short.
[checks.not_a_server_error]
expected-statuses = ["2xx", "4xx", "504"]

# It wants that whatever fits the schemas is accepted. A drawn id of an image is not.
[checks.positive_data_acceptance]
enabled = false

# All that can be wrong with a request in turn, in hundreds of requests, is tried with one method. It requires
# no field, so that a request is refused for what is wrong with it alone.
[[operations]]
exclude-operation-id = ["RecognizeText"]
phases.coverage.enabled = false
"""
RUN = ("--max-examples", "8", "--generation-deterministic", "--phases", "examples,coverage,fuzzing")


async def test_the_front_answers_as_its_document_says(http: httpx.AsyncClient, tmp_path: Path) -> None:
    config = tmp_path / "schemathesis.toml"
    config.write_text(CONFIG)
    program = str(Path(sys.executable).parent / "schemathesis")
    process = await asyncio.create_subprocess_exec(
        *(program, "--config-file", str(config), "run", str(http.base_url.join("/openapi.json")), *RUN),
        cwd=tmp_path,
        env=os.environ | {"NO_PROXY": "127.0.0.1", "NO_COLOR": "1"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    text = output.decode()
    assert process.returncode == 0, text
    count = len(list(api.operations(each.file for each in SERVICES)))
    assert f"Tested: {count}" in text
    [drawn] = re.findall(r"(\d+) generated, \1 passed", text)
    assert int(drawn) > 8 * count
