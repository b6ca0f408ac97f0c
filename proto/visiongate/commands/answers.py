"""Answers of models about folders, which are kept from call to call: only what is new is asked about."""

import json
from dataclasses import replace
from typing import TYPE_CHECKING

from visiongate.commands.common import note
from visiongate.commands.jobs import Work

if TYPE_CHECKING:
    from visiongate.batch.item import Source
    from visiongate.batch.task import Task


def answers_folder(task: "Task", source: "Source", parent: str) -> str:
    """Return the folder for the answers to what a task asks about a source, in `parent` or the user's cache.

    Other questions, and other photos, have other folders. It is not made: a call may be refused.
    """
    from visiongate.folders.cache import cache_folder, private_folder  # noqa: PLC0415

    question = json.dumps(task.settings, sort_keys=True)
    folder = cache_folder("answers", source.name, task.name, question)
    return f"{parent.rstrip('/')}/{folder.name}" if parent else private_folder(folder, "--answers")


def renew_answers(work: Work, task: "Task", source: "Source", out: str) -> None:
    """Bring a folder of answers up to date; if the server has another model than they are from, anew."""
    from visiongate.batch.manifest import Manifest  # noqa: PLC0415
    from visiongate.batch.models import models_of  # noqa: PLC0415
    from visiongate.batch.store import open_store  # noqa: PLC0415
    from visiongate.folders.cache import kept_by  # noqa: PLC0415

    with kept_by("--answers", out), work.clients() as clients:
        found = Manifest.load(open_store(out))
        is_stale = found is not None and found.models != models_of(clients, task.models)
        if is_stale:
            note(f"The model of {task.name} is another one than before: it is asked about all photos anew.")
            work = replace(work, settings={**work.settings, "overwrite": True})
        work.run(task, source, out, clients)
