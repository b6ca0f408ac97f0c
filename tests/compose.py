"""Docker Compose's schema and command for tests."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from npm import downloaded

FILE = Path(__file__).parents[1] / "deploy" / "compose" / "compose.yaml"
# Of this npm package, a linter, which ships the schema of the Compose specification.
_PACKAGE, _VERSION = "dclint", "3.1.0"
_SCHEMA = "compose.schema.json"


def schema() -> Any:
    """The JSON schema of Compose files; skips where npm does not bring it."""
    folder = downloaded("schema of Compose files", _PACKAGE, _VERSION, _keep_schema)
    return json.loads((folder / _SCHEMA).read_text())


def _keep_schema(folder: Path) -> None:
    packages = folder / "node_modules"
    (packages / _PACKAGE / "schemas" / _SCHEMA).rename(folder / _SCHEMA)
    shutil.rmtree(packages)


def config(*profiles: str) -> subprocess.CompletedProcess[str]:
    """Let Docker Compose read the file with these profiles; skips where it is missing. It needs no engine."""
    if shutil.which("docker") is None or _run("version").returncode != 0:
        pytest.skip("no Docker Compose")
    return _run(*(f"--profile={profile}" for profile in profiles), "config", "--format", "json")


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ("docker", "compose", "--file", str(FILE), *arguments), capture_output=True, text=True, check=False
    )
