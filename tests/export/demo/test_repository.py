"""The shipped repository: made of the shipped weights, by today's exporters."""

from typing import Any

import onnxruntime
import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from export.demo.serving import REPOSITORY
from export.families import DEFAULT_SET, FAMILIES
from export.parity import difference
from export.weights import DEMO_WEIGHTS, Options

TRAINED = sorted(folder.name for folder in DEMO_WEIGHTS.iterdir())
MEGABYTE = 1e6


@pytest.fixture(scope="module", params=TRAINED)
def export(request: pytest.FixtureRequest) -> Any:
    return FAMILIES[request.param].prepare(Options(weights="demo"))


def test_every_family_but_the_alternatives_has_a_demo_model() -> None:
    assert set(TRAINED) == set(DEFAULT_SET)


def test_files_are_those_of_the_weights(export: Any) -> None:
    for path, text in export.files.items():
        assert (REPOSITORY / path).read_text(encoding="utf-8") == text
    for graph in export.graphs:
        config = model_config_pb2.ModelConfig()
        text_format.Parse((REPOSITORY / graph.model / "config.pbtxt").read_text(encoding="utf-8"), config)
        written = {name: parameter.string_value for name, parameter in config.parameters.items()}
        assert graph.parameters.items() <= written.items()


def test_graphs_answer_as_the_weights_do_in_pytorch(export: Any) -> None:
    for graph in export.graphs:
        if graph.probes:
            continue  # its reference looks at more than the placed file puts out: see tests/e2e/test_demo.py
        session = onnxruntime.InferenceSession(str(REPOSITORY / graph.model / "1" / "model.onnx"))
        for case in graph.cases:
            actual = dict(zip(graph.outputs, session.run(list(graph.outputs), case), strict=True))
            for name, expected in graph.reference(case, actual).items():
                # The weights are halves here and there, but where the exporter folds norms into them.
                assert difference(actual[name], expected) <= 1e-2 * abs(expected).max(), (graph.model, name)


def test_all_of_it_is_small() -> None:
    files = [path for folder in (REPOSITORY, DEMO_WEIGHTS) for path in folder.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 40 * MEGABYTE
