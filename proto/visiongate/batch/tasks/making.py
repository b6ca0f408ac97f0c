"""What all tasks have in common: from an operation and its settings to a `Task`."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from visiongate.answer import ImageInfo
from visiongate.batch.task import Row, Task
from visiongate.errors import VisiongateError
from visiongate.operations import Operation
from visiongate.status import as_single

_LIST = "images"

Values = Mapping[str, Any]


def make(
    name: str,
    method: Callable[..., Operation[Any]],
    settings: Values,
    *,
    models: Mapping[str, str],
    batch_size: int,
    columns: pa.Schema,
    values: Callable[[Any], Values | VisiongateError],
    own_settings: Values | None = None,
) -> Task:
    """Return a task that asks by an operation of `visiongate.operations` about a list of images.

    `settings` are the operation's keyword arguments, `own_settings` those of the task beside them. `values`
    returns the task's columns of one image's result, which may still be an error.
    """
    keywords = {key: _plain(value) for key, value in settings.items()}

    def operation(files: Sequence[bytes]) -> Operation[Any]:
        return method(files, **keywords, strict=False)

    def rows(answer: Any) -> list[Row | VisiongateError]:
        return [
            as_single(answer.errors[index], _LIST) if index in answer.errors else _row(values(result), image)
            for index, (result, image) in enumerate(zip(answer, answer.info.images, strict=True))
        ]

    # Settings that make no sense raise here, and not at the first image.
    operation([])
    return Task(
        name=name,
        settings=keywords | dict(own_settings or {}),
        models=models,
        batch_size=batch_size,
        columns=columns,
        operation=operation,
        rows=rows,
    )


def _row(values: Values | VisiongateError, image: ImageInfo) -> Row | VisiongateError:
    return values if isinstance(values, VisiongateError) else Row(values, image.width, image.height)


def _plain(value: Any) -> Any:
    """Return a setting as JSON can hold it: lists of what is iterated, Python's numbers of NumPy's.

    What is no setting at all stays as it is: the operation says so.
    """
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Iterable) and not isinstance(value, str | bytes | Mapping | set | frozenset):
        return [_plain(item) for item in value]
    return value
