"""Every command of the READMEs is understood by the command it names, and their links lead somewhere."""

import re
import tomllib
from pathlib import Path

import pytest
import typer

import helm
from bench.gpu import __main__ as bench_gpu
from road.environments import ROOT
from visiongate import cli

READMES = [
    *(
        ROOT / name / "README.md"
        for name in ("", "deploy", "export", "gateway", "proto", "tests", "model_repository")
    ),
    ROOT / "gateway" / "HTTP.md",
    ROOT / "deploy" / "capacity.md",
]
# tests/proto/ runs those of proto/README.md, and tests/deploy/test_capacity.py those of capacity.md.
WITH_COMMANDS = [path for path in READMES if path.parent.name != "proto" and path.name != "capacity.md"]
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def commands(path: Path) -> list[str]:
    """The commands in the indented lines of a README, outside of fenced blocks."""
    text = re.sub(r"^```.*?^```$", "", path.read_text(), flags=re.MULTILINE | re.DOTALL)
    lines = re.findall(r"^    (\S.*)$", text, re.MULTILINE)
    return [command for line in lines for command in line.split(" && ")]


ALL = [(path.relative_to(ROOT).as_posix(), command) for path in WITH_COMMANDS for command in commands(path)]
# Of proto/README.md, those of its chapters about many images and folders; no program runs them.
ALL += [
    ("proto/README.md", command)
    for command in commands(ROOT / "proto" / "README.md")
    if re.match(r"visiongate |pip install \"\./proto\[", command)
]


def test_readmes_have_commands() -> None:
    assert {path for path, _ in ALL} == {
        "README.md",
        "deploy/README.md",
        "export/README.md",
        "gateway/README.md",
        "gateway/HTTP.md",
        "proto/README.md",
        "tests/README.md",
    }
    assert (ROOT / "README.md").stat().st_size <= 8192


@pytest.mark.parametrize(("path", "command"), ALL)
def test_commands_are_understood(
    path: str, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = re.sub(r" > \S+$", "", command)
    words = [quoted or plain for quoted, plain in re.findall(r'"([^"]+)"|(\S+)', command)]
    match words:
        case ["helm", "lint" | "template", *_] | ["kubectl", "kustomize", _]:
            monkeypatch.chdir(ROOT)
            done = helm.run(*words)
            assert done.returncode == 0, done.stderr
            return
        case ["docker" | "helm" | "kind" | "kubectl", *_] | [_, "docker", *_]:
            # There is no Docker here and no cluster. The project's files that they name are there.
            assert all((ROOT / word).exists() for word in words if re.match("deploy/|export/", word))
            return
    monkeypatch.chdir(tmp_path)
    match words:
        case ["make", target]:
            assert target in TARGETS
        case ["pip", "install", local] if local.startswith("./proto["):
            extras = re.findall(r"[a-z]+", local.removeprefix("./proto"))
            known = tomllib.loads((ROOT / "proto/pyproject.toml").read_text())["project"]
            assert set(extras) <= known["optional-dependencies"].keys()
        case ["pip", "install", *wheels]:
            # tests/road/test_distributions.py installs them.
            assert all(
                re.fullmatch(r"dist/visiongate(_server)?-0\.1\.0-py3-none-any\.whl", name) for name in wheels
            )
        case [".venv/bin/visiongate" | "visiongate", name, *arguments]:
            understand(name, arguments)
        case ["curl", *_] | ["head", *_]:
            pass
        case [variable, ".venv/bin/python" | "python3", "-m", "bench.gpu", *arguments] if "=" in variable:
            bench_gpu.parser().parse_args(arguments)
        case ["python3", script, *_]:
            # A copy that `bench.gpu pack` makes.
            assert (ROOT / "tests/bench/gpu" / Path(script).name).is_file()
        case [".venv/bin/python", script, *_]:
            assert (ROOT / script).is_file()
        case _:
            pytest.fail(f"{path} has a command of a kind that no test knows: {command}")


def understand(name: str, arguments: list[str]) -> None:
    """Parse the arguments as the command would, without running it."""
    group = typer.main.get_command(cli.app)
    command = group.get_command(None, name)  # type: ignore[attr-defined]
    assert command is not None, f"there is no command {name}"
    inner = getattr(command, "commands", {})
    if arguments and arguments[0] in inner:
        command = inner[arguments[0]]
        arguments = arguments[1:]
    for word in arguments:
        if re.search(r"\.(jpg|png|onnx|pkl|toml)$", word):
            # Of the reader's own.
            Path(word).parent.mkdir(parents=True, exist_ok=True)
            Path(word).touch()
    command.make_context(name, list(arguments))


@pytest.mark.parametrize("path", READMES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(path: Path) -> None:
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#\s]*)#?([^)\s]*)\)", path.read_text()):
        file = (path.parent / target).resolve() if target else path
        assert file.exists(), target
        if anchor:
            assert anchor in anchors(file), f"{target}#{anchor}"


def anchors(path: Path) -> set[str]:
    """The names that a README's headings have as targets of links."""
    headings = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\s-]", "", heading.lower()).replace(" ", "-") for heading in headings}
