"""The `config.pbtxt` of a model: its template, checked against the ONNX file, with the sizes of that file."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from export import warmup
from export.errors import ExportError
from export.graph import Graph

FINGERPRINT = "export"
"""The parameter of an export's fingerprint: see `export.fingerprint`."""

_TEMPLATES = Path(__file__).parent / "configs"
# The fingerprint's entry up to its value, as configs may write it.
_ENTRY = re.compile(
    rf"""(\bkey\s*:\s*["']{FINGERPRINT}["'][\s,]*value\s*:?\s*\{{\s*string_value\s*:\s*)["'][^"']*["']"""
)
# What is added where there is none, in the style of the config's other entries.
_ON_ONE_LINE = """parameters { key: "%s" value { string_value: "%s" } }
"""
_ON_MANY_LINES = """parameters {
  key: "%s"
  value {
    string_value: "%s"
  }
}
"""

# What TensorRT may use beside its values while it runs a graph. At ONNX Runtime's own limit, 1 GiB, it has to
# do without some of its fastest kernels.
_WORKSPACE_BYTES = 8 << 30

TYPES = {
    "tensor(bool)": "TYPE_BOOL",
    "tensor(float)": "TYPE_FP32",
    "tensor(int32)": "TYPE_INT32",
    "tensor(int64)": "TYPE_INT64",
    "tensor(uint8)": "TYPE_UINT8",
}


def template(model: str) -> Path:
    """Return the file of a model's config, complete and with comments, for the family's default variant.

    A variant beside the default, such as `sam_encoder-vit_h`, has the same template.
    """
    return _TEMPLATES / f"{model.partition('-')[0]}.pbtxt"


def for_graph(graph: Graph, session: Any, repository: Path) -> tuple[str, bool]:
    """Return the config of a graph's ONNX file in this repository, and whether it changes one that is there.

    The repository's own config goes before the template, so that tuned settings are kept. Its names, types
    and ranks must agree with the file; ExportError if not. Sizes and parameters follow the file: if they
    differ, as for another variant, the config is a copy with those of the file. Otherwise it is unchanged.
    The warm-up is the graph's, too, unless the repository's config has one of an operator's.
    """
    from google.protobuf import text_format

    model = graph.model
    own = repository / model / "config.pbtxt"
    path = next((path for path in (own, template(model)) if path.is_file()), None)
    if path is None:
        raise ExportError(f"There is no {template(model)} to check {model} against.")
    text = path.read_text(encoding="utf-8")
    config = parse(text, path)
    if config.max_batch_size < 1:
        raise ExportError(f"{path} has no max_batch_size: {model} takes batches.")

    before = parse(text, path)
    # The last export's. This one's is written once all its files are there.
    before.parameters.pop(FINGERPRINT, None)
    _follow(path, "input", config.input, {tensor.name: tensor for tensor in session.get_inputs()})
    file_outputs = {tensor.name: tensor for tensor in session.get_outputs() if tensor.name in graph.outputs}
    _follow(path, "output", config.output, file_outputs)
    config.parameters.clear()
    for name, value in graph.parameters.items():
        config.parameters[name].string_value = value
    if graph.max_batch_size is not None:
        bound_batches(config, graph.max_batch_size)
    if warmup.is_ours(config):
        del config.model_warmup[:]
        config.model_warmup.extend(warmup.messages(graph, config))

    if config == before:
        return text, False
    if not before.model_warmup:
        # A config of before there were warm-ups keeps its text.
        before.model_warmup.extend(config.model_warmup)
        if config == before:
            added = type(config)(model_warmup=config.model_warmup)
            return text.rstrip("\n") + "\n" + text_format.MessageToString(added), path == own
    header = f"# {model} with the sizes of the ONNX file beside it, written by `visiongate export`.\n"
    return header + text_format.MessageToString(config, as_utf8=True), path == own


def with_fingerprint(text: str, value: str, path: Path) -> str:
    """Return a config's text with an export's fingerprint, and otherwise as it is.

    Raises ExportError, which names the path, if the text has the parameter in a form that is not understood.
    """
    if _ENTRY.search(text):
        text = _ENTRY.sub(rf'\g<1>"{value}"', text)
    else:
        entry = _ON_MANY_LINES if "parameters {\n" in text else _ON_ONE_LINE
        text = text.rstrip("\n") + "\n" + entry % (FINGERPRINT, value)
    if parse(text, path).parameters[FINGERPRINT].string_value != value:
        raise ExportError(
            f"{path}: the parameter {FINGERPRINT} is written in no form that is known: remove it."
        )
    return text


