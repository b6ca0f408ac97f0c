"""Where things lie by default: in this checkout, and where the packages are installed."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import export
import gateway
from gateway import places

ROOT = Path(__file__).parents[1]


def test_in_a_checkout_the_repository_is_its_own() -> None:
    assert places.checkout() == ROOT
    assert places.default_repository() == ROOT / "model_repository"


@pytest.mark.parametrize("stray", [(), ("pyproject.toml",), ("model_repository/README.md",)])
def test_where_it_is_installed_the_repository_is_the_users(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stray: tuple[str, ...]
) -> None:
    for name in stray:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.setattr(places, "_PARENT", tmp_path)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    assert places.checkout() is None
    assert places.default_repository() == tmp_path / "data" / "visiongate" / "model_repository"


def test_a_user_without_a_home_has_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_home(name: str) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(places, "_PARENT", tmp_path)
    monkeypatch.setattr("platformdirs.user_data_path", no_home)
    monkeypatch.chdir(tmp_path)
    assert places.default_repository() == tmp_path / "model_repository"


def test_installed_packages_export_and_write_nothing_beside_themselves(tmp_path: Path) -> None:
    """Copies of the packages alone, as a wheel holds them."""
    site = tmp_path / "site"
    for package in (gateway, export):
        (folder,) = package.__path__
        ignored = shutil.ignore_patterns("__pycache__", "repository")
        shutil.copytree(folder, site / Path(folder).name, ignore=ignored)
    before = {path for path in site.rglob("*") if path.is_file()}
    environment = {
        **os.environ,
        "PYTHONPATH": str(site),
        "PYTHONDONTWRITEBYTECODE": "1",
        "XDG_DATA_HOME": str(tmp_path / "data"),
    }
    environment.pop("VISIONGATE_REPOSITORY", None)
    program = (
        "import export, sys; assert export.__file__.startswith(sys.argv.pop());"
        "from export.demo.command import STATES, WEIGHTS; print(STATES, WEIGHTS);"
        "from export.__main__ import main; main()"
    )
    command = [sys.executable, "-c", program, "face_detection", "--weights", "demo", str(site)]
    result = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=tmp_path, env=environment
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.startswith("demo/training demo/weights\n")
    repository = tmp_path / "data" / "visiongate" / "model_repository"
    assert f"In {repository}: face_detection\n" in result.stdout
    assert result.stdout.endswith("Next: visiongate up\n")
    assert sorted(path.name for path in repository.iterdir()) == ["face_detection"]
    assert {path for path in site.rglob("*") if path.is_file()} == before
