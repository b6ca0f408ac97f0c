import asyncio
import json
import sys
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from gateway import cli
from gateway.commands.bench import TASKS, checked_items, checked_tasks
from gateway.embedded import EmbeddedTriton
from gateway.server import Gateway
from visiongate.command_error import CommandError


def test_help_says_what_is_measured_and_how_to_read_it() -> None:
    result = CliRunner().invoke(cli.app, ["bench", "--help"], env={"COLUMNS": "200"})
    assert result.exit_code == 0
    for words in (
        "--server",
        "--triton",
        "--in-flight",
        "visiongate bench --server",
        "load generator",
        *TASKS,
    ):
        assert words in result.output


def test_wrong_words_are_named() -> None:
    assert checked_items("1,16") == [1, 16]
    assert checked_tasks([]) == TASKS
    for text in ("", "a", "0", "1,,2", "257"):
        with pytest.raises(CommandError, match="--items"):
            checked_items(text)
    with pytest.raises(CommandError, match="--task is 'tracking'"):
        checked_tasks(["tracking"])


async def test_a_running_server_is_measured(
    gateway: Gateway, triton: EmbeddedTriton, tiny_repository: Path, tmp_path: Path
) -> None:
    written, picture = tmp_path / "bench.json", tmp_path / "bench.png"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "visiongate", "bench", "--server", f"127.0.0.1:{gateway.port}"),
        *("--triton", triton.grpc_address, "--repository", str(tiny_repository)),
        *("--task", "embed-images", "--items", "2", "--in-flight", "2", "--rounds", "2", "--seconds", "0.3"),
        *("--json", str(written), "--picture", str(picture)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    text = output.decode()
    assert process.returncode == 0, text
    assert "embed images" in text
    (task,) = json.loads(written.read_text())["tasks"]
    assert set(task["ways"]) == {"gateway", "Triton alone", "ONNX Runtime alone"}
    through = task["ways"]["gateway"]
    assert through["errors"] == 0
    assert through["items_a_second"] > 0
    assert set(through["cpu_s_an_item"]) == {"client", "gateway", "Triton"}
    assert all(seconds >= 0 for seconds in through["cpu_s_an_item"].values())
    assert task["ratios"]["Triton alone"] > 0
    with Image.open(picture) as chart:
        assert chart.width > 500
