"""What is in the images, and what is not. Run by `make images`."""

import json
import re
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from export.demo.serving import REPOSITORY
from images.base import ensure_base
from images.build import COPY, EXPORTER, GATEWAY
from images.buildah import PROJECT, inspect, mounted
from images.container import Mount, running

MAX_GATEWAY_BYTES = 350e6
SBOM = "usr/share/sbom/visiongate-gateway.cdx.json"
USER = 10001


@pytest.fixture(scope="module")
def gateway() -> Iterator[Path]:
    with mounted(GATEWAY) as root:
        yield root


@pytest.fixture(scope="module")
def exporter() -> Iterator[Path]:
    with mounted(EXPORTER) as root:
        yield root


def installed(root: Path) -> dict[str, str]:
    """Return the version of each package in the environment of an image."""
    found: dict[str, str] = {}
    for metadata in root.glob("opt/visiongate/lib/python3.*/site-packages/*.dist-info/METADATA"):
        text = metadata.read_text()
        name, version = (
            re.findall(rf"^{field}: (.+)$", text, re.MULTILINE)[0] for field in ("Name", "Version")
        )
        found[str(canonicalize_name(name))] = version
    return found


def test_the_gateways_own_layers_are_small() -> None:
    assert inspect(GATEWAY).size_over(inspect(ensure_base())) <= MAX_GATEWAY_BYTES


def test_versions_are_those_that_are_pinned(gateway: Path) -> None:
    lines = (PROJECT / "requirements.lock").read_text().splitlines()
    pinned = {
        canonicalize_name(name): version for name, _, version in (line.partition("==") for line in lines)
    }
    ours = {"visiongate", "visiongate-server"}
    assert {
        name: version for name, version in installed(gateway).items() if name not in ours
    }.items() <= pinned.items()


def test_the_bill_of_materials_lists_what_is_installed(gateway: Path) -> None:
    bill = json.loads((gateway / SBOM).read_text())
    assert bill["bomFormat"] == "CycloneDX"
    listed = {canonicalize_name(each["name"]): each["version"] for each in bill["components"]}
    assert listed == installed(gateway)
    assert all(each["purl"].startswith("pkg:pypi/") for each in bill["components"] if "purl" in each)


def test_nothing_is_there_that_serving_does_not_need(gateway: Path) -> None:
    assert not installed(gateway).keys() & {
        "torch",
        "onnx",
        "onnxruntime",
        "pip",
        "setuptools",
        "uv",
        "pytest",
    }
    folders = [gateway / "opt/visiongate/bin", gateway / "usr/bin"]
    programs = {path.name for folder in folders for path in folder.iterdir()}
    assert not programs & {"pip", "uv", "gcc", "cc", "ld", "strip", "git", "curl"}
    assert not [
        *gateway.glob("root/.cache/*"),
        *gateway.glob("tmp/*"),
        *gateway.glob("var/lib/apt/lists/*_*"),
    ]


@pytest.mark.parametrize("tag", [GATEWAY, EXPORTER, COPY])
def test_the_user_is_no_root_and_cannot_become_it(tag: str) -> None:
    assert inspect(tag).user == f"{USER}:{USER}"
    if tag == COPY:
        return  # of a base of its own
    with mounted(tag) as root:
        modes = {path: path.lstat().st_mode for path in root.rglob("*")}
        files = {path: mode for path, mode in modes.items() if stat.S_ISREG(mode)}
        assert files
        assert not [path for path, mode in files.items() if mode & (stat.S_ISUID | stat.S_ISGID)]


@pytest.mark.parametrize("tag", [GATEWAY, EXPORTER])
def test_the_user_can_change_nothing_that_runs(tag: str) -> None:
    with mounted(tag) as root:
        for path in (root / "opt").rglob("*"):
            entry = path.lstat()
            assert (entry.st_uid, entry.st_gid) == (0, 0), path
            assert path.is_symlink() or not entry.st_mode & stat.S_IWOTH, path


def test_all_modules_are_compiled(gateway: Path) -> None:
    [packages] = gateway.glob("opt/visiongate/lib/python3.*/site-packages")
    for name in ("gateway", "visiongate", "numpy", "grpc"):
        sources = {path.stem for path in (packages / name).glob("*.py")}
        compiled = {path.name.split(".")[0] for path in (packages / name / "__pycache__").glob("*.pyc")}
        assert sources
        assert sources <= compiled
    # Of Python's own library, what the base came without.
    assert [*gateway.glob("usr/**/asyncio/__pycache__/base_events*.pyc")]


@pytest.mark.parametrize("tag", [GATEWAY, EXPORTER])
def test_labels_say_what_it_is(tag: str) -> None:
    version = re.findall(r'^version = "(.+)"', (PROJECT / "pyproject.toml").read_text(), re.MULTILINE)[0]
    labels = inspect(tag).labels
    assert labels["org.opencontainers.image.version"] == version
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert labels["org.opencontainers.image.base.name"]
    assert f"localhost/{labels['org.opencontainers.image.title']}" == tag


def test_models_are_the_repository_and_nothing_else(models: Path) -> None:
    def files(folder: Path) -> dict[str, bytes]:
        return {
            str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()
        }

    assert files(models) == files(REPOSITORY)
    assert [path.name for path in models.parent.iterdir()] == ["models"]
    assert all(path.stat().st_mode & stat.S_IROTH for path in models.rglob("*"))


def test_the_copy_fills_an_empty_volume(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    with running(COPY, Mount(tmp_path, "/copy", writable=True)) as container:
        assert container.wait() == 0, container.log()
    copied = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")}
    assert copied == {str(path.relative_to(REPOSITORY)) for path in REPOSITORY.rglob("*")}


def test_the_exporter_has_what_its_extra_asks_for(exporter: Path) -> None:
    text = (PROJECT / "pyproject.toml").read_text()
    wanted = re.findall(r"^ocr = \[(.+)\]$", text, re.MULTILINE)[0]
    names = {canonicalize_name(Requirement(each).name) for each in re.findall(r'"(.+?)"', wanted)}
    assert names <= installed(exporter).keys()


def test_the_exporter_fills_a_volume_without_a_network(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    command = [*inspect(EXPORTER).command[:2], "doctr", "--variant", "pp_ocrv6_small"]
    mount = Mount(tmp_path, "/models", writable=True)
    with running(EXPORTER, mount, command=command, tmp_size="256m") as container:
        assert container.wait(300) == 0, container.log()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["doctr_detection", "doctr_recognition"]
    assert (tmp_path / "doctr_detection/1/model.onnx").stat().st_uid == USER
