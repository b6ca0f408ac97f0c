import re
from pathlib import Path

import pytest

from gateway.settings_sources import load

PROJECT = Path(__file__).parents[2]
DOCKER = PROJECT / "deploy/docker"


def text(name: str) -> str:
    return (DOCKER / f"{name}.Dockerfile").read_text()


@pytest.mark.parametrize("name", ["gateway", "exporter"])
def test_the_version_is_the_projects(name: str) -> None:
    version = re.findall(r'^version = "(.+)"$', (PROJECT / "pyproject.toml").read_text(), re.MULTILINE)[0]
    assert f"ARG VERSION={version}\n" in text(name)


def test_the_gateways_defaults_are_settings_and_its_ports_are_exposed() -> None:
    variables = dict(re.findall(r"(VISIONGATE_\w+)=(\S+)", text("gateway")))
    settings = load({}, variables, None).settings
    exposed = {int(port) for port in re.findall(r"^EXPOSE (.+)$", text("gateway"), re.MULTILINE)[0].split()}
    assert exposed == {settings.port, settings.http_port, settings.metrics_port} == {50051, 8080, 9090}
    assert {settings.host, settings.http_host, settings.metrics_host} == {"0.0.0.0"}
    assert settings.drain_s > 0
    assert settings.repository == Path("/models")
    assert settings.log_format == "json"


def test_what_is_copied_is_not_ignored() -> None:
    ignored = (PROJECT / ".dockerignore").read_text().splitlines()
    kept = {line.removeprefix("!") for line in ignored if line.startswith("!")}
    for name in ("gateway", "exporter"):
        copies = re.findall(r"^COPY (?!--)(.+) \S+$", text(name), re.MULTILINE)
        for source in " ".join(copies).split():
            assert any(source == path or source.startswith(f"{path}/") for path in kept), source
            assert (PROJECT / source).exists()


def test_overrides_name_packages_that_are_pinned() -> None:
    lines = (DOCKER / "overrides.txt").read_text().splitlines()
    names = [line.partition(";")[0] for line in lines if not line.startswith("#")]
    pinned = re.findall(r"^(.+)==", (PROJECT / "requirements.lock").read_text(), re.MULTILINE)
    assert set(names) <= set(pinned)
