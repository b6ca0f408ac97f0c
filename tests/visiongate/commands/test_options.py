"""The options of all commands reach the client, and leave out nothing that it takes without a reason."""

import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from client_operations import OPERATIONS
from visiongate.cli import app
from visiongate.command_error import CommandError
from visiongate.commands import options


class ClientMadeError(Exception):
    """Instead of a client: with what it would have been made."""


class CallMadeError(Exception):
    """Instead of a call: the operation's name, and what it would have been called with."""


@pytest.fixture
def _no_client(monkeypatch: pytest.MonkeyPatch) -> None:
    def make(*arguments: Any, **keywords: Any) -> None:
        raise ClientMadeError(arguments, keywords)

    monkeypatch.setattr(options, "PatientClient", make)


def arguments(command: list[str], **environment: str) -> tuple[str, dict[str, Any]]:
    """What the command makes its client with."""
    result = CliRunner().invoke(app, command, env=environment)
    assert isinstance(result.exception, ClientMadeError), result.output
    positional, keywords = result.exception.args
    assert positional == ()
    return keywords.pop("address"), keywords


OPTIONS = {
    "VISIONGATE_SERVER": "vision.example.com:443",
    "VISIONGATE_API_KEY": "vg_key",
    "VISIONGATE_TLS": "1",
    "VISIONGATE_CA": "ca.pem",
    "VISIONGATE_CERT": "cert.pem",
    "VISIONGATE_CERT_KEY": "key.pem",
}
MEANT = (
    "vision.example.com:443",
    {
        "timeout": 7,
        "api_key": "vg_key",
        "tls": True,
        "root_certificates": Path("ca.pem"),
        "client_certificate": Path("cert.pem"),
        "client_key": Path("key.pem"),
    },
)


@pytest.mark.usefixtures("_no_client")
def test_by_options() -> None:
    names = ["--server", "--api-key", "--tls", "--ca", "--cert", "--cert-key"]
    flags = [word for name, value in zip(names, OPTIONS.values(), strict=True) for word in (name, value)]
    flags.remove("1")
    assert arguments(["models", "--timeout", "7", *flags]) == MEANT


@pytest.mark.usefixtures("_no_client")
@pytest.mark.parametrize(
    "command",
    [
        ["models"],
        ["health"],
        ["detect", __file__, "cup"],
        ["segment", __file__, "--phrase", "cup"],
        ["embed", __file__],
        ["classify", __file__, "cup"],
        ["compare", __file__, "cup"],
        ["gaze", __file__],
        ["ocr", __file__],
    ],
)
def test_by_environment_for_every_command(command: list[str]) -> None:
    assert arguments([*command, "--timeout", "7"], **OPTIONS) == MEANT


@pytest.mark.usefixtures("_no_client")
def test_nothing_given() -> None:
    server, keywords = arguments(["models"])
    assert server == "127.0.0.1:50051"
    assert keywords.pop("timeout") == 120
    assert set(keywords.values()) == {None}
    assert arguments(["models", "--no-tls"])[1]["tls"] is False
    assert arguments(["models", "--timeout", "inf"])[1]["timeout"] == float("inf")


