"""Layers that exporters write as several operators, each as one."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from unittest import mock

import onnxscript
import torch
from onnxscript import FLOAT
from torch import Tensor, nn

_OWN = onnxscript.values.Opset("com.microsoft", 1)


@contextmanager
def linear() -> Iterator[None]:
    """Let linear layers be exported as Gemm, which adds the bias too, and not as MatMul and Add.

    Files that are to be int8 need MatMul (see `export.int8`).
    """
    with mock.patch.object(nn.Linear, "forward", _as_matrix):
        yield


def _as_matrix(self: nn.Linear, features: Tensor) -> Tensor:
    """Return what a layer's own forward does. Exporters write Gemm only for matrices."""
    rows = nn.functional.linear(features.reshape(-1, self.in_features), self.weight, self.bias)
    return rows.view(*features.shape[:-1], self.out_features)


def gelu() -> Mapping[Callable[..., Any], Callable[..., Any]]:
    """Return the translation of GELU to ONNX Runtime's own operator, for the dynamo exporter.

    That exporter writes five operators, in an order that ONNX Runtime does not know for GELU. ONNX has one
    only from opset 20 on. There, ONNX Runtime 1.19 has no kernel for GPUs of operators such as Pad.
    """

    def translate(features: Any, approximate: str = "none") -> Any:
        return _fast_gelu(features) if approximate == "tanh" else _gelu(features)

    return {torch.ops.aten.gelu.default: translate}


@onnxscript.script(_OWN)
def _gelu(features: FLOAT) -> FLOAT:
    return _OWN.Gelu(features)  # type: ignore[no-any-return]


@onnxscript.script(_OWN)
def _fast_gelu(features: FLOAT) -> FLOAT:
    return _OWN.FastGelu(features)  # type: ignore[no-any-return]
