"""docTR's graphs against docTR, and where weights come from."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from doctr.datasets import VOCABS
from google.protobuf import text_format
from safetensors.torch import save_file
from tritonclient.grpc import model_config_pb2

from export import doctr, doctr_weights, onnx_file, triton_config
from export.doctr import (
    Detector,
    ParseqRecognizer,
    detection_graph,
    detection_reference,
    recognition_graph,
    recognition_reference,
)
from export.doctr_weights import DEFAULT, DETECTORS, RECOGNIZERS, TINY, Pair, text_images
from export.errors import ExportError
from export.onnx_file import Arrays
from export.parity import difference
from export.weights import Options
from gateway.models.doctr import DoctrSpec

RANDOM = Options(weights="random", size="tiny")
Run = Callable[[str, Arrays], Arrays]


@pytest.fixture(scope="module")
def networks() -> doctr_weights.Networks:
    return doctr.build(RANDOM)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("doctr")
    onnx_file.place(doctr.prepare(RANDOM), folder)
    return folder


@pytest.fixture(scope="module")
def run(repository: Path) -> Run:
    def infer(model: str, inputs: Arrays) -> Arrays:
        path = repository / model / "1" / "model.onnx"
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        names = [output.name for output in session.get_outputs()]
        return dict(zip(names, session.run(names, inputs), strict=True))

    return infer


def parameters(repository: Path, *models: str) -> dict[str, str]:
    names = models or ("doctr_detection", "doctr_recognition")
    return read_parameters(*(repository / name / "config.pbtxt" for name in names))


def read_parameters(*configs: Path) -> dict[str, str]:
    found: dict[str, str] = {}
    for path in configs:
        config = text_format.Parse(path.read_text(encoding="utf-8"), model_config_pb2.ModelConfig())
        found |= {name: value.string_value for name, value in config.parameters.items()}
    return found


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_detection_equals_doctr(run: Run, networks: doctr_weights.Networks, batch: int) -> None:
    inputs = {"image": text_images(7, batch, 256, 256)}
    actual = run("doctr_detection", inputs)["probability_map"]
    expected = detection_reference(networks.detector, inputs, {})["probability_map"]
    assert difference(actual, expected) < 1e-3
    assert 0.02 < (expected > 0.3).mean() < 0.7


@pytest.mark.parametrize("batch", [1, 3, 64])
def test_recognition_equals_doctr(run: Run, networks: doctr_weights.Networks, batch: int) -> None:
    inputs = {"crop": text_images(7, batch, 32, 128)}
    actual = run("doctr_recognition", inputs)["logits"]
    expected = recognition_reference(networks.recognizer, inputs, {})["logits"]
    assert difference(actual, expected) < 1e-3
    assert len(np.unique(expected.argmax(-1))) > 5


def test_black_padding_is_normalised_like_any_pixel(run: Run, networks: doctr_weights.Networks) -> None:
    inputs = {"image": text_images(8, 1, 256, 256)}
    inputs["image"][:, :90] = 0
    actual = run("doctr_detection", inputs)["probability_map"]
    assert difference(actual, detection_reference(networks.detector, inputs, {})["probability_map"]) < 1e-3


def test_parameters_are_what_the_gateway_reads(repository: Path) -> None:
    spec = DoctrSpec.from_parameters(parameters(repository), repository)
    assert (spec.image_size, spec.crop_size, spec.vocabulary) == (256, (32, 128), VOCABS["french"])
    assert (spec.thresholds.bin_threshold, spec.thresholds.unclip_ratio) == (0.3, 1.5)


def test_any_vocabulary_survives_the_config(tmp_path: Path) -> None:
    characters = (*map(VOCABS.__getitem__, ("multilingual", "hindi", "arabic")), "\"'\\\t {}#\0")
    vocabulary = "".join(dict.fromkeys("".join(characters)))
    file = tmp_path / "vocabulary.txt"
    file.write_text(vocabulary + "\n", encoding="utf-8")
    graph = recognition_graph(doctr.build(replace(RANDOM, vocabulary=file)))
    assert graph.outputs["logits"][2] == len(vocabulary) + 1
    config = model_config_pb2.ModelConfig()
    for key, value in graph.parameters.items():
        config.parameters[key].string_value = value
    read = text_format.Parse(text_format.MessageToString(config), model_config_pb2.ModelConfig())
    assert read.parameters["vocabulary"].string_value == vocabulary


def test_the_templates_are_of_the_default_variant() -> None:
    found = read_parameters(*map(triton_config.template, ("doctr_detection", "doctr_recognition")))
    spec = DoctrSpec.from_parameters(found, Path())
    assert (found["variant"], spec.image_size, spec.vocabulary) == (DEFAULT, 1024, VOCABS["french"])


def small(monkeypatch: pytest.MonkeyPatch, detector: str, recognizer: str) -> doctr_weights.Networks:
    monkeypatch.setattr(doctr_weights, "TINY", Pair(detector, recognizer, image_size=128))
    return doctr.build(RANDOM)


@pytest.mark.parametrize("detector", ["linknet_resnet18", "fast_base"])
def test_other_detectors(monkeypatch: pytest.MonkeyPatch, detector: str) -> None:
    """As modules: exporting each takes too long for a test. FAST's branches must add up to the same."""
    networks = small(monkeypatch, detector, TINY.recognizer)
    graph = detection_graph(networks)
    assert isinstance(graph.module, Detector)
    inputs = {"image": text_images(9, 2, 128, 128)}
    with torch.no_grad():
        (actual,) = graph.module.eval()(torch.from_numpy(inputs["image"]))
    expected = detection_reference(networks.detector, inputs, {})["probability_map"]
    assert difference(actual.numpy(), expected) < 1e-3
    assert np.ptp(expected) > 0.3
    post = networks.detector.postprocessor
    assert graph.parameters["bin_threshold"] == str(post.bin_thresh) == "0.1"
    assert graph.parameters["unclip_ratio"] == str(post.unclip_ratio)
    assert graph.parameters["min_box_size"] == "0"


