"""The tasks of jobs, by their names.

    task = probed(make_task("detect", phrases=["truck", "wheel"], min_score=0.3), client)

Settings are the keyword arguments of the client's method that asks about a list of images.
"""

import inspect
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from visiongate.batch.task import Task
from visiongate.batch.tasks import embed as embedding
from visiongate.batch.tasks.classify import classify
from visiongate.batch.tasks.detect import detect
from visiongate.batch.tasks.embed import embed
from visiongate.batch.tasks.gaze import gaze
from visiongate.batch.tasks.ocr import ocr
from visiongate.batch.tasks.segment import segment
from visiongate.client import Client

_MAKERS: dict[str, Callable[..., Task]] = {
    maker.__name__: maker for maker in (embed, classify, detect, segment, ocr, gaze)
}
TASK_NAMES = tuple(_MAKERS)


def make_task(name: str, **settings: Any) -> Task:
    """Return the task of this name. Nothing is sent: see `probed`.

    Raises ValueError or TypeError, with a sentence that names the setting, for what makes no sense.
    """
    if name not in _MAKERS:
        raise ValueError(f"there is no task {name!r}: it must be one of {', '.join(TASK_NAMES)}")
    maker = _MAKERS[name]
    known = inspect.signature(maker).parameters
    if unknown := settings.keys() - known.keys():
        raise TypeError(f"{name} has no setting {min(unknown)}: its settings are {', '.join(known)}")
    needed = [key for key, each in known.items() if each.default is each.empty]
    if missing := [key for key in needed if key not in settings]:
        raise TypeError(f"{name} needs the setting {missing[0]}")
    return maker(**settings)


def probed(task: Task, client: Client) -> Task:
    """Ask the task about no images at all, and return it with its columns complete.

    A server that cannot be used, a wrong key, a model that is missing and a setting that the server refuses
    are found before the first image: each raises its `VisiongateError`. The answer tells how long embeddings
    are: from then on they have a column of fixed-size lists.
    """
    answer = client.call(task.operation([]))
    if task.name != embed.__name__:
        return task
    return replace(task, columns=embedding.columns(task.settings["dtype"], answer.shape[1]))
