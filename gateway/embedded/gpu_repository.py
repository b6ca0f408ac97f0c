"""A model repository whose models run on GPUs: links to the user's, with configurations that say so.

The user's configurations need not say it: NVIDIA's backend takes all GPUs by itself. Here they say which, and
how many instances there are on each.
"""

from collections.abc import Iterable
from pathlib import Path

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from gateway.commands.gpus import Gpus
from gateway.embedded.error import EmbeddedTritonError
from gateway.embedded.repository import Model

_GROUP = model_config_pb2.ModelInstanceGroup
MEMORY_LIMIT = "gpu_mem_limit"
"""The parameter of ONNX Runtime's limit, of the native backend too."""


def make(models: Iterable[Model], gpus: Gpus, folder: Path, *, whole: bool) -> Path:
    """Make a folder of links to the models in `folder`, and return it.

    Configurations, those in `configs` too, are copies that put models of ONNX Runtime on these GPUs. `whole`:
    with versions and models that cannot be served now.
    """
    repository = folder / "repository"
    repository.mkdir()
    for model in models:
        if not (whole or model.versions):
            continue
        place = repository / model.path.name
        place.mkdir()
        for entry in sorted(model.path.iterdir()):
            if entry.name == "config.pbtxt":
                _write(entry, place / entry.name, model, gpus)
            elif entry.name == "configs" and entry.is_dir():
                (place / "configs").mkdir()
                for config in entry.iterdir():
                    _write(config, place / "configs" / config.name, model, gpus)
            elif whole or not entry.name.isdecimal() or entry.name in model.versions:
                (place / entry.name).symlink_to(entry)
        if not (model.path / "config.pbtxt").exists():
            _write(None, place / "config.pbtxt", model, gpus)
    return repository


def on_gpus(config: model_config_pb2.ModelConfig, gpus: Gpus, name: str) -> None:
    """Put a model's instances on the GPUs. Those that its configuration puts on the CPU stay there.

    Raises EmbeddedTritonError if the configuration names a GPU that is not among them.
    """
    groups = config.instance_group
    if not groups:
        groups.add(count=1)
    for group in groups:
        if group.kind == _GROUP.KIND_CPU:
            continue
        if others := [gpu for gpu in group.gpus if gpu not in gpus.indices]:
            raise EmbeddedTritonError(
                f"{name}: config.pbtxt puts it on GPU {', '.join(map(str, others))}, and Triton has only "
                f"{', '.join(map(str, gpus.indices))}."
            )
        group.kind = _GROUP.KIND_GPU
        if not group.gpus:
            group.gpus.extend(gpus.indices)
        group.count = gpus.instances or group.count or 1
    if gpus.memory_limit is not None and MEMORY_LIMIT not in config.parameters:
        config.parameters[MEMORY_LIMIT].string_value = str(gpus.memory_limit)


def _write(source: Path | None, path: Path, model: Model, gpus: Gpus) -> None:
    config = model_config_pb2.ModelConfig()
    try:
        if source is not None:
            text_format.Parse(source.read_text(), config)
    except (OSError, ValueError, text_format.ParseError):
        if source is not None:
            path.symlink_to(source)  # Triton says what is wrong
        return
    if not (config.backend or config.platform) and any(
        (model.path / version / "model.onnx").exists() for version in model.versions
    ):
        config.backend = "onnxruntime"  # what Triton would find out by itself
    if config.backend == "onnxruntime" or config.platform == "onnxruntime_onnx":
        on_gpus(config, gpus, model.path.name)
    path.write_text(text_format.MessageToString(config))
