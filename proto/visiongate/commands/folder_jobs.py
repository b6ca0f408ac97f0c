"""The jobs behind commands over folders: each goes on where it was, and asks about what is new."""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from visiongate.commands.common import note
from visiongate.commands.jobs import Work

if TYPE_CHECKING:
    from visiongate.batch.item import Source
    from visiongate.batch.task import Task

FOLDER_HELP = "A folder of photos, with the folders in it, or any other input of `visiongate batch`."


def folder_work(server: Mapping[str, Any], *, overwrite: bool = False) -> Work:
    """Return work for the server of a command. What failed before is asked about anew.

    However many photos fail, the work goes on: the command says which.
    """
    settings = {"retry_failed": True, "max_failure_rate": 1, "overwrite": overwrite}
    return Work({}, settings, {**server, "address": [server["address"]]}, json_log=False)


def answers_folder(task: "Task", source: "Source", parent: str) -> str:
    """Return the folder for the answers to what a task asks about a source, in `parent` or the user's cache.

    Other questions, and other photos, have other folders.
    """
    from visiongate.folders.cache import cache_folder, make_folder  # noqa: PLC0415

    question = json.dumps(task.settings, sort_keys=True)
    folder = cache_folder("answers", source.name, task.name, question)
    if parent:
        return f"{parent.rstrip('/')}/{folder.name}"
    make_folder(folder, "--answers")
    return str(folder)


def renew_answers(work: Work, task: "Task", source: "Source", out: str) -> None:
    """Bring a folder of answers up to date; if the server has another model than they are from, anew."""
    from visiongate.batch.manifest import Manifest  # noqa: PLC0415
    from visiongate.batch.models import models_of  # noqa: PLC0415
    from visiongate.batch.store import open_store  # noqa: PLC0415

    found = Manifest.load(open_store(out))
    with work.clients() as clients:
        is_stale = found is not None and found.models != models_of(clients, task.models)
        if is_stale:
            note(f"The model of {task.name} is another one than before: it is asked about all photos anew.")
            work = replace(work, settings={**work.settings, "overwrite": True})
        work.run(task, source, out, clients)
