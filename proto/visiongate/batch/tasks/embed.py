"""The embedding of each image."""

from typing import Any, Literal

import grpc
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from visiongate.batch.task import Task
from visiongate.batch.tasks.making import make
from visiongate.errors import VisiongateError
from visiongate.operations import arguments
from visiongate.operations.embedding import embed_images

_TYPES = {"float32": (np.float32, pa.float32()), "float16": (np.float16, pa.float16())}


def embed(
    *, normalize: bool = True, dtype: Literal["float32", "float16"] = "float32", model: str = ""
) -> Task:
    """Embed images, as `embed_images` does. float16 takes half of the room, and rounds."""
    arguments.choice(arguments.text(dtype, "dtype"), "dtype", _TYPES)
    kind, _ = _TYPES[dtype]

    def values(vector: NDArray[np.float32]) -> dict[str, Any] | VisiongateError:
        if kind is np.float32:
            return {"embedding": np.asarray(vector)}
        with np.errstate(over="ignore"):
            numbers = np.asarray(vector).astype(kind)
        if np.isfinite(numbers).all() or not np.isfinite(vector).all():
            return {"embedding": numbers}
        return VisiongateError(
            grpc.StatusCode.OUT_OF_RANGE,
            f"the embedding has numbers that float16 cannot hold, up to {np.abs(vector).max():.6g}: use "
            "float32, or let embeddings have length 1",
        )

    return make(
        "embed",
        embed_images,
        {"normalize": normalize, "model": model},
        own_settings={"dtype": dtype},
        models={"embedding": model},
        batch_size=32,
        columns=columns(dtype),
        values=values,
    )


def columns(dtype: str, dimensions: int = -1) -> pa.Schema:
    """Return the columns: of lists of `dimensions` numbers, or of any length until that is known."""
    _, kind = _TYPES[dtype]
    return pa.schema([("embedding", pa.list_(kind, dimensions))])
