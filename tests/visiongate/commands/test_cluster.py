"""What `visiongate cluster` refuses before it asks a server."""

from pathlib import Path

from typer.testing import CliRunner

from visiongate.cli import app


def refusal(*arguments: object) -> str:
    command = ["cluster", *map(str, arguments), "--server", "127.0.0.1:1", "--timeout", "1"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 1
    return str(result.exception)


def test_a_template_without_a_place_for_the_name(tmp_path: Path) -> None:
    refused = refusal(tmp_path, "--words", "cat", "--template", "a photo")
    assert refused == "--template 'a photo' has no {}, which a name takes the place of"


def test_photos_in_place_of_names(tmp_path: Path) -> None:
    photo = tmp_path / "a.jpg"
    photo.touch()
    assert refusal(tmp_path, "--words", photo).startswith(f"{photo} is a file here, and is read as a name: ")


def test_a_least_size_of_groups_whose_number_is_given(tmp_path: Path) -> None:
    refused = refusal(tmp_path, "--clusters", 2, "--min-size", 4)
    assert refused == "--min-size goes without --clusters, which shares all photos out"
