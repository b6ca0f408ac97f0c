import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from gateway.api_keys import ApiKey, ApiKeys, changing, read_keys
from visiongate.cli import app


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "new" / "keys.toml"


def keys(*arguments: str, file: Path) -> Result:
    return CliRunner().invoke(app, ["keys", *arguments, "--file", str(file)])


def test_a_key_is_printed_once_alone_and_works(path: Path) -> None:
    result = keys("add", "mobile-app", file=path)
    assert result.exit_code == 0
    text = result.stdout.strip()
    assert ApiKeys(path).authenticate({"x-api-key": text}) == "mobile-app"
    listed = keys("list", file=path)
    assert "mobile-app" in listed.stdout
    assert text not in listed.output + path.read_text()


def test_a_removed_key_is_gone_and_the_others_stay(path: Path) -> None:
    for name in ("first", "second"):
        keys("add", name, file=path)
    assert keys("remove", "first", file=path).exit_code == 0
    assert [key.name for key in read_keys(path)] == ["second"]
    assert keys("remove", "second", file=path).exit_code == 0
    assert read_keys(path) == ()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["add", "app"], "already has a key app"),
        (["add", "a b"], "not a name for a key"),
        (["remove", "other"], "has no key other"),
    ],
)
def test_mistakes_change_nothing(path: Path, arguments: list[str], says: str) -> None:
    keys("add", "app", file=path)
    before = path.read_text()
    result = keys(*arguments, file=path)
    assert isinstance(result.exception, ValueError)
    assert says in str(result.exception)
    assert path.read_text() == before


def test_a_broken_file_is_not_written_over(path: Path) -> None:
    path.parent.mkdir()
    path.write_text("[app")
    for arguments in (["add", "app"], ["remove", "app"], ["list"]):
        assert "not a file of API keys" in str(keys(*arguments, file=path).exception)
    assert path.read_text() == "[app"


def test_changes_at_the_same_time_all_last(path: Path) -> None:
    command = [sys.executable, "-m", "visiongate", "keys", "add", "--file", str(path)]
    names = [f"app-{number}" for number in range(4)]
    with changing(path) as held:  # so that all of them wait for it
        processes = [subprocess.Popen([*command, name], stdout=subprocess.DEVNULL) for name in names]
        held.append(ApiKey.generate("first")[0])
        time.sleep(1)
    assert [process.wait(200) for process in processes] == [0] * 4
    assert {key.name for key in read_keys(path)} == {"first", *names}
    assert path.stat().st_mode & 0o777 == 0o600
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_a_folder_that_cannot_be_written_is_one_sentence() -> None:
    error = keys("add", "app", file=Path("/proc/none/keys.toml")).exception
    assert str(error).startswith("cannot write the API keys in /proc/none/keys.toml: ")
