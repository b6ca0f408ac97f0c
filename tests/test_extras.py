import re
import tomllib
from pathlib import Path

import pytest

from gateway import extras, places
from gateway.extras import MissingPackagesError, install_hint, require

PYPROJECT = Path(__file__).parents[1] / "pyproject.toml"
# Of distributions whose modules have other names.
DISTRIBUTIONS = {
    "cv2": "opencv-python-headless",
    "doctr": "python-doctr",
    "open_clip": "open-clip-torch",
    "yaml": "pyyaml",
}


def test_the_command_fits_how_it_was_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert [install_hint(extra) for extra in extras.MODULES] == ["make exporter", "make onnx", "make ocr"]
    assert install_hint("gpu") == "pip install 'visiongate-server[gpu]'"
    monkeypatch.setattr(places, "_PARENT", tmp_path)
    assert install_hint("export") == "pip install 'visiongate-server[export]'"


def test_what_is_missing_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    require("export", "Exporting")
    monkeypatch.setattr(extras, "MODULES", {"export": ("numpy", "no_such", "nor_this")})
    with pytest.raises(MissingPackagesError) as caught:
        require("export", "Exporting")
    assert str(caught.value) == "Exporting needs more packages (no_such, nor_this): make exporter"


@pytest.mark.parametrize("extra", extras.MODULES)
def test_modules_are_those_of_the_distribution(extra: str) -> None:
    requirements = tomllib.loads(PYPROJECT.read_text())["project"]["optional-dependencies"][extra]
    names = {re.split(r"[\[<>=; ]", requirement)[0] for requirement in requirements}
    modules = {DISTRIBUTIONS.get(name, name.replace("_", "-")) for name in extras.MODULES[extra]}
    assert modules == names
