"""What all commands about a folder of photos have in common."""

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from visiongate.cli import app
from visiongate.commands.folder import Photos
from visiongate.folders.policy import example

COMMANDS = [
    ["search", "a red car", "photos"],
    ["duplicates", "photos"],
    ["cluster", "photos"],
    ["label", "photos", "--phrase", "cup", "--out", "out"],
    ["moderate", "photos", "--policy", "policy.toml"],
]


class RecordedError(Exception):
    """Instead of a call: what it would have been made with."""


@pytest.fixture(autouse=True)
def _policy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("policy.toml").write_text(example())


def recorded(*command: str) -> tuple[Any, ...]:
    result = CliRunner().invoke(app, command)
    assert isinstance(result.exception, RecordedError), result.output
    return result.exception.args


@pytest.mark.parametrize("command", COMMANDS, ids=[name for name, *_ in COMMANDS])
def test_photos_are_any_inputs_of_a_job(command: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def record(texts: list[str], **options: Any) -> None:
        raise RecordedError(texts, options)

    monkeypatch.setattr("visiongate.batch.inputs.open_source", record)
    options = ["--column", "c", "--id-column", "i", "--every-nth", "5", "--all-files", "--kind", "csv"]
    assert recorded(*command, *options) == (
        ["photos"],
        {"column": "c", "id_column": "i", "every_nth": 5, "all_files": True, "kind": "csv"},
    )


@pytest.mark.parametrize("command", COMMANDS, ids=[name for name, *_ in COMMANDS])
def test_a_full_server_is_waited_for_as_long_as_in_a_job(
    command: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def record(photos: Photos, folder: str) -> None:
        raise RecordedError(photos.work().client_options)

    monkeypatch.setattr(Photos, "source", record)
    (options,) = recorded(*command)
    assert options["timeout"] == 600
    (options,) = recorded(*command, "--timeout", "7", "--server", "vision.example.com:443")
    assert (options["timeout"], options["address"]) == (7, ["vision.example.com:443"])
