"""What is asked about the inputs of a job, and what becomes of the answers."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from visiongate.errors import VisiongateError
from visiongate.operations import Operation


@dataclass(frozen=True, slots=True)
class Row:
    """The result of one input: values of the task's columns, and the upright size of the image in pixels."""

    values: Mapping[str, Any]
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Task:
    """What is asked about each input.

    name: as the command line calls it, such as "embed". settings: what it was made with, defaults included,
    as JSON can hold it: the same settings mean the same answers. models: the tasks of `ListModels` whose
    models answer, or their families, with the variant that was asked for ("" is the server's default).
    batch_size: how many inputs one request has by default.
    columns: the columns of a result, all nullable, beside those of every job.
    operation: the operation about some files' bytes, in which broken ones fail alone (`strict=False`).
    rows: what the operation's answer says of each input, in order; an input's error is the error.
    """

    name: str
    settings: Mapping[str, Any]
    models: Mapping[str, str]
    batch_size: int
    columns: pa.Schema
    operation: Callable[[Sequence[bytes]], Operation[Any]]
    rows: Callable[[Any], Sequence[Row | VisiongateError]]