@pytest.mark.parametrize("recognizer", ["vitstr_small", "parseq"])
def test_other_recognizers(monkeypatch: pytest.MonkeyPatch, recognizer: str) -> None:
    networks = small(monkeypatch, TINY.detector, recognizer)
    graph = recognition_graph(networks)
    assert isinstance(graph.module, ParseqRecognizer) == (recognizer == "parseq")
    assert isinstance(graph.module, torch.nn.Module)
    for batch in (1, 4):
        inputs = {"crop": text_images(9, batch, 32, 128)}
        with torch.no_grad():
            (actual,) = graph.module.eval()(torch.from_numpy(inputs["crop"]))
        expected = recognition_reference(networks.recognizer, inputs, {})["logits"]
        assert difference(actual.numpy(), expected) < 1e-3
        assert len(np.unique(expected.argmax(-1))) > 2
    assert graph.parameters["decoder"] == "attention"


def save(networks: doctr_weights.Networks, folder: Path, suffix: str) -> None:
    states = {TINY.detector: networks.detector, TINY.recognizer: networks.recognizer}
    for name, model in states.items():
        state = model.state_dict()
        if suffix == ".safetensors":
            save_file(state, folder / f"{name}{suffix}")
        else:
            # As docTR's own cache names its files.
            torch.save(state, folder / f"{name}-0123abcd{suffix}")


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_weights_of_a_folder(networks: doctr_weights.Networks, tmp_path: Path, suffix: str) -> None:
    save(networks, tmp_path, suffix)
    loaded = doctr.build(replace(RANDOM, weights=str(tmp_path), seed=9))
    for one, other in (
        (loaded.detector, networks.detector),
        (loaded.recognizer, networks.recognizer),
    ):
        for name, value in other.state_dict().items():
            assert torch.equal(one.state_dict()[name], value), name


def test_a_folder_with_another_vocabulary(tmp_path: Path) -> None:
    file = tmp_path / "vocabulary.txt"
    file.write_text("abc", encoding="utf-8")
    options = replace(RANDOM, vocabulary=file)
    save(doctr.build(options), tmp_path, ".safetensors")
    with pytest.raises(ExportError, match="--vocabulary"):
        doctr.build(replace(RANDOM, weights=str(tmp_path)))
    assert doctr.build(replace(options, weights=str(tmp_path))).recognizer.vocab == "abc"


