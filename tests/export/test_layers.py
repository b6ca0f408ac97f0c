from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from export import layers, onnx_writing
from export.graph import Graph
from export.parity import difference, run


class Module(nn.Module):
    """Linear layers with GELU in both of its forms between them."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(4, 6), nn.GELU(), nn.Linear(6, 5), nn.GELU("tanh"), nn.Linear(5, 3, bias=False)
        )

    def forward(self, features: Tensor) -> tuple[Tensor]:
        with layers.linear():
            return (self.layers(features),)


@pytest.mark.parametrize("is_fast", [True, False])
def test_layers_are_one_operator_each(is_fast: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = Module()
    random = np.random.default_rng(0)
    examples = [random.normal(size=(batch, 7, 4)).astype(np.float32) * 3 for batch in (2, 1, 3)]
    graph = Graph(
        model="layers",
        module=module,
        inputs={"features": examples[0]},
        outputs={"result": ("batch", 7, 3)},
        dynamic={"features": {0: "batch"}},
        cases=[],
        reference=lambda inputs, _: inputs,
    )
    path = tmp_path / "layers" / "1" / "model.onnx"
    path.parent.mkdir(parents=True)
    onnx_writing.write(graph, path, fast=is_fast)
    session = onnx_writing.load(path)
    for features in examples:
        with torch.no_grad():
            expected = module.layers(torch.from_numpy(features))
        assert difference(run(session, {"features": features})["result"], expected.numpy()) < 1e-6
    nodes = onnx.load(str(path)).graph.node
    operators = [node.op_type for node in nodes]
    # A product alone gains nothing from Gemm: exporters write one without bias as they like.
    assert operators.count("Gemm") >= 2
    assert "Add" not in [node.op_type for node in nodes if "linear" in node.name]
    own = [node.op_type for node in nodes if node.domain == "com.microsoft"]
    assert own == (["Gelu", "FastGelu"] if is_fast else [])


@torch.no_grad()
def test_a_linear_layer_takes_any_leading_axes() -> None:
    for has_bias in (True, False):
        layer = nn.Linear(5, 6, bias=has_bias)
        for shape in [(5,), (2, 5), (2, 3, 4, 5)]:
            features = torch.randn(shape)
            with layers.linear():
                result = layer(features)
            torch.testing.assert_close(result, layer(features))
