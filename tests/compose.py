"""Docker Compose's schema and command for tests."""

import json
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import platformdirs
import pytest
from filelock import FileLock

FILE = Path(__file__).parents[1] / "deploy" / "compose" / "compose.yaml"
# Of this npm package, a linter, which ships the schema of the Compose specification.
_PACKAGE, _VERSION = "dclint", "3.1.0"
_SCHEMA = "package/schemas/compose.schema.json"
_DOWNLOAD_S = 120


def schema() -> Any:
    """The JSON schema of Compose files; skips where npm does not bring it."""
    folder = platformdirs.user_cache_path("visiongate-tests") / f"compose-schema-{_VERSION}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not folder.is_dir():
            _download(folder)
    return json.loads((folder / _SCHEMA).read_text())


def _download(folder: Path) -> None:
    if shutil.which("npm") is None:
        pytest.skip("no schema of Compose files: there is no npm to download it")
    unfinished = folder.with_suffix(".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    command = ("npm", "pack", "--silent", f"{_PACKAGE}@{_VERSION}")
    try:
        subprocess.run(
            command, cwd=unfinished, capture_output=True, text=True, check=True, timeout=_DOWNLOAD_S
        )
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        pytest.skip(f"no schema of Compose files: npm does not bring it: {error}")
    [archive] = unfinished.glob("*.tgz")
    with tarfile.open(archive) as opened:
        opened.extract(_SCHEMA, unfinished, filter="data")
    unfinished.rename(folder)


def config(*profiles: str) -> subprocess.CompletedProcess[str]:
    """Let Docker Compose read the file with these profiles; skips where it is missing. It needs no engine."""
    if shutil.which("docker") is None or _run("version").returncode != 0:
        pytest.skip("no Docker Compose")
    return _run(*(f"--profile={profile}" for profile in profiles), "config", "--format", "json")


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ("docker", "compose", "--file", str(FILE), *arguments), capture_output=True, text=True, check=False
    )
