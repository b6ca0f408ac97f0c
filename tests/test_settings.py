import json
import math
from itertools import pairwise
from pathlib import Path

import pytest
from pydantic import ValidationError

from gateway.settings import Settings, allowed, group, metavar


def test_the_constructor_does_not_look_around(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VISIONGATE_PORT", "1")
    assert Settings().port == 50051
    assert Settings(port=0).port == 0
    with pytest.raises(ValidationError):
        Settings.model_validate({"prot": 0})


def test_json_carries_settings_to_other_processes() -> None:
    settings = Settings(uri_hosts=("a.com",), triton_wait_s=math.inf, repository=Path("x"))
    text = settings.model_dump_json()
    assert "Infinity" in json.loads(text, parse_constant=pytest.fail)["triton_wait_s"]
    assert Settings.model_validate_json(text) == settings


def test_the_repository_is_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert Settings().repository.is_absolute()
    assert Settings(repository=Path("models")).repository == tmp_path / "models"
    assert Settings(repository=Path("../x")).repository == tmp_path / ".." / "x"


def test_every_setting_explains_itself() -> None:
    for name, info in Settings.model_fields.items():
        assert info.description
        assert group(name)
        assert metavar(name)
        assert allowed(name)


def test_settings_of_a_group_stand_together() -> None:
    """Help shows each group once, in the order of the settings."""
    groups = [group(name) for name in Settings.model_fields]
    changes = [after for before, after in pairwise(["", *groups]) if before != after]
    assert len(changes) == len(set(groups))


@pytest.mark.parametrize("one", ["port", "http_port"])
def test_each_port_is_of_one_server(one: str) -> None:
    with pytest.raises(
        ValidationError, match=f"{one} and metrics_port are both 9000: each needs one of its own"
    ):
        Settings.model_validate({one: 9000, "metrics_port": 9000})
    Settings.model_validate({one: 9000, "metrics_port": 9000, "metrics_host": "127.0.0.2"})
    Settings(port=0, http_port=0, metrics_port=0)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("http_hosts", "https://vision.example.com"),
        ("http_hosts", "vision.example.com:8080"),
        ("http_hosts", "*.example.com"),
        ("http_origins", "app.example.com"),
        ("http_origins", "https://app.example.com/page"),
    ],
)
def test_names_and_origins_are_what_browsers_send(name: str, value: str) -> None:
    with pytest.raises(ValidationError, match=r"is not an? (name|origin)"):
        Settings.model_validate({name: (value,)})
    for right in (
        ("*", "vision.example.com", ".cluster.local") if name == "http_hosts" else ("*", "http://a:1")
    ):
        Settings.model_validate({name: (right,)})
