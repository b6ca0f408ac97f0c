"""The embeddings of a folder's photos, kept from call to call, and brought up to date at each.

An index is the output of a batch job `embed`. What has come to the folder is embedded, what has changed anew,
and what is gone stays in the files but is in no answer.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from visiongate.batch.columns import OK
from visiongate.batch.item import Source
from visiongate.batch.job import Job, Summary, run
from visiongate.batch.manifest import Manifest
from visiongate.batch.models import models_of
from visiongate.batch.output import Output
from visiongate.batch.store import Store, open_store
from visiongate.batch.task import Task
from visiongate.batch.tasks import make_task
from visiongate.client import Client
from visiongate.command_error import CommandError
from visiongate.folders.cache import cache_folder, kept_by, private_folder
from visiongate.folders.neighbours import Vectors

# Of broken files. They stay as they are until they change; other failures may mend by themselves.
_LASTING = "INVALID_ARGUMENT"
_HEAD = ("id", "status", "error_message", "width", "height", "sha256")


@dataclass(frozen=True, slots=True, eq=False)
class Index:
    """The photos of a source that have embeddings, sorted by their ids.

    ids: their names. vectors: float32 [N,D], of length 1. pixels: width times height, int64 [N]. hashes: of
    the files' bytes. failed: names and errors of the photos that have no embedding, sorted.
    """

    source: Source
    ids: Sequence[str]
    vectors: Vectors
    pixels: NDArray[np.int64]
    sizes: Sequence[tuple[int, int]]
    hashes: Sequence[str]
    failed: Sequence[tuple[str, str]]

    def readers(self, rows: Iterable[int]) -> Mapping[int, Callable[[], bytes]]:
        """Return what reads the files of some rows. It goes through the source once."""
        wanted: dict[str, list[int]] = {}
        for row in rows:
            wanted.setdefault(self.ids[row], []).append(row)
        found: dict[int, Callable[[], bytes]] = {}
        for item in self.source if wanted else ():
            found |= dict.fromkeys(wanted.pop(item.id, ()), item.read)
            if not wanted:
                break
        return found


def _do(**job: Any) -> Summary:
    return run(Job(**job))


def default_folder(source: Source, model: str) -> Path:
    """Return the folder in the user's cache for the index of a source, which is told by its name."""
    return cache_folder("index", source.name, model)


def open_index(
    source: Source,
    client: Client,
    *,
    folder: str = "",
    model: str = "",
    on_note: Callable[[str], None] = lambda sentence: None,
    do: Callable[..., Summary] = _do,
) -> Index:
    """Bring the index of a source up to date, and return it. `folder` is by default in the user's cache.

    If the server's model is another one than the index is from, the index is made anew, and `on_note` told.
    `do` does a job, of the keyword arguments of `Job`.

    Raises CommandError if the source has no photos, or the folder is another source's index or none at all,
    and what a job raises.
    """
    folder = folder or private_folder(default_folder(source, model), "--index")
    with kept_by("--index", folder):
        return _open_index(source, client, folder, model, on_note, do)


def _open_index(
    source: Source,
    client: Client,
    folder: str,
    model: str,
    on_note: Callable[[str], None],
    do: Callable[..., Summary],
) -> Index:
    store = open_store(folder)
    task = make_task("embed", model=model)
    found = Manifest.load(store)
    is_stale = found is not None and _is_stale(found, source, store, task, client, on_note)
    done = do(
        task=task,
        source=source,
        out=folder,
        clients=[client],
        overwrite=is_stale,
        retry_failed=found is not None and not is_stale and _may_mend(Output(store)),
        max_failure_rate=1,
    )
    present = {item.id for item in source} if done.gone else None
    return _read(source, Output(store), present)


def _is_stale(
    found: Manifest, source: Source, store: Store, task: Task, client: Client, on_note: Callable[[str], None]
) -> bool:
    """Return whether an index is from another model. Raise CommandError if it is no index of this source."""
    if found.task != task.name or found.settings.keys() != task.settings.keys():
        raise CommandError(f"{store.name} is the output of another job: give another --index")
    if found.source != source.name:
        raise CommandError(
            f"{store.name} is the index of {found.source}, not of {source.name}: give another --index"
        )
    models = models_of([client], task.models)
    if found.models == models and found.settings == task.settings:
        return False
    before, now = found.models["embedding"], models["embedding"]
    named = (
        f"the model {before['variant']}, and the server has {now['variant']} now"
        if before["variant"] != now["variant"]
        else f"the model {before['variant']}, which has changed"
    )
    on_note(f"The index was made with {named}: it is made anew.")
    return True


def _may_mend(output: Output) -> bool:
    """Return whether photos have failed for a cause that is not in the photo."""
    return any(
        set(batch["status"].to_pylist()) - {OK, _LASTING}
        for batch in (output.batches(["status"]) if output.files() else ())
    )


def _read(source: Source, output: Output, present: set[str] | None) -> Index:
    """Read what a job has written; only of the inputs that are present, if it had others."""
    head = output.table(_HEAD)
    if present is not None:
        is_here = pa.array([name in present for name in head["id"].to_pylist()], pa.bool_())
        head = head.filter(is_here)
    is_ok = pc.equal(head["status"], OK)
    good, bad = head.filter(is_ok), head.filter(pc.invert(is_ok)).sort_by("id")
    # In the order of their ids: it does not depend on when a photo was added.
    order = np.asarray(pc.sort_indices(good["id"]))
    place = np.empty_like(order)
    place[order] = np.arange(len(order), dtype=order.dtype)
    good = good.take(pa.array(order))
    sizes = list(zip(good["width"].to_pylist(), good["height"].to_pylist(), strict=True))
    return Index(
        source=source,
        ids=good["id"].to_pylist(),
        vectors=_vectors(output, place, present),
        pixels=np.array([width * height for width, height in sizes], np.int64),
        sizes=sizes,
        hashes=good["sha256"].to_pylist(),
        failed=list(zip(bad["id"].to_pylist(), bad["error_message"].to_pylist(), strict=True)),
    )


def _vectors(output: Output, place: NDArray[np.unsignedinteger], present: set[str] | None) -> Vectors:
    """Read the embeddings, some rows at a time, each to its place."""
    vectors: Vectors | None = None
    row = 0
    for batch in output.batches(["id", "status", "embedding"]):
        is_wanted = pc.equal(batch["status"], OK)
        if present is not None:
            is_here = pa.array([name in present for name in batch["id"].to_pylist()], pa.bool_())
            is_wanted = pc.and_(is_wanted, is_here)
        column = batch["embedding"].filter(is_wanted)
        if not len(column):
            continue
        some = column.flatten().to_numpy(zero_copy_only=False).reshape(len(column), -1)
        if vectors is None:
            vectors = np.empty((len(place), some.shape[1]), np.float32)
        vectors[place[row : row + len(some)]] = some
        row += len(some)
    return np.zeros((0, 1), np.float32) if vectors is None else vectors