ON_WORDS = [
    *("--min-score", "0.1", "--min-token-score", "0.2", "--nms-iou", "0.3", "--max-detections", "4"),
    *("--model", "m"),
]
EVERY_OPTION = [
    ("detect", ["detect", "cup", "--caption", "a cup", *ON_WORDS]),
    (
        "segment_phrases",
        ["segment", "--phrase", "cup", "--caption", "a cup", *ON_WORDS, "--detection-model", "d"],
    ),
    (
        "segment",
        [
            *("segment", "--box", "1,2,3,4", "--point", "1,2", "--background", "3,4"),
            *("--multimask", "--model", "m"),
        ],
    ),
    (
        "segment_everything",
        [
            *("segment", "--everything", "--points-per-side", "8", "--crop-layers", "1", "--min-iou", "0.1"),
            *("--min-stability", "0.2", "--mask-nms-iou", "0.3", "--min-mask-area", "4"),
            *("--min-region-area", "5", "--max-masks", "6", "--model", "m"),
        ],
    ),
    ("embed_images", ["embed", "--no-normalize", "--model", "m"]),
    (
        "classify",
        ["classify", "cat", "--template", "{}", "--top-k", "1", "--truncate", "--model", "m"],
    ),
    ("compare", ["compare", "cat", "--photo", __file__, "--truncate", "--model", "m"]),
    (
        "estimate_gaze",
        [
            *("gaze", "--box", "1,2,3,4", "--min-score", "0.1", "--nms-iou", "0.2", "--max-faces", "3"),
            *("--small-faces", "--gaze-model", "m", "--face-detection-model", "f"),
        ],
    ),
    (
        "recognize_text",
        [
            *("ocr", "--rotated-words", "--detect-orientation", "--no-group-lines", "--group-blocks"),
            *("--min-pixel-score", "0.1", "--min-word-score", "0.2", "--min-confidence", "0.3"),
            *("--reading-order", "rows", "--model", "m"),
        ],
    ),
]
LEFT_OUT = {
    # Arrays of 256 x 256 numbers, which a shell can neither keep nor give back.
    "segment": {"mask_logits", "include_logits"},
    # How the search is built, which nobody sets without having read its code; Python has them.
    "segment_everything": {"crop_overlap_ratio", "crop_points_downscale", "stability_offset"},
    # About one photo: its error is that of the call.
    "classify": {"strict"},
}


@pytest.mark.parametrize(("name", "command"), EVERY_OPTION, ids=[name for name, _ in EVERY_OPTION])
def test_commands_take_what_the_client_takes(
    name: str, command: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def record(*arguments: Any, **keywords: Any) -> None:
        raise CallMadeError(arguments, keywords)

    monkeypatch.setattr(options.PatientClient, name, record)
    result = CliRunner().invoke(app, [command[0], __file__, *command[1:]])
    assert isinstance(result.exception, CallMadeError), result.output
    given, keywords = result.exception.args
    operation = inspect.signature(OPERATIONS[name])
    bound = operation.bind(*given[1:], **keywords).arguments
    assert operation.parameters.keys() - bound.keys() == LEFT_OUT.get(name, set())
    # Each option is heard: nothing is as it is where it is not given.
    for parameter, value in bound.items():
        assert isinstance(value, list | np.ndarray) or value != operation.parameters[parameter].default, (
            parameter
        )


def test_texts_are_embedded_with_all_options(monkeypatch: pytest.MonkeyPatch) -> None:
    def record(*arguments: Any, **keywords: Any) -> None:
        raise CallMadeError(arguments[1:], keywords)

    monkeypatch.setattr(options.PatientClient, "embed_texts", record)
    command = ["embed", "--text", "a", "--text", "b", "--truncate", "--no-normalize", "--model", "m"]
    result = CliRunner().invoke(app, command)
    assert isinstance(result.exception, CallMadeError), result.output
    assert result.exception.args == (
        (["a", "b"],),
        {"truncate": True, "normalize": False, "model": "m", "strict": False},
    )


@pytest.mark.parametrize(
    "name", ["models", "detect", "segment", "embed", "classify", "compare", "gaze", "mcp", "ocr"]
)
def test_help_teaches_by_example(name: str) -> None:
    result = CliRunner().invoke(app, [name, "--help"], env={"COLUMNS": "100"})
    lines = [line.strip() for line in result.output.splitlines()]
    assert any(line.startswith(f"visiongate {name} ") for line in lines), result.output


@pytest.mark.parametrize("seconds", ["0", "-1", "nan"])
@pytest.mark.parametrize("command", [["models"], ["batch", "embed", "photos", "--out", "out"]])
def test_a_timeout_that_is_no_time_is_refused(command: list[str], seconds: str) -> None:
    result = CliRunner().invoke(app, [*command, "--timeout", seconds])
    assert isinstance(result.exception, CommandError)
    assert str(result.exception) == f"--timeout is {seconds}: give seconds above 0, or inf for no limit"
