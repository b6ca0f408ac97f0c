import pytest
from typer.testing import CliRunner

from visiongate.cli import app
from visiongate.command_error import CommandError


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (
            [],
            "give one way to say what is cut out: --phrase or --caption, --box and --point, or --everything",
        ),
        (["--multimask"], "give one way"),
        (["--phrase", "cup", "--box", "1,2,3,4"], "give one way"),
        (["--point", "1,2", "--everything"], "give one way"),
        (
            ["--phrase", "cup", "--multimask"],
            "--multimask does not go with --phrase: it is for --box and --point",
        ),
        (
            ["--caption", "cup", "--min-iou", "0"],
            "--min-iou does not go with --caption: it is for --everything",
        ),
        (["--box", "1,2,3,4", "--nms-iou", "0"], "--nms-iou does not go with --box: it is for --phrase and"),
        (["--everything", "--nms-iou", "0"], "--nms-iou does not go with --everything"),
        (["--background", "1,2"], "--background says what is not the object"),
        (["--box", "1,2,3"], "'1,2,3' is not 4 numbers"),
    ],
)
def test_ways_do_not_mix(options: list[str], says: str) -> None:
    result = CliRunner().invoke(app, ["segment", __file__, *options])
    assert isinstance(result.exception, CommandError), result.output
    assert says in str(result.exception)
