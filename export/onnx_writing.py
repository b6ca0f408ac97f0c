"""An exporter's graph as an ONNX file, at any precision, which nothing has been compared with yet."""

import logging
import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx

from export import casts, half, int8, rounding
from export.errors import ExportError, first_line
from export.graph import Graph
from export.half import Precision

if TYPE_CHECKING:
    import torch

# The newest versions that ONNX Runtime 1.19, the one of Triton 24.10, reads.
MAX_OPSET = 20
MAX_IR_VERSION = 10
# Protobuf's limit is 2 GiB for the whole file, which holds more than weights.
MAX_EMBEDDED_BYTES = 1_900_000_000
_HALVES = (Precision.fp16, Precision.fp16_weights)


def write(
    graph: Graph,
    path: Path,
    *,
    precision: Precision = Precision.fp32,
    fast: bool = True,
    external_data: bool | None = None,
) -> Sequence[str]:
    """Write a graph to a file, which nothing has been compared with yet, with its probes.

    Return the tensors that stay in float32 at fp16, because a half might not hold them.

    `fast` writes attention as one operator of ONNX Runtime's own (see `export.attention`). Other runtimes
    read only the plain graph.
    """
    if external_data is None:
        external_data = _weight_bytes(graph.module) / (2 if precision in _HALVES else 1) > MAX_EMBEDDED_BYTES
    export(graph, path, external_data, fast)
    kept: Sequence[str] = ()
    if precision is Precision.fp16:
        kept = rounding.too_large(path, graph.half_kept_out, [*graph.cases, *graph.photos()])
    finish(graph, path, precision, kept, external_data)
    return kept


def finish(
    graph: Graph, path: Path, precision: Precision, too_large: Sequence[str], external_data: bool
) -> None:
    """Turn what `export` wrote into the file of a precision."""
    if precision is not Precision.fp32:
        _save(converted(graph, path, precision, too_large), path, external_data)
    _sign(graph, path)


def converted(graph: Graph, path: Path, precision: Precision, too_large: Sequence[str] = ()) -> Any:
    """Return the model of a graph's float32 file at another precision.

    At fp16, what reads or writes a tensor that is `too_large` stays float32.
    """
    if precision is Precision.fp16_weights:
        return half.weights(path)
    if precision is Precision.int8:
        return int8.converted(path)
    return half.computed(path, graph.half_kept_out, too_large)


def _weight_bytes(module: "torch.nn.Module | onnx.ModelProto") -> int:
    if isinstance(module, onnx.ModelProto):
        return module.ByteSize()
    return sum(parameter.numel() * parameter.element_size() for parameter in module.parameters())


def export(graph: Graph, path: Path, external_data: bool, fast: bool) -> None:
    """Write the float32 file of a graph as the exporter makes it: `finish` needs the notes in it."""
    if isinstance(graph.module, onnx.ModelProto):
        _save(graph.module, path, external_data)
        return
    import torch

    from export import attention, layers

    names = list(graph.inputs)
    outputs = {**graph.outputs, **graph.probes}
    options: dict[str, Any] = (
        {
            "dynamic_shapes": tuple(
                dict.fromkeys(graph.dynamic[name], torch.export.Dim.DYNAMIC) for name in names
            ),
            "external_data": external_data,
            "custom_translation_table": layers.gelu() if fast else None,
        }
        if graph.dynamo
        # The older exporter writes external data on its own if it must. `_save` below puts it in order.
        else {"dynamic_axes": {name: dict(axes) for name, axes in graph.dynamic.items()}}
    )
    # Both exporters warn of their own deprecations, and of every Python number in the module. The optimiser
    # of the newer one logs what it leaves as it is.
    logging.getLogger("onnxscript").setLevel(logging.ERROR)
    with (
        attention.fused() if fast else nullcontext(),
        warnings.catch_warnings(),
        torch.no_grad(),
    ):
        warnings.simplefilter("ignore")
        try:
            torch.onnx.export(
                graph.module.eval(),
                tuple(torch.from_numpy(value) for value in graph.inputs.values()),
                str(path),
                input_names=names,
                output_names=list(outputs),
                opset_version=graph.opset,
                dynamo=graph.dynamo,
                verbose=False,
                **options,
            )
        except Exception as error:
            raise ExportError(f"{graph.model} does not export: {first_line(error)}") from error
    if external_data and not graph.dynamo:
        _save(read(path, weights=True), path, external_data=True)


def _sign(graph: Graph, path: Path) -> None:
    """Write every dimension of the file's inputs and outputs: a number, or the name of a dynamic axis.

    Exporters write made-up names for fixed sizes that they cannot follow. They also write notes that only
    they need. The notes, such as the source file and line of every node, reveal details of this machine, and
    are removed. TensorRT reads only graphs that cast their bytes first (see `export.casts`).
    """
    model = read(path)
    _strip(model)
    casts.first(model)
    opset = max(entry.version for entry in model.opset_import if entry.domain in {"", "ai.onnx"})
    if opset > MAX_OPSET or model.ir_version > MAX_IR_VERSION:
        raise ExportError(
            f"{graph.model}: the exporter wrote opset {opset}, IR version {model.ir_version}; "
            f"Triton 24.10 reads at most {MAX_OPSET} and {MAX_IR_VERSION}."
        )
    shapes: dict[str, Sequence[int | str]] = {**graph.outputs, **graph.probes}
    for name, example in graph.inputs.items():
        shapes[name] = [graph.dynamic[name].get(axis, size) for axis, size in enumerate(example.shape)]
    # ONNX Runtime shares buffers between values of equal shape, so it must not see the sizes of the example.
    del model.graph.value_info[:]
    for value in [*model.graph.input, *model.graph.output]:
        dimensions = value.type.tensor_type.shape
        dimensions.ClearField("dim")
        for size in shapes[value.name]:
            dimensions.dim.add(**{"dim_value" if isinstance(size, int) else "dim_param": size})
    _save(model, path)


def _strip(message: Any) -> None:
    """Clear the notes of an ONNX message and of all messages in it."""
    for note in ("doc_string", "metadata_props"):
        if note in message.DESCRIPTOR.fields_by_name:
            message.ClearField(note)
    for descriptor, value in message.ListFields():
        if descriptor.message_type is not None:
            for part in [value] if hasattr(value, "ListFields") else value:
                _strip(part)


def drop_probes(graph: Graph, path: Path) -> None:
    """Drop the outputs that only a comparison needs."""
    model = read(path)
    kept = [output for output in model.graph.output if output.name not in graph.probes]
    del model.graph.output[:]
    model.graph.output.extend(kept)
    _save(model, path)


def read(path: Path, weights: bool = False) -> Any:
    """Return a file's model, without its external weights if `weights` is not set.

    It is small then. When it is saved, it still points to them.
    """
    return onnx.load(str(path), load_external_data=weights)


def _save(model: Any, path: Path, external_data: bool = False) -> None:
    if external_data:
        for stale in path.parent.glob("*"):
            stale.unlink()
    onnx.save_model(
        model,
        str(path),
        save_as_external_data=external_data,
        all_tensors_to_one_file=True,
        location=path.name + ".data",
    )


def load(path: Path) -> Any:
    """Check the file and open it in ONNX Runtime: exporters have written files that no runtime loads."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    # An arena would keep the memory of the largest case while the reference runs.
    options.enable_cpu_mem_arena = False
    try:
        onnx.checker.check_model(str(path))
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise ExportError(f"{path.parts[-3]}: the exported file is not valid: {first_line(error)}") from error