def test_a_pickle_that_runs_code_is_refused(networks: doctr_weights.Networks, tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return (Path(tmp_path / "ran").touch, ())

    torch.save({"weight": Evil()}, tmp_path / f"{TINY.detector}.pt")
    with pytest.raises(ExportError, match="Cannot read"):
        doctr.build(replace(RANDOM, weights=str(tmp_path)))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            lambda state: state.pop("fpn.in_branches.0.0.weight"),
            "lacks weights .* fpn.in_branches.0.0.weight",
        ),
        (lambda state: state.update(extra=torch.zeros(1)), "it has extra"),
        (lambda state: state.update({"fpn.in_branches.0.0.weight": torch.zeros(1, 2)}), r"is \[1, 2\], not"),
        (lambda state: state.update(epoch=3), "something else"),
    ],
)
def test_other_weights_are_refused(
    networks: doctr_weights.Networks, tmp_path: Path, change: Callable[[Any], Any], says: str
) -> None:
    state = dict(networks.detector.state_dict())
    change(state)
    torch.save(state, tmp_path / f"{TINY.detector}.pt")
    with pytest.raises(ExportError, match=says):
        doctr.build(replace(RANDOM, weights=str(tmp_path)))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (Options(weights="random", variant="db_resnet50"), "a hyphen"),
        (Options(weights="random", variant="db_resnet99-parseq"), "db_resnet99-parseq"),
        (replace(RANDOM, revision="main"), "--revision"),
        (replace(RANDOM, weights="hub"), "no tiny weights"),
        (replace(RANDOM, weights="/nowhere"), "not a folder"),
        (replace(RANDOM, vocabulary=Path(__file__)), "no vocabulary"),
        (Options(vocabulary=Path(__file__)), "--vocabulary"),
    ],
)
def test_options_that_cannot_be(options: Options, says: str) -> None:
    with pytest.raises(ExportError, match=says):
        doctr.build(options)


def test_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=f"no {TINY.detector}.pt"):
        doctr.build(replace(RANDOM, weights=str(tmp_path)))


def test_the_hub_is_doctrs_own_download(monkeypatch: pytest.MonkeyPatch) -> None:
    from doctr.models import detection, recognition

    asked = []

    def stub(name: str, tiny: Callable[..., Any]) -> Callable[..., Any]:
        def make(pretrained: bool, **arguments: Any) -> Any:
            asked.append((name, pretrained, arguments))
            return tiny()

        return make

    networks = doctr.build(RANDOM)
    monkeypatch.setattr(detection, "db_resnet50", stub("db_resnet50", lambda: networks.detector))
    monkeypatch.setattr(recognition, "crnn_vgg16_bn", stub("crnn_vgg16_bn", lambda: networks.recognizer))
    built = doctr.build(Options())
    assert built.variant == DEFAULT
    assert asked == [
        ("db_resnet50", True, {"pretrained_backbone": False}),
        ("crnn_vgg16_bn", True, {"pretrained_backbone": False}),
    ]


def test_a_failed_download_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    from doctr.models import detection

    def fail(**_arguments: Any) -> Any:
        raise OSError("no route to host")

    monkeypatch.setattr(detection, "db_resnet50", fail)
    with pytest.raises(ExportError, match=r"Cannot fetch db_resnet50: .*no route"):
        doctr.build(Options())


def test_every_architecture_is_doctrs() -> None:
    from doctr.models import detection, recognition

    assert all(hasattr(detection, name) for name in DETECTORS)
    assert all(hasattr(recognition, name) for name in RECOGNIZERS)
    # A variant's name is split at its hyphen.
    assert not any("-" in name for name in (*DETECTORS, *RECOGNIZERS))


def test_the_same_seed_is_the_same_model() -> None:
    one, same, other = (doctr.build(replace(RANDOM, seed=seed)) for seed in (1, 1, 2))
    weights = [networks.recognizer.linear.weight for networks in (one, same, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
