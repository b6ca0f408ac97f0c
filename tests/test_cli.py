import ctypes.util
import json
import os
import re
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import typer

import export
import gateway
import visiongate
from gateway import cli as server_cli
from gateway.settings import Settings
from gateway.settings_sources import CONFIG_VARIABLE, flag, variable
from visiongate import cli
from visiongate.commands import common

COMMAND = str(Path(sys.executable).parent / "visiongate")


@pytest.fixture(autouse=True)
def _wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(common.console, "width", 200)
    monkeypatch.setattr(common.errors, "width", 200)


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Run the command, and return its exit code."""
    monkeypatch.setattr(sys, "argv", ["visiongate", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


def options(name: str) -> dict[str, Any]:
    command: Any = typer.main.get_command(server_cli.app)
    return {option: parameter for parameter in command.commands[name].params for option in parameter.opts}


GPU_OPTIONS = {"--gpu", "--gpus", "--gpu-instances", "--gpu-memory-limit"}


def test_every_setting_is_an_option() -> None:
    flags = {flag(name) for name in Settings.model_fields}
    assert set(options("serve")) == {*flags, "--config"}
    assert set(options("up")) == {*flags, "--config", "--demo", *GPU_OPTIONS} - {"--triton"}
    assert set(options("settings")) == {*flags, "--config", "--json"}
    assert options("serve")["--port"].help == Settings.model_fields["port"].description


def test_settings_say_where_they_come_from(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "visiongate.toml"
    file.write_text('max_images = 8\nuri_hosts = ["a.com"]\nport = 1\n')
    monkeypatch.setenv("VISIONGATE_CONFIG", str(file))
    monkeypatch.setenv("VISIONGATE_OTLP_ENDPOINT", "http://user:pass@collector:4317")
    assert run(monkeypatch, "settings", "--json", "--port", "2") == 0
    entries = {entry["name"]: entry for entry in json.loads(capsys.readouterr().out)}
    assert set(entries) == set(Settings.model_fields)
    shown = {name: (entry["value"], entry["source"]) for name, entry in entries.items()}
    assert shown["max_images"] == (8, "file")
    assert shown["uri_hosts"] == (["a.com"], "file")
    assert shown["port"] == (2, "flag")
    assert shown["otlp_endpoint"] == ("http://***@collector:4317", "environment")
    assert shown["max_pages"] == (32, "default")
    assert shown["triton_wait_s"] == ("Infinity", "default")
    assert entries["port"]["meaning"] == Settings.model_fields["port"].description

    assert run(monkeypatch, "settings") == 0
    table = capsys.readouterr().out
    assert "pass" not in table.replace("passes", "")
    assert re.search(r"max_images\s+│\s+8\s+│\s+file\s+│ Most images of", table)


def test_config_goes_before_its_variable(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "other.toml"
    file.write_text("port = 7")
    monkeypatch.setenv("VISIONGATE_CONFIG", "/nowhere.toml")
    assert run(monkeypatch, "settings", "--json", "--config", str(file)) == 0
    assert {"port": 7}.items() <= {e["name"]: e["value"] for e in json.loads(capsys.readouterr().out)}.items()
    assert run(monkeypatch, "settings") == 1
    assert "cannot read the settings in /nowhere.toml" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["serve", "up", "settings"])
def test_faults_are_sentences(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    monkeypatch.setenv("VISIONGATE_PROT", "1")
    assert run(monkeypatch, command, "--port", "x") == 1
    assert capsys.readouterr().err.splitlines() == [
        "error: the environment variable VISIONGATE_PROT is not a setting: did you mean VISIONGATE_PORT?",
        "--port is 'x': it must be a whole number from 0 to 65535",
    ]


def test_what_other_commands_read_is_no_fault(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    packages = [Path(package.__path__[0]) for package in (visiongate, gateway, export)]
    sources = [path.read_text() for package in packages for path in package.rglob("*.py")]
    named = set(re.findall(r"\bVISIONGATE_[A-Z_]+\b", "\n".join(sources)))
    # The file of settings, and what a parent tells its workers, who read no settings of the environment.
    others = named - {variable(name) for name in Settings.model_fields} - {CONFIG_VARIABLE}
    assert {"VISIONGATE_SERVER", "VISIONGATE_CACHE_DIR", "VISIONGATE_FONT"} <= others
    for name in others:
        monkeypatch.setenv(name, "something")
    assert run(monkeypatch, "settings", "--json") == 0
    assert "something" not in capsys.readouterr().out


@pytest.mark.skipif(bool(ctypes.util.find_library("cuda")), reason="this machine has NVIDIA's driver")
def test_gpus_that_are_not_there_are_no_silent_cpu(tmp_path: Path) -> None:
    command = [COMMAND, "up", "--demo", "--gpus", "0,1", "--port", "0"]
    environment = os.environ | {"VISIONGATE_CACHE_DIR": str(tmp_path / "cache")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert "--gpu needs NVIDIA's driver, which is not here (libcuda.so.1" in done.stderr
    assert not (tmp_path / "cache").exists(), "2 GB were fetched for nothing"


@pytest.mark.parametrize("host", ["127.0.0.1", "[::]"])
def test_a_triton_that_others_reach_says_that_it_has_no_keys(host: str) -> None:
    ports = ["--host", host, "--grpc-port", "0", "--http-port", "0", "--metrics-port", "0"]
    command = [COMMAND, "triton", "--demo", *ports]
    with subprocess.Popen(
        [*command, "--model-control", "explicit"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert f"gRPC at {host}:" in process.stdout.readline()
        process.terminate()
        said = process.communicate(timeout=30)[1]
        assert process.returncode == 0
    assert ("Triton has no keys and no TLS" in said) == (host == "[::]")


def test_tritonserver_gets_model_control_and_what_is_after_the_dashes() -> None:
    ports = ["--grpc-port", "0", "--http-port", "0", "--metrics-port", "0"]
    command = [COMMAND, "triton", "--demo", *ports]
    extra = ["--model-control", "explicit", "--", "--load-model=clip_text", "--log-verbose=1"]
    with subprocess.Popen(
        [*command, *extra], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        found = re.search(r"HTTP at (\S+),", process.stdout.readline())
        assert found
        with urllib.request.urlopen(f"http://{found[1]}/v2/models/clip_text") as answer:
            assert json.load(answer)["name"] == "clip_text"
        url = f"http://{found[1]}/v2/repository/models/clip_text/unload"
        urllib.request.urlopen(urllib.request.Request(url, b"{}")).close()
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(f"http://{found[1]}/v2/models/clip_image")
        caught.value.close()
        process.terminate()
        assert process.wait(30) == 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["explicit"], "explicit is no option"),
        (["--host", "10.0.0.7:8001"], "--host is '10.0.0.7:8001': it must be the name of a host"),
        (["--host", "192.0.2.1"], "cannot listen on 192.0.2.1:0: this machine does not have the address"),
        (["--gpu-instances", "2"], "--gpu-instances is for GPUs: give --gpu too"),
        (["--gpu", "--model-control", "poll"], "--gpu does not go with --model-control poll"),
        (["--", "--http-port=1"], "--http-port: visiongate gives tritonserver this argument itself"),
    ],
)
def test_arguments_of_tritonserver_that_make_no_sense(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str], says: str
) -> None:
    ports = ["--grpc-port", "0", "--http-port", "0", "--metrics-port", "0"]
    assert run(monkeypatch, "triton", "--demo", *ports, *arguments) == 1
    assert says in capsys.readouterr().err
