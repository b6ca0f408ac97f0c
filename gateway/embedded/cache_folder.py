"""The user's cache folder, where Triton from pip is prepared once."""

import os
import shlex
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import platformdirs

from gateway.embedded.error import EmbeddedTritonError
from gateway.settings_sources import CACHE_VARIABLE

ADVICE = (
    f"set {CACHE_VARIABLE} to a folder that can be written, that programs can be run from, and that has "
    "500 MB free (3 GB with --gpu)"
)


def cache_folder() -> Path:
    """Return the folder that VISIONGATE_CACHE_DIR names, or by default the user's cache folder."""
    override = os.environ.get(CACHE_VARIABLE)
    if override:
        return Path(override).absolute()
    try:
        return platformdirs.user_cache_path("visiongate")
    except RuntimeError as error:  # no HOME, and no entry in the system's list of users
        raise EmbeddedTritonError(
            f"This user has no home folder for Triton's environment: {ADVICE}."
        ) from error


def is_plain(path: Path) -> bool:
    """Tell if a shell reads the path as it is: Triton passes paths to a shell and quotes nothing."""
    return shlex.quote(str(path)) == str(path)


def check_executable(folder: Path) -> None:
    """Raise EmbeddedTritonError if programs cannot be run from the folder."""
    if os.statvfs(folder).f_flag & os.ST_NOEXEC:
        raise EmbeddedTritonError(f"Programs cannot be run from {folder} (mounted noexec): {ADVICE}.")


@contextmanager
def write_errors_explained() -> Iterator[None]:
    """Turn an OSError inside into an EmbeddedTritonError that says what to do about the cache folder."""
    try:
        yield
    except OSError as error:
        raise EmbeddedTritonError(
            f"Triton's environment cannot be kept in {cache_folder()} ({error.strerror or error}): {ADVICE}."
        ) from error


@contextmanager
def made_whole(folder: Path) -> Iterator[Path]:
    """Lend a new folder to be filled, and move it to its place in the cache at the end, whole.

    If several processes make the same folder at a time, the first one stays: all make the same.
    """
    with write_errors_explained():
        folder.parent.mkdir(exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", dir=folder.parent))
        try:
            yield partial
            try:
                partial.rename(folder)
            except OSError:
                if not folder.is_dir():
                    raise
        finally:
            shutil.rmtree(partial, ignore_errors=True)
