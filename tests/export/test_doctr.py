"""docTR's graphs against docTR."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from doctr.datasets import VOCABS
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from export import doctr_calibration, doctr_weights, triton_config
from export.doctr import (
    Detector,
    ParseqRecognizer,
    detection_graph,
    detection_reference,
    recognition_graph,
    recognition_reference,
)
from export.doctr_pixels import normalised
from export.families.doctr import DEFAULT, TINY, Pair
from export.graph import Arrays
from export.parity import difference
from export.pictures import text_images
from export.weights import Options
from gateway.models.doctr import DoctrSpec

from .conftest import runner

RANDOM = Options(weights="random", size="tiny")


Run = Callable[[str, Arrays], Arrays]


@pytest.fixture(scope="module")
def networks() -> doctr_weights.Networks:
    return doctr_weights.build(RANDOM)


@pytest.fixture(scope="module")
def run(tiny_repository: Path) -> Run:
    return runner(tiny_repository)


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
    actual = run("doctr_recognition", inputs)
    assert actual.keys() == {"classes", "probabilities"}
    with torch.no_grad():
        output = networks.recognizer(
            normalised(inputs["crop"], networks.recognizer), return_model_output=True
        )
    expected = output["out_map"].softmax(-1).numpy()
    assert difference(actual["probabilities"], expected.max(-1)) < 1e-3
    # Of classes that are as good as equal, either will do.
    chosen = np.take_along_axis(expected, actual["classes"][..., None], -1)[..., 0]
    assert difference(chosen, expected.max(-1)) < 1e-3
    assert len(np.unique(actual["classes"])) > 5


def test_black_padding_is_normalised_like_any_pixel(run: Run, networks: doctr_weights.Networks) -> None:
    inputs = {"image": text_images(8, 1, 256, 256)}
    inputs["image"][:, :90] = 0
    actual = run("doctr_detection", inputs)["probability_map"]
    assert difference(actual, detection_reference(networks.detector, inputs, {})["probability_map"]) < 1e-3


def test_parameters_are_what_the_gateway_reads(tiny_repository: Path) -> None:
    configs = (tiny_repository / model / "config.pbtxt" for model in ("doctr_detection", "doctr_recognition"))
    spec = DoctrSpec.from_parameters(read_parameters(*configs), tiny_repository)
    assert (spec.image_size, spec.crop_size, spec.vocabulary) == (256, (32, 128), VOCABS["french"])
    assert (spec.thresholds.bin_threshold, spec.thresholds.unclip_ratio) == (0.3, 1.5)


def test_any_vocabulary_survives_the_config(tmp_path: Path) -> None:
    characters = (*map(VOCABS.__getitem__, ("multilingual", "hindi", "arabic")), "\"'\\\t {}#\0")
    vocabulary = "".join(dict.fromkeys("".join(characters)))
    file = tmp_path / "vocabulary.txt"
    file.write_text(vocabulary + "\n", encoding="utf-8")
    graph = recognition_graph(doctr_weights.build(replace(RANDOM, vocabulary=file)))
    assert graph.probes["logits"][2] == len(vocabulary) + 1
    config = model_config_pb2.ModelConfig()
    for key, value in graph.parameters.items():
        config.parameters[key].string_value = value
    read = text_format.Parse(
        text_format.MessageToString(config, as_utf8=True), model_config_pb2.ModelConfig()
    )
    assert read.parameters["vocabulary"].string_value == vocabulary


def test_the_templates_are_of_the_default_variant() -> None:
    found = read_parameters(*map(triton_config.template, ("doctr_detection", "doctr_recognition")))
    spec = DoctrSpec.from_parameters(found, Path())
    assert (found["variant"], spec.image_size, spec.vocabulary) == (DEFAULT, 1024, VOCABS["french"])


def small(
    monkeypatch: pytest.MonkeyPatch, detector: str, recognizer: str, unneeded_calibration: str
) -> doctr_weights.Networks:
    """Networks of which the test looks at one: calibrating the other takes seconds."""
    monkeypatch.setattr(doctr_weights, unneeded_calibration, lambda model: None)
    monkeypatch.setattr(doctr_weights, "TINY", Pair(detector, recognizer, image_size=128))
    return doctr_weights.build(RANDOM)


@pytest.mark.parametrize("detector", ["linknet_resnet18", "fast_base"])
def test_other_detectors(monkeypatch: pytest.MonkeyPatch, detector: str) -> None:
    """As modules: exporting each takes too long for a test. FAST's branches must add up to the same."""
    monkeypatch.setattr(doctr_calibration, "CALIBRATION_SIZE", 256)
    networks = small(monkeypatch, detector, TINY.recognizer, "calibrate_recognizer")
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
    networks = small(monkeypatch, TINY.detector, recognizer, "calibrate_detector")
    graph = recognition_graph(networks)
    assert isinstance(graph.module, ParseqRecognizer) == (recognizer == "parseq")
    assert isinstance(graph.module, torch.nn.Module)
    for batch in (1, 4):
        inputs = {"crop": text_images(9, batch, 32, 128)}
        with torch.no_grad():
            outputs = graph.module.eval()(torch.from_numpy(inputs["crop"]))
        names = ("classes", "probabilities", "logits")
        actual = {name: output.numpy() for name, output in zip(names, outputs, strict=True)}
        expected = recognition_reference(networks.recognizer, inputs, actual)
        for name in names:
            assert difference(actual[name], expected[name]) < 1e-3
        assert len(np.unique(expected["classes"])) > 2
    assert graph.parameters["decoder"] == "attention"