def parse(text: str, path: Path) -> Any:
    """Return a config's message. Raises ExportError, which names the path, if the text is none."""
    from google.protobuf import text_format
    from tritonclient.grpc import model_config_pb2

    try:
        return text_format.Parse(text, model_config_pb2.ModelConfig())
    except text_format.ParseError as error:
        raise ExportError(f"{path} does not parse: {error}.") from error


def for_plan(config: Any, file: str) -> str:
    """Return the config that has Triton's TensorRT backend run an engine's file, otherwise the same."""
    served = type(config)()
    served.CopyFrom(config)
    served.ClearField("platform")
    served.backend = "tensorrt"
    served.default_model_filename = file
    return _variant(served, "tensorrt")


def for_accelerator(
    config: Any, file: str, shapes: Mapping[str, Sequence[Sequence[int]]], cache: str, prefix: str
) -> str:
    """Return the config that has ONNX Runtime give a graph to TensorRT, otherwise the same.

    shapes: the least, the usual and the largest of each input. prefix: of the engines' names in the folder
    `cache`. It must name the weights: ONNX Runtime's own names are the same for all weights of a graph.
    """
    served = type(config)()
    served.CopyFrom(config)
    served.default_model_filename = file
    accelerators = served.optimization.execution_accelerators.gpu_execution_accelerator
    del accelerators[:]
    # Without a precision_mode each value has the type that the file gives it. With FP16 TensorRT would choose
    # halves for whatever it likes.
    parameters = accelerators.add(name="tensorrt").parameters
    parameters["trt_engine_cache_enable"] = parameters["trt_timing_cache_enable"] = "1"
    parameters["trt_engine_cache_path"] = parameters["trt_timing_cache_path"] = cache
    parameters["trt_engine_cache_prefix"] = prefix
    parameters["max_workspace_size_bytes"] = str(_WORKSPACE_BYTES)
    for place, kind in enumerate(("min", "opt", "max")):
        parameters[f"trt_profile_{kind}_shapes"] = ",".join(
            f"{name}:{'x'.join(map(str, each[place]))}" for name, each in shapes.items()
        )
    return _variant(served, "onnxruntime-tensorrt")


def _variant(config: Any, name: str) -> str:
    from google.protobuf import text_format

    header = (
        f"# For tritonserver --model-config-name={name}. Written by `visiongate export`, which makes it of\n"
        "# config.pbtxt: change that, and export again.\n"
    )
    return header + text_format.MessageToString(config, as_utf8=True)


def bound_batches(config: Any, limit: int) -> None:
    """Lower a config's largest batch to a limit. Drop what it prefers and warms up with that is larger."""
    config.max_batch_size = min(config.max_batch_size, limit)
    # Triton refuses a preferred size that is larger.
    preferred = config.dynamic_batching.preferred_batch_size
    kept = [size for size in preferred if size <= config.max_batch_size]
    del preferred[:]
    preferred.extend(kept)
    warm = [message for message in config.model_warmup if message.batch_size <= config.max_batch_size]
    del config.model_warmup[:]
    config.model_warmup.extend(warm)


def _follow(path: Path, kind: str, configured: Any, tensors: Mapping[str, Any]) -> None:
    """Check names, types and ranks of the configured tensors, and set their dims to the file's."""
    from tritonclient.grpc import model_config_pb2

    what = f"{path}: {kind}"
    names = {entry.name for entry in configured}
    if names != tensors.keys():
        # A repository's config may be older than this exporter.
        raise ExportError(
            f"{what}s are {sorted(names)}, but the ONNX file has {sorted(tensors)}; if you delete this "
            "config, the export writes a new one."
        )
    for entry in configured:
        tensor = tensors[entry.name]
        data_type = model_config_pb2.DataType.Name(entry.data_type)
        if TYPES.get(tensor.type) != data_type:
            raise ExportError(f"{what} {entry.name} is {data_type}, but {tensor.type} in the ONNX file.")
        # The batch axis is not among the dims: the config has max_batch_size for it.
        dims = [size if isinstance(size, int) else -1 for size in tensor.shape[1:]]
        if len(dims) != len(entry.dims):
            raise ExportError(
                f"{what} {entry.name} has dims {list(entry.dims)}, but {dims} in the ONNX file."
            )
        entry.dims[:] = dims
