from pathlib import Path

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from gateway.commands.gpus import Gpus
from gateway.embedded import EmbeddedTritonError, gpu_repository
from gateway.embedded.repository import read_models

ONNX = 'backend: "onnxruntime" '


def model(repository: Path, name: str, files: dict[str, str]) -> Path:
    for file, text in files.items():
        path = repository / name / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return repository / name


def made(repository: Path, run: Path, gpus: Gpus, *, whole: bool = False) -> Path:
    run.mkdir()
    models = read_models(repository, may_be_empty=whole)
    return gpu_repository.make(models, gpus, run, whole=whole)


def config(path: Path) -> model_config_pb2.ModelConfig:
    return text_format.Parse(path.read_text(), model_config_pb2.ModelConfig())


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", "instance_group { count: 2 kind: KIND_GPU gpus: [ 0, 3 ] }"),
        (
            "instance_group { count: 4 } instance_group { kind: KIND_GPU gpus: 3 }",
            "instance_group { count: 2 kind: KIND_GPU gpus: [ 0, 3 ] }"
            "instance_group { count: 2 kind: KIND_GPU gpus: 3 }",
        ),
        # What its owner has put on the CPU stays there.
        ("instance_group { count: 4 kind: KIND_CPU }", "instance_group { count: 4 kind: KIND_CPU }"),
    ],
)
def test_instances_are_on_the_gpus(before: str, after: str) -> None:
    changed = text_format.Parse(before, model_config_pb2.ModelConfig())
    gpu_repository.on_gpus(changed, Gpus((0, 3), instances=2), "gaze")
    assert changed == text_format.Parse(after, model_config_pb2.ModelConfig())


def test_without_options_the_configuration_says_how_many_and_how_much() -> None:
    own = 'instance_group { count: 3 } parameters { key: "gpu_mem_limit" value { string_value: "5" } }'
    changed = text_format.Parse(own, model_config_pb2.ModelConfig())
    gpu_repository.on_gpus(changed, Gpus((1,), memory_limit=8), "gaze")
    assert changed.instance_group[0].count == 3
    assert changed.parameters["gpu_mem_limit"].string_value == "5"
    unlimited = model_config_pb2.ModelConfig()
    gpu_repository.on_gpus(unlimited, Gpus((1,), memory_limit=8), "gaze")
    assert unlimited.instance_group[0].count == 1
    assert unlimited.parameters["gpu_mem_limit"].string_value == "8"


def test_a_gpu_that_triton_does_not_have_is_named() -> None:
    pinned = text_format.Parse("instance_group { gpus: [ 0, 2 ] }", model_config_pb2.ModelConfig())
    with pytest.raises(EmbeddedTritonError, match=r"gaze: config\.pbtxt puts it on GPU 2, and .* only 0, 1"):
        gpu_repository.on_gpus(pinned, Gpus((0, 1)), "gaze")


def test_the_repository_is_left_as_it_is_and_served_by_links(tmp_path: Path) -> None:
    repository = tmp_path / "models"
    gaze = model(
        repository,
        "gaze",
        {
            "config.pbtxt": f"{ONNX} # tuned",
            "configs/tuned.pbtxt": ONNX,
            "configs/tensorrt.pbtxt": 'backend: "tensorrt"',
            "1/model.onnx": "weights",
            "warmup/face": "zeros",
        },
    )
    (gaze / "2").mkdir()
    model(repository, "own", {"config.pbtxt": 'backend: "python"', "1/model.py": "code"})
    model(repository, "bare", {"1/model.onnx": "weights"})
    model(repository, "broken", {"config.pbtxt": "what is this", "1/model.onnx": "weights"})
    model(repository, "later", {"config.pbtxt": ONNX})

    served = made(repository, tmp_path / "run", Gpus((1,)))
    on_gpu = [model_config_pb2.ModelInstanceGroup(count=1, kind="KIND_GPU", gpus=[1])]
    for file in ("gaze/config.pbtxt", "gaze/configs/tuned.pbtxt", "bare/config.pbtxt"):
        assert list(config(served / file).instance_group) == on_gpu, file
        assert config(served / file).backend == "onnxruntime"
    for file in ("gaze/configs/tensorrt.pbtxt", "own/config.pbtxt"):
        assert not config(served / file).instance_group, file
    for file in ("gaze/1/model.onnx", "gaze/warmup/face", "own/1/model.py", "broken/config.pbtxt"):
        assert (served / file).read_text() == (repository / file).read_text(), file
    assert not (served / "gaze" / "2").exists()
    assert not (served / "later").exists()
    assert (gaze / "config.pbtxt").read_text() == f"{ONNX} # tuned"
    assert not (repository / "bare" / "config.pbtxt").exists()

    # Triton that is told what to load may be told to load it once it is complete.
    whole = made(repository, tmp_path / "whole", Gpus((1,)), whole=True)
    (gaze / "2" / "model.onnx").write_text("new")
    assert (whole / "gaze" / "2" / "model.onnx").read_text() == "new"
    assert (whole / "later" / "config.pbtxt").exists()
