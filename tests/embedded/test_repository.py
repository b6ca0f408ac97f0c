from pathlib import Path

import pytest

from gateway.embedded import EmbeddedTritonError
from gateway.embedded.repository import faults_of, linked, read_models, servable


def model(repository: Path, name: str, config: str = 'backend: "onnxruntime"', *files: str) -> Path:
    folder = repository / name
    folder.mkdir(parents=True)
    (folder / "config.pbtxt").write_text(config)
    for file in files:
        (folder / file).parent.mkdir(exist_ok=True)
        (folder / file).touch()
    return folder


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda path: None, "There is no model repository PATH: "),
        (lambda path: path.touch(), "The model repository PATH is not a folder: "),
        (lambda path: path.mkdir(), "The model repository PATH has no models: "),
        (
            lambda path: (model(path, "clip_text") / ".." / "README.md").touch(),
            "The model repository PATH has no models (clip_text: no version folder): ",
        ),
    ],
)
def test_nothing_to_serve_says_how_to_get_something(tmp_path: Path, make: object, says: str) -> None:
    make(tmp_path / "models")  # type: ignore[operator]
    with pytest.raises(EmbeddedTritonError) as caught:
        read_models(tmp_path / "models")
    message = str(caught.value)
    assert message.startswith(says.replace("PATH", str(tmp_path / "models")))
    for way in ("visiongate export", "visiongate up --demo", "--repository"):
        assert way in message
    assert "\n" not in message


def test_a_whole_repository_is_served_as_it_is(tmp_path: Path) -> None:
    model(tmp_path / "models", "gaze", 'backend: "onnxruntime"', "1/model.onnx")
    (tmp_path / "models" / "README.md").touch()
    models = read_models(tmp_path / "models")
    assert faults_of(models) == ""
    assert servable(tmp_path / "models", models, tmp_path / "run") == tmp_path / "models"
    assert linked(tmp_path / "models", tmp_path / "run") == tmp_path / "models"


def test_what_a_version_needs_depends_on_the_backend(tmp_path: Path) -> None:
    repository = tmp_path / "models"
    model(repository, "a", 'backend: "python"', "1/model.py")
    model(repository, "b", 'backend: "python"', "1/model.onnx")
    model(repository, "c", 'backend: "onnxruntime" default_model_filename: "net.onnx"', "1/net.onnx")
    model(repository, "d", 'platform: "ensemble"', "1/.keep")
    model(repository, "e", "what is this", "1/model.bin")
    model(repository, "f", 'backend: "other"', "1/x")
    assert faults_of(read_models(repository)) == "b: version 1 has no model.py"


def test_a_path_that_a_shell_would_split_is_linked(tmp_path: Path) -> None:
    repository = tmp_path / "my models"
    model(repository, "gaze", 'backend: "onnxruntime"', "1/model.onnx")
    runs = tmp_path / "run1", tmp_path / "run2"
    for run in runs:
        run.mkdir()
    chosen, whole = servable(repository, read_models(repository), runs[0]), linked(repository, runs[1])
    for path, run in zip((chosen, whole), runs, strict=True):
        assert path.is_relative_to(run)
        assert " " not in str(path)
        assert (path / "gaze" / "1" / "model.onnx").exists()
    (repository / "later").mkdir()
    assert (whole / "later").is_dir()
