"""The command as its users run it: real processes, from `visiongate up` to a picture."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw
from pycocotools import mask as coco

from export.demo.serving import REPOSITORY
from gateway.settings import Settings

COMMAND = str(Path(sys.executable).parent / "visiongate")


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A red circle and a blue square."""
    image = Image.new("RGB", (320, 240), "white")
    canvas = ImageDraw.Draw(image)
    canvas.ellipse((30, 60, 130, 160), fill=(220, 30, 30))
    canvas.rectangle((190, 70, 280, 160), fill=(30, 60, 220))
    path = tmp_path_factory.mktemp("photo") / "scene.png"
    image.save(path)
    return path


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The address of `visiongate up`; it must end with 0 on SIGTERM."""
    process = subprocess.Popen(
        [COMMAND, "up", "--repository", str(REPOSITORY), "--port", "0"],
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.search(r"answers at (\S+)", line)
        assert found, line
        yield found[1]
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0


def run(arguments: Sequence[str], server: str = "", code: int = 0) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"VISIONGATE_SERVER": server, "COLUMNS": "200", "NO_COLOR": "1"}
    result = subprocess.run(
        [COMMAND, *arguments], env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == code, result.stdout + result.stderr
    return result


def test_models(server: str) -> None:
    assert "grounding_dino" in run(["models"], server).stdout
    families = {model["family"] for model in json.loads(run(["models", "--json"], server).stdout)}
    assert {"grounding_dino", "sam", "clip"} <= families


def test_words_to_masks(server: str, photo: Path, tmp_path: Path) -> None:
    picture = tmp_path / "new" / "out.png"
    arguments = [
        "segment",
        str(photo),
        "--phrase",
        "red circle",
        "--min-score",
        "0.5",
        "--nms-iou",
        "0.3",
    ]
    answer = run([*arguments, "--json", "--save", str(picture)], server)
    assert answer.stderr == f"wrote {picture}\n"
    found, *_ = json.loads(answer.stdout)
    assert found["phrase"] == "red circle"
    rle = found["mask"]["rle"]
    assert coco.area(rle | {"counts": rle["counts"].encode()}) == found["mask"]["area"]
    with Image.open(picture) as drawn, Image.open(photo) as before:
        assert drawn.size == before.size
        assert (np.asarray(drawn) != np.asarray(before)).any()
    table = run(arguments, server).stdout
    assert f"│ {found['mask']['area']} " in table


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["detect", "PHOTO", " "], r"error: INVALID_ARGUMENT: query.phrases.values\[0\]: is empty"),
        (["gaze", "[/] none.png"], r"error: no file matches \[/\] none.png \(in "),
        (["segment", "PHOTO", "--box", "1,2,3,4000"], r"prompts\[0\].box.y_max: is 4000, outside the image"),
        (["detect", "PHOTO", "cup", "--server", "127.0.0.1:9", "--timeout", "5"], r"error: .*127\.0\.0\.1:9"),
        (["serve", "--triton", "127.0.0.1:9"], "no Triton answers at 127.0.0.1:9"),
        (["up", "--repository", "/nowhere"], "/nowhere"),
    ],
)
def test_failures_are_one_sentence(
    server: str, photo: Path, arguments: list[str], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VISIONGATE_TRITON_WAIT_S", "0")
    result = run([str(photo) if word == "PHOTO" else word for word in arguments], server, code=1)
    assert re.search(says, result.stderr)
    assert "Traceback" not in result.stderr


def test_up_says_that_it_has_a_triton_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VISIONGATE_TRITON", "10.0.0.7:8001")
    said = run(["up", "--repository", "/nowhere"], code=1).stderr
    assert "the setting triton (environment) is not used" in said


def test_nothing_found_says_so(server: str, photo: Path) -> None:
    answer = run(["detect", str(photo), "cup", "--min-score", "1"], server)
    assert answer.stdout == ""
    assert answer.stderr == "Nothing found. A lower --min-score finds more.\n"


def test_help_lists_the_commands_of_client_and_server() -> None:
    said = run(["--help"]).stdout
    for name in ("segment", "ocr", "up", "export", "settings"):
        assert f" {name} " in said


PROXY = "http://127.0.0.1:9"
PROXIES = {
    name: PROXY
    for lower in ("http_proxy", "https_proxy", "grpc_proxy", "all_proxy")
    for name in (lower, lower.upper())
} | {"no_proxy": "", "NO_PROXY": ""}


@pytest.mark.parametrize("arguments", [["up", "--demo", "--processes", "2"], ["serve"]])
def test_proxies_are_not_for_this_machine(demo_settings: Settings, arguments: list[str]) -> None:
    triton = ["--triton", demo_settings.triton, "--repository", str(demo_settings.repository)]
    with subprocess.Popen(
        [COMMAND, *arguments, "--port", "0", *(triton if arguments == ["serve"] else [])],
        env=os.environ | PROXIES,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert "answers at 127.0.0.1:" in process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0


def test_what_is_quickly_known_is_told_before_triton_is_started(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        for arguments, says in (
            (["--port", port], f"cannot listen on 127.0.0.1:{port}: the port is in use.*--port"),
            (
                ["--metrics-port", port],
                f"cannot listen on 127.0.0.1:{port}: the port is in use.*--metrics-port",
            ),
            (["--api-keys", str(tmp_path / "none")], "cannot read the API keys in"),
            (["--tls-key", str(tmp_path / "none")], "tls_certificate and tls_key go together"),
            (["--repository", str(tmp_path)], "--demo and --repository both say what to serve"),
        ):
            # There is no place for Triton: it would be the error.
            nowhere = {"VISIONGATE_CACHE_DIR": "/proc/none"}
            result = subprocess.run(
                [COMMAND, "up", "--demo", "--port", "0", *arguments],
                env=os.environ | nowhere,
                capture_output=True,
                text=True,
                check=False,
            )
            assert result.returncode == 1
            assert re.fullmatch(f"error: .*{says}.*\n", result.stderr), result.stderr


def test_triton_takes_its_repository_as_up_does(tmp_path: Path) -> None:
    file = tmp_path / "visiongate.toml"
    file.write_text('repository = "/from/the/file"\n')
    for variables, arguments, where in (
        ({"VISIONGATE_CONFIG": str(file)}, [], "/from/the/file"),
        ({"VISIONGATE_CONFIG": str(file), "VISIONGATE_REPOSITORY": "/from/it"}, [], "/from/it"),
        ({"VISIONGATE_REPOSITORY": "/from/it", "VISIONGATE_PORT": "x"}, ["--repository", "/here"], "/here"),
    ):
        result = subprocess.run(
            [COMMAND, "triton", *arguments],
            env=os.environ | variables,
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode == 1
        assert f"There is no model repository {where}: " in result.stderr
