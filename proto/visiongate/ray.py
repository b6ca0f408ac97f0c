"""A step for Ray Data, Hugging Face datasets and others that work on tables in batches.

    dataset.map_batches(
        visiongate.ray.Ask,
        fn_constructor_kwargs={"task": "ocr", "server": "vision.example.com:50051"},
        batch_size=64,
        batch_format="pyarrow",
        concurrency=4,
    )

Nothing of Ray is needed to use it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from visiongate.batch.extra import how_to_install

try:
    import pyarrow as pa
except ImportError as error:
    raise ImportError(f"visiongate.ray needs pyarrow: {how_to_install('batch')}") from error

from visiongate.batch import reading, servers
from visiongate.batch.columns import COLUMNS, OK
from visiongate.batch.reading import Failure
from visiongate.batch.task import Row, Task
from visiongate.batch.tasks import make_task, probed
from visiongate.client import Client
from visiongate.errors import InvalidArgumentError, VisiongateError
from visiongate.operations.image import image_message
from visiongate.status import as_single

_OWN_COLUMNS = [COLUMNS.field(name) for name in ("status", "error_message", "width", "height")]
_WINDOW = 8
"""Requests that are under way at a time."""
_PROBE_S = 10.0


class Ask:
    """Asks a server about the images of each batch, and adds the answers to it as columns.

    task, settings: a task of `visiongate batch`, and the keyword arguments of the client's method of lists:
    ("embed", {}), ("classify", {"labels": ["cat", "dog"]}), ("detect", {"phrases": ["truck"]}), "segment",
    "ocr", "gaze". column: the batch's column of images: bytes of files, https:// addresses, paths, pixels
    uint8 [H, W, 3], Pillow images, or what Hugging Face's undecoded images are. prefix: goes before the names
    of new columns. server: host:port; by default VISIONGATE_SERVER. timeout: seconds that a request of some
    images may take; a full server is waited for within it. options: others of `Client`.

    The new columns are status, error_message, width, height and those of the task, as `visiongate batch`
    writes them; they are in `schema`. There is a row for every image: one that cannot be used has another
    status than OK, and nulls. What is wrong with the whole work, such as a wrong key or setting or a server
    that is gone, raises its error.

    It is pickled by its arguments. Each process has a connection of its own, made at the first batch.
    Raises ValueError or TypeError for settings that make no sense.
    """

    def __init__(
        self,
        task: str,
        *,
        settings: Mapping[str, Any] | None = None,
        column: str = "bytes",
        prefix: str = "",
        server: str | None = None,
        timeout: float | None = 600,
        **options: Any,
    ) -> None:
        self._column = column
        self._prefix = prefix
        settings = dict(settings or {})
        self._arguments: dict[str, Any] = {
            "task": task,
            "settings": settings,
            "column": column,
            "prefix": prefix,
            "server": server,
            "timeout": timeout,
            **options,
        }
        self._client = Client(server, timeout=timeout, **options)
        self._unprobed = make_task(task, **settings)
        self._probed: Task | None = None

    def __getstate__(self) -> dict[str, Any]:
        return self._arguments

    def __setstate__(self, arguments: dict[str, Any]) -> None:
        self.__init__(**arguments)  # type: ignore[misc]

    @property
    def schema(self) -> pa.Schema:
        """The new columns. The server is asked how long embeddings are."""
        return pa.schema(
            [field.with_name(self._prefix + field.name) for field in (*_OWN_COLUMNS, *self._task.columns)]
        )

    def __call__(self, batch: Any) -> Any:
        """Return a batch with its answers: a `pyarrow.Table`, or a mapping of names to columns, as it came.

        Raises KeyError if the batch lacks the column of images, ValueError if it has one of the new columns.
        """
        if not isinstance(batch, pa.Table | Mapping):
            raise TypeError(
                f"a batch is a pyarrow.Table or a dict, not {type(batch).__name__}: in Ray Data set "
                'batch_format to "pyarrow"'
            )
        names = batch.column_names if isinstance(batch, pa.Table) else list(batch)
        if self._column not in names:
            raise KeyError(f"the batch has no column {self._column!r}: its columns are {', '.join(names)}")
        schema = self.schema
        if twice := [name for name in schema.names if name in names]:
            raise ValueError(f"the batch has a column {twice[0]!r} already: rename it, or give a prefix")
        images = batch[self._column]
        images = images.to_pylist() if isinstance(batch, pa.Table) else list(images)
        rows = list(map(_entry, self._results(images)))
        columns = [
            pa.array([row.get(name.removeprefix(self._prefix)) for row in rows], kind)
            for name, kind in zip(schema.names, schema.types, strict=True)
        ]
        if not isinstance(batch, pa.Table):
            return {
                **batch,
                **{name: each.to_pylist() for name, each in zip(schema.names, columns, strict=True)},
            }
        for field, values in zip(schema, columns, strict=True):
            batch = batch.append_column(field, values)
        return batch

    @property
    def _task(self) -> Task:
        if self._probed is None:
            self._probed = probed(self._unprobed, self._client)
        return self._probed

    def _results(self, images: Sequence[Any]) -> list[Row | Failure]:
        """Return what the server says of each image."""
        results: dict[int, Row | Failure] = {}
        messages: dict[int, Any] = {}
        for index, value in enumerate(images):
            try:
                messages[index] = _image(value)
            except (ValueError, TypeError, OSError) as error:
                results[index] = reading.failure_of(error)
        size = self._task.batch_size
        places = list(messages)
        self._ask([places[start : start + size] for start in range(0, len(places), size)], messages, results)
        return [results[index] for index in range(len(images))]

    def _ask(
        self, groups: Sequence[Sequence[int]], images: Mapping[int, Any], results: dict[int, Row | Failure]
    ) -> None:
        """Ask about groups of images, by their places, and add what comes to the results."""
        task = self._task
        again: list[Sequence[int]] = []
        operations = ((group, task.operation([images[place] for place in group])) for group in groups)
        for group, answer in self._client.stream(operations, window=_WINDOW):
            if not isinstance(answer, VisiongateError):
                for place, row in zip(group, task.rows(answer), strict=True):
                    results[place] = servers.failure_of(row) if isinstance(row, VisiongateError) else row
                continue
            self._check_of_images(answer)
            if len(group) == 1:
                results[group[0]] = servers.failure_of(as_single(answer, "images"))
            else:
                # One by one: then only those at fault fail.
                again += ([place] for place in group)
        if again:
            self._ask(again, images, results)

    def _check_of_images(self, error: VisiongateError) -> None:
        """Raise the error of a request if it may not be about its images."""
        is_setting = isinstance(error, InvalidArgumentError) and not error.field.startswith("image")
        if isinstance(error, servers.OF_SERVER) or is_setting:
            raise error
        if isinstance(error, servers.OF_WAITING):
            try:
                self._client.with_options(timeout=_PROBE_S, wait=False).list_models()
            except VisiongateError:
                raise error from None


def _image(value: Any) -> Any:
    """Return an image as a request takes it. Raise ValueError, TypeError or OSError if it is none."""
    if isinstance(value, Mapping):
        value = value.get("bytes") or value.get("path")
    if value is None:
        raise ValueError("there is no image")
    message = image_message(value, "the image")
    # What was read or packed here is not to be read or packed again.
    return message.encoded if message.HasField("encoded") else value


def _entry(result: Row | Failure) -> dict[str, Any]:
    """Return the values of an image's row."""
    if isinstance(result, Failure):
        return {"status": result.status, "error_message": result.message}
    return {
        "status": OK,
        "error_message": "",
        "width": result.width,
        "height": result.height,
        **result.values,
    }
