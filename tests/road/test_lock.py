"""The pinned versions are those that the projects ask for, also for newer Pythons."""

from pathlib import Path

import pytest

from road.environments import ROOT, uv

EXTRAS = ("export", "ocr", "dev", "heic")


@pytest.mark.parametrize("version", ["3.11", pytest.param("3.12", marks=pytest.mark.long), "3.13"])
def test_the_lock_resolves(version: str, tmp_path: Path) -> None:
    resolved = tmp_path / "requirements.lock"
    uv(
        *("pip", "compile", "pyproject.toml", *(f"--extra={extra}" for extra in EXTRAS)),
        *("--no-header", "--no-annotate", "--no-emit-package", "visiongate", "--quiet"),
        *("--constraint", ROOT / "requirements.lock", "--python-version", version, "--output-file", resolved),
    )
    assert resolved.read_text() == (ROOT / "requirements.lock").read_text()
