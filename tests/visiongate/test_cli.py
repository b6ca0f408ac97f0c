"""The command itself: with and without the server's distribution, on any terminal."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
import typer

from visiongate import cli

COMMAND = str(Path(sys.executable).parent / "visiongate")


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Run the command in this process, and return its exit code."""
    monkeypatch.setattr(sys, "argv", ["visiongate", *arguments])
    monkeypatch.setattr(cli, "handle_stop_signals", lambda _: {})
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


def process(*arguments: str, command: Sequence[str] = (COMMAND,), **variables: str) -> str:
    """Run the command in a process of its own, and return what it prints."""
    done = subprocess.run(
        [*command, *arguments], env=os.environ | variables, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.decode("ascii" if "PYTHONIOENCODING" in variables else "utf-8")


@pytest.mark.parametrize("name", cli.SERVER_COMMANDS)
def test_a_server_command_without_the_server_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    monkeypatch.setattr(cli, "_entry_points", dict)
    for arguments in ([], ["--port", "1", "more"], ["--help"]):
        assert run(monkeypatch, name, *arguments) == 1
        assert capsys.readouterr().err == (
            f"error: `visiongate {name}` is part of the server: {cli.INSTALL_SERVER}\n"
        )


@pytest.mark.parametrize(
    ("file", "module", "says"),
    [
        ("gateway/__init__.py", "gateway.cli", "another package `gateway`, at PATH/gateway, "),
        ("gateway.py", "gateway.cli", "another package `gateway`, at PATH/gateway.py, "),
        ("other.py", "no_such_package_of_ours.cli", "visiongate-server is not complete"),
    ],
)
def test_a_server_that_cannot_be_imported_is_explained(
    tmp_path: Path, file: str, module: str, says: str
) -> None:
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).touch()
    program = (
        "import sys; from importlib.metadata import EntryPoint; from visiongate import cli\n"
        f"sys.path.insert(0, {str(tmp_path)!r}); sys.argv = ['visiongate', 'up']\n"
        f"point = EntryPoint('up', '{module}:app', cli.ENTRY_POINTS)\n"
        "cli._entry_points = lambda: {'up': point}\n"
        "cli.main()\n"
    )
    done = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert says.replace("PATH", str(tmp_path)) in done.stderr
    assert "Traceback" not in done.stderr


def test_the_entry_points_are_those_that_can_be_missed() -> None:
    found = cli._entry_points()
    assert set(found) == set(cli.SERVER_COMMANDS)
    assert all(isinstance(added, EntryPoint) for added in found.values())


@pytest.mark.parametrize(
    ("name", "loads_none_of"),
    [
        ("detect", ("gateway", "export", "httpx", "prometheus_client", "opentelemetry", "torch", "mcp")),
        ("batch", ("pyarrow", "fsspec", "av", "faiss", "sklearn")),
        (
            "settings",
            ("gateway.server", "gateway.embedded", "export", "tritonclient", "opentelemetry.exporter"),
        ),
        ("keys", ("gateway.server", "gateway.embedded", "export", "tritonclient", "opentelemetry.exporter")),
        ("up", ("gateway.server", "gateway.embedded", "export", "torch")),
    ],
)
def test_a_command_loads_what_it_needs(name: str, loads_none_of: Sequence[str]) -> None:
    program = (
        "import sys, atexit, json; sys.argv = ['visiongate', *sys.argv[1:]]\n"
        "atexit.register(lambda: print('LOADED', json.dumps(list(sys.modules))))\n"
        "from visiongate_command import main; main()\n"
    )
    printed = process(name, "--help", command=(sys.executable, "-c", program))
    loaded = json.loads(printed.split("LOADED")[1])
    assert [module for module in loaded if module.startswith(tuple(loads_none_of))] == []


def test_the_clients_commands_are_those_of_its_modules() -> None:
    group: Any = typer.main.get_command(cli.app)
    own = [name for name in group.list_commands(None) if name not in cli.SERVER_COMMANDS]
    assert own == [
        "batch",
        "classify",
        "compare",
        "detect",
        "embed",
        "gaze",
        "health",
        "mcp",
        "models",
        "ocr",
        "segment",
    ]


def test_python_m_visiongate_is_the_command() -> None:
    for command in ([COMMAND], [sys.executable, "-m", "visiongate"]):
        printed = process("--help", command=command)
        assert all(name in printed for name in ("detect", *cli.SERVER_COMMANDS))


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["detect", "--help"],
        ["segment", "--help"],
        ["up", "--help"],
        ["triton", "--help"],
        ["export", "--help"],
        ["demo", "--help"],
        ["settings"],
        ["settings", "--json"],
    ],
)
def test_a_terminal_of_ascii_shows_everything(arguments: list[str]) -> None:
    printed = process(*arguments, PYTHONIOENCODING="ascii", TERM="dumb", LC_ALL="C", COLUMNS="120")
    if "--json" in arguments:
        assert any(entry["name"] == "max_images" for entry in json.loads(printed))
    else:
        assert "+-" in printed


def test_the_place_of_tritons_environment_is_told() -> None:
    for name in ("up", "triton"):
        assert "VISIONGATE_CACHE_DIR" in process(name, "--help")
