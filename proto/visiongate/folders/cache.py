"""Folders in the user's cache, for answers that are worth keeping from call to call."""

import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from visiongate.command_error import CommandError


def cache_folder(kind: str, name: str, *about: str) -> Path:
    """Return the folder for what is kept about a source of this name: another for other texts `about` it.

    kind: what is kept, such as "index". Nothing is made.
    """
    home = os.environ.get("XDG_CACHE_HOME", "")
    cache = Path(home) if os.path.isabs(home) else Path.home() / ".cache"
    whole = "\0".join([name, *about]).encode("utf-8", "surrogateescape")
    digest = hashlib.sha256(whole).hexdigest()[:16]
    spoken = re.sub(r"[^\w.-]+", "-", re.split(r"[/\\]", name.rstrip("/\\"))[-1])[:40]
    return cache / "visiongate" / kind / f"{spoken}-{digest}"


def private_folder(folder: Path, option: str) -> str:
    """See to it that others cannot look into a folder of `cache_folder`, once it is made. Return its path.

    Raises CommandError if it cannot be made. It names the `option` that takes another folder.
    """
    try:
        folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise CommandError(
            f"{folder.parent} cannot be made: {error.strerror}; give {option} a folder that can be written"
        ) from error
    return str(folder)


@contextmanager
def kept_by(option: str, folder: str) -> Iterator[None]:
    """Let what is raised in a job name the option that its folder has here, in place of --out.

    There is no --overwrite either: who wants to begin anew removes the folder.
    """
    try:
        yield
    except CommandError as error:
        said = str(error).replace("--out", option)
        raise CommandError(re.sub("(give )?--overwrite", lambda _: f"remove {folder}", said)) from error
