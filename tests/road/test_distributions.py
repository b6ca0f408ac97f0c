"""The client and the server as wheels in clean environments, used from another directory."""

import asyncio
import json
import re
import signal
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image

from export.demo import show
from gateway.server import Gateway
from road.environments import ROOT, Environment, Wheels, add_exporter, interpreter, make_environment

PROGRAM = """
import sys, visiongate
with visiongate.Client(sys.argv[1]) as client:
    print(*sorted({model.family for model in client.list_models()}))
"""
TYPED = """
import visiongate

with visiongate.Client() as client:
    reveal_type(client.detect("a.jpg", ["cup"]))
    reveal_type(client.embed_texts(["cup"]))
    client.detect("a.jpg", phrase=["cup"])
"""


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("scene") / "scene.png"
    Image.fromarray(show.scene(0).image).save(path)
    return path


def names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_the_client_is_small_and_alone(wheels: Wheels) -> None:
    found = names(wheels.client)
    tops = {name.partition("/")[0] for name in found}
    assert tops == {"visiongate", "visiongate_command.py", "visiongate-0.1.0.dist-info"}
    assert {"visiongate/py.typed", "visiongate/v1/image_pb2.pyi", "visiongate/commands/detection.py"} <= found
    assert "visiongate/v1/descriptors.binpb" in found
    assert wheels.client.stat().st_size < 450_000


def test_the_server_brings_what_it_reads(wheels: Wheels) -> None:
    found = names(wheels.server)
    tops = {name.partition("/")[0] for name in found}
    assert tops == {"gateway", "export", "visiongate_server-0.1.0.dist-info"}
    served = {name.split("/")[3] for name in found if name.startswith("export/demo/repository/")}
    assert {"grounding_dino", "sam_encoder", "clip_text", "doctr_detection", "gaze"} <= served
    read = [
        "gateway/embedded/requirements.lock",
        "gateway/embedded/requirements-gpu.lock",
        "gateway/embedded/backends/onnxruntime/model.py",
        "gateway/embedded/backends/onnxruntime/visiongate_runs.py",
        "gateway/http/docs.css",
        *(f"gateway/http/playground/{name}" for name in ("index.html", "tasks/find.js", "example.jpg")),
    ]
    assert set(read) <= found


def test_both_have_one_version() -> None:
    projects = [
        tomllib.loads((ROOT / path).read_text())["project"]
        for path in ("pyproject.toml", "proto/pyproject.toml")
    ]
    assert projects[0]["version"] == projects[1]["version"]
    assert f"visiongate=={projects[1]['version']}" in projects[0]["dependencies"]


async def test_the_client_asks_a_server(client_environment: Environment, gateway: Gateway) -> None:
    address = f"127.0.0.1:{gateway.port}"
    printed = await ask(client_environment, "python", "-c", PROGRAM, address)
    assert {"grounding_dino", "sam", "clip"} <= set(printed.split())
    # By the command, whose variable a program's Client() reads as well.
    found = json.loads(await ask(client_environment, "visiongate", "models", "--server", address, "--json"))
    assert {model["family"] for model in found} == set(printed.split())


async def ask(environment: Environment, *command: str) -> str:
    # In a thread: the gateway answers from this one.
    return (await asyncio.to_thread(environment.run, *command)).stdout


def test_without_the_server_its_commands_say_what_to_install(client_environment: Environment) -> None:
    said = client_environment.run("visiongate", "up", "--port", "0", code=1).stderr
    assert "`visiongate up` is part of the server: install visiongate-server" in said
    assert "up" not in client_environment.run("visiongate", "--help").stdout.split()


def test_dependants_see_types(client_environment: Environment, tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(TYPED)
    done = subprocess.run(
        [
            *(
                sys.executable,
                "-m",
                "mypy",
                "--strict",
                "--config-file",
                "",
                "--cache-dir",
                str(tmp_path / "cache"),
            ),
            *("--python-executable", client_environment.program("python"), "program.py"),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    notes = re.findall(r'Revealed type is "(.*?)"', done.stdout)
    assert notes == ["visiongate.detections.Detections", "visiongate.answer.ArrayAnswer"], done.stdout
    assert 'Unexpected keyword argument "phrase"' in done.stdout
    assert "Found 1 error" in done.stdout


@pytest.fixture(scope="module")
def demo(server_environment: Environment) -> Iterator[str]:
    """The address of `visiongate up --demo`; it must end in good order."""
    process = subprocess.Popen(
        [server_environment.program("visiongate"), "up", "--demo", "--port", "0"],
        cwd=server_environment.directory,
        env=server_environment.variables(),
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


def test_the_demo_answers(server_environment: Environment, demo: str, scene: Path) -> None:
    shapes = [thing.phrase for thing in show.scene(0).things][:3]
    asked = ["detect", str(scene), *shapes, "--server", demo, "--json"]
    found = json.loads(server_environment.run("visiongate", *asked).stdout)
    assert sorted(item["phrase"] for item in found) == sorted(shapes)


def test_a_ready_file_is_exported_without_pytorch(
    wheels: Wheels, data: Callable[[str], Path], tmp_path: Path
) -> None:
    environment = make_environment(tmp_path, wheels.client, f"{wheels.server}[ocr]")
    environment.run("python", "-c", "import torch", code=1)
    repository = tmp_path / "repository"
    file = data("face/yunet_n_dynamic.onnx")
    arguments = ["face_detection", "--weights", str(file), "--repository", str(repository)]
    said = environment.run("visiongate", "export", *arguments).stdout
    assert f"differs from {file.name} by at most" in said
    assert {path.name for path in repository.iterdir()} == {"face_detection"}
    # The networks come with the package.
    arguments = ["doctr", "--variant", "pp_ocrv6_small", "--beside", "--repository", str(repository)]
    said = environment.run("visiongate", "export", *arguments).stdout
    assert "rapidocr 3.10.0" in said
    assert (repository / "doctr_recognition-pp_ocrv6_small" / "1" / "model.onnx").is_file()
    said = environment.run("visiongate", "export", "sam", code=1).stderr
    assert re.fullmatch(
        r"error: Exporting sam needs more packages \(.*\): pip install 'visiongate-server\[export\]'\n", said
    )


def test_a_model_is_exported(server_environment: Environment, tmp_path: Path) -> None:
    said = server_environment.run("visiongate", "export", "face_detection", "--size", "tiny", code=1).stderr
    assert "visiongate-server[export]" in said
    add_exporter(server_environment)
    repository = tmp_path / "repository"
    arguments = ["face_detection", "--size", "tiny", "--repository", str(repository)]
    said = server_environment.run("visiongate", "export", *arguments).stdout
    assert f"visiongate up --repository {repository}" in said
    assert {path.name for path in repository.iterdir()} == {"face_detection"}


@pytest.mark.parametrize("version", [pytest.param("3.12", marks=pytest.mark.long), "3.13"])
async def test_newer_pythons(version: str, wheels: Wheels, tmp_path: Path, gateway: Gateway) -> None:
    python = interpreter(version)
    environment = make_environment(tmp_path, wheels.client, wheels.server, python=python)
    assert f"Python {version}" in environment.run("python", "--version").stdout
    printed = await ask(environment, "python", "-c", PROGRAM, f"127.0.0.1:{gateway.port}")
    assert "grounding_dino" in printed
    assert "max_image_pixels" in environment.run("visiongate", "settings").stdout
