import inspect
from typing import Annotated, Any

import typer
from typer.testing import CliRunner

from visiongate.commands.signature import with_options

SIZE = inspect.Parameter(
    "size",
    inspect.Parameter.KEYWORD_ONLY,
    default=1,
    annotation=Annotated[int, typer.Option("--size", help="How large.")],
)


def test_typer_sees_the_options_in_place_of_the_first_parameter() -> None:
    app = typer.Typer()
    calls = []

    def command(square: int, name: str, loud: bool = False) -> None:
        """Draw something."""
        calls.append((square, name, loud))

    @app.command()
    @with_options(command, [SIZE])
    def run(**values: Any) -> None:
        command(values.pop("size") ** 2, **values)

    assert CliRunner().invoke(app, ["--size", "3", "cup", "--loud"]).exit_code == 0
    assert CliRunner().invoke(app, ["cup"]).exit_code == 0
    assert calls == [(9, "cup", True), (1, "cup", False)]
    page = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "200"}).output
    assert "Draw something." in page
    assert "How large." in page
    assert "square" not in page
