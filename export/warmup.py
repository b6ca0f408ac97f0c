"""The requests that Triton runs before it calls a model ready: `model_warmup` of config.pbtxt.

Without them the first caller waits while a GPU's libraries choose their kernels, engines are built, and
memory is taken. Inputs that are all zero, such as pixels, are so in the config. The values of others, such as
tokens, lie in files that Triton reads in the model's folder `warmup`.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from export.graph import Graph

FOLDER = "warmup"
_NAME = "visiongate-"
_TYPES = {
    "bool": "TYPE_BOOL",
    "float32": "TYPE_FP32",
    "int32": "TYPE_INT32",
    "int64": "TYPE_INT64",
    "uint8": "TYPE_UINT8",
}


def is_ours(config: Any) -> bool:
    """Return whether a config has no warm-up but such as `messages` returns. Others are an operator's."""
    return all(message.name.startswith(_NAME) for message in config.model_warmup)


def messages(graph: Graph, config: Any) -> list[Any]:
    """Return the `ModelWarmup`s of a graph's requests.

    Each runs alone, and in a batch of the smallest size that the config prefers, if it prefers any.
    """
    from tritonclient.grpc import model_config_pb2

    sizes = [1, *sorted(config.dynamic_batching.preferred_batch_size)[:1]]
    found = []
    for number, request in enumerate(graph.warmup, start=1):
        for size in dict.fromkeys(sizes):
            name = f"{_NAME}{number}" if size == 1 else f"{_NAME}{number}-x{size}"
            message = model_config_pb2.ModelWarmup(name=name, batch_size=size)
            for key, value in request.items():
                entry = message.inputs[key]
                entry.data_type = model_config_pb2.DataType.Value(_TYPES[value.dtype.name])
                # Triton adds the batch axis.
                entry.dims[:] = value.shape[1:]
                if value.any():
                    entry.input_data_file = _file(number, key)
                else:
                    entry.zero_data = True
            found.append(message)
    return found


def write_files(graph: Graph, config: Any, folder: Path) -> None:
    """Write the files that the config's warm-up reads into a model's folder.

    If the warm-up is an operator's own, so are its files, and none is written.
    """
    if is_ours(config):
        for name, value in _files(graph):
            path = folder / FOLDER / name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(np.ascontiguousarray(value).tobytes())


def _files(graph: Graph) -> Iterator[tuple[str, np.ndarray[Any, Any]]]:
    for number, request in enumerate(graph.warmup, start=1):
        for key, value in request.items():
            if value.any():
                yield _file(number, key), value


def _file(number: int, key: str) -> str:
    return f"{number}-{key}"
