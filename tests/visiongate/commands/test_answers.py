"""Every command against a real server: what it prints, as a table and as JSON, and what it draws."""

import asyncio
import io
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw
from typer.testing import CliRunner, Result

from gateway.server import Gateway
from gateway.settings import Settings
from visiongate import Answer, AnswerInfo, Client, Model, Page, Word
from visiongate.cli import app, main
from visiongate.command_error import CommandError
from visiongate.commands import options

Ask = Callable[..., Awaitable[Result]]
AskJson = Callable[..., Awaitable[list[dict[str, Any]]]]

STRANGE = ["[/] red circle", "[sic] blue square", ":smile: [link=x]"]


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """A red circle and a blue square, in a file whose name looks like Rich's markup."""
    image = Image.new("RGB", (320, 240), "white")
    canvas = ImageDraw.Draw(image)
    canvas.ellipse((30, 60, 130, 160), fill=(220, 30, 30))
    canvas.rectangle((190, 70, 280, 160), fill=(30, 60, 220))
    path = tmp_path / "[sic] :smile:" / "[/] scene.png"
    path.parent.mkdir(parents=True)
    image.save(path)
    return path


@pytest.fixture(scope="session")
async def demo_address(demo_settings: Settings) -> AsyncIterator[str]:
    async with Gateway(demo_settings) as server:
        yield f"127.0.0.1:{server.port}"


@pytest.fixture
def ask(demo_address: str) -> Ask:
    """Runs a command that must not fail."""

    async def run(*arguments: object, stdin: bytes | None = None) -> Result:
        command = [*map(str, arguments), "--server", demo_address]
        # In a thread: the server answers in this one.
        result = await asyncio.to_thread(CliRunner().invoke, app, command, input=stdin)
        assert result.exception is None, repr(result.exception)
        return result

    return run


@pytest.fixture
def ask_json(ask: Ask) -> AskJson:
    """Runs a command with --json, and returns what it prints."""

    async def run(*arguments: object) -> list[dict[str, Any]]:
        result = await ask(*arguments, "--json")
        assert result.stdout.count("\n") == 1
        entries = json.loads(result.stdout)
        assert isinstance(entries, list)
        return entries

    return run


def shows(answer: Result, value: float, digits: int = 3) -> bool:
    """Whether a table has the value of JSON, with fewer digits."""
    numbers = map(float, re.findall(r"[-+]?\d+\.\d+", answer.stdout))
    return any(number == pytest.approx(value, abs=0.6 * 10**-digits) for number in numbers)


async def test_detect(ask: Ask, ask_json: AskJson, photo: Path, tmp_path: Path) -> None:
    command = ["detect", photo, "red circle", "blue square", "--min-score", "0.5"]
    entries = await ask_json(*command)
    assert {entry["phrase"] for entry in entries} == {"red circle", "blue square"}
    picture = tmp_path / "new" / "[/] out.png"
    answer = await ask(*command, "--save", picture)
    for entry in entries:
        assert shows(answer, entry["score"])
        assert ", ".join(f"{value:.0f}" for value in entry["box"]) in answer.stdout
    assert answer.stderr == f"wrote {picture}\n"
    with Image.open(picture) as drawn, Image.open(photo) as before:
        assert drawn.size == before.size
        assert (np.asarray(drawn) != np.asarray(before)).any()


async def test_words_are_no_markup(ask: Ask, photo: Path) -> None:
    picture = photo.parent / "out.png"
    every = ["--min-score", "0", "--max-detections", "1000"]
    found = await ask("detect", photo, *STRANGE, *every)
    cut = await ask("segment", photo, "--phrase", STRANGE[0], "--min-score", "0", "--max-detections", "2")
    named = await ask("classify", photo, *STRANGE, "--save", picture)
    compared = await ask("compare", photo, *STRANGE, "--photo", photo)
    embedded = await ask("embed", *(word for text in STRANGE for word in ("--text", text)))
    seen = await ask("embed", photo)
    for text in STRANGE:
        assert f"│ {text} " in named.stdout
        assert f"│ {text} " in compared.stdout
        assert f"│ {text} " in embedded.stdout
    assert any(f"│ {text} " in found.stdout for text in STRANGE)
    assert f"│ {STRANGE[0]} " in cut.stdout
    assert f"│ {photo} " in compared.stdout
    assert f"│ {photo} " in seen.stdout
    assert named.stderr == f"wrote {picture}\n"


async def test_what_was_read_is_no_markup(ask: Ask, photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = [Word("[/] [sic]", 1, np.array([[0, 0], [9, 0], [9, 9], [0, 9]], np.float32), 1)]
    page = Page([[words]], "[/] [sic]\n:smile:", 9, 9)
    monkeypatch.setattr(
        Client, "recognize_text", lambda self, images, **_: Answer([page] * len(images), AnswerInfo())
    )
    assert (await ask("ocr", photo)).stdout == "[/] [sic]\n:smile:\n"
    assert (await ask("ocr", photo, photo)).stdout == f"{photo}:\n{page.text}\n" * 2


async def test_a_caption(ask_json: AskJson, photo: Path) -> None:
    words = ["--caption", "a red circle", "--min-score", "0.3", "--min-token-score", "0.2"]
    found = await ask_json("detect", photo, *words)
    cut = await ask_json("segment", photo, *words)
    assert found
    assert found[0]["phrase_index"] is None
    assert [entry["phrase"] for entry in cut] == [entry["phrase"] for entry in found]


async def test_prompts(ask: Ask, ask_json: AskJson, photo: Path, tmp_path: Path) -> None:
    """A circle of 7854 pixels, a square of 8281."""
    by_box = await ask_json("segment", photo, "--box", "30,60,130,160", "--box", "190,70,280,160")
    assert [len(entry["masks"]) for entry in by_box] == [1, 1]
    circle, square = (entry["masks"][0]["area"] for entry in by_box)
    assert circle == pytest.approx(7854, rel=0.2)
    assert square == pytest.approx(8281, rel=0.2)
    by_point = await ask_json("segment", photo, "--point", "80,110 90,120")
    assert [len(entry["masks"]) for entry in by_point] == [1]
    models = {model["task"]: model["variant"] for model in await ask_json("models")}
    command = [
        *("--box", "30,60,130,160", "--point", "80,110", "--background", "10,10 200,20", "--multimask"),
        *("--model", models["segmentation"]),
    ]
    picture = tmp_path / "out.png"
    answer = await ask("segment", photo, *command, "--save", picture)
    entries = await ask_json("segment", photo, *command)
    assert [len(entry["masks"]) for entry in entries] == [3]
    for mask in entries[0]["masks"]:
        assert f" {mask['area']} " in answer.stdout
        assert shows(answer, mask["predicted_iou"])
    assert picture.is_file()


async def test_everything(ask: Ask, ask_json: AskJson, photo: Path, tmp_path: Path) -> None:
    command = [
        "segment",
        photo,
        "--everything",
        "--points-per-side",
        "4",
        "--min-iou",
        "0",
        "--min-stability",
        "0",
    ]
    entries = await ask_json(*command)
    assert len(entries) > 1
    answer = await ask(*command, "--max-masks", "1", "--save", tmp_path / "out.png")
    assert f" {entries[0]['mask']['area']} " in answer.stdout
    assert shows(answer, entries[0]["stability_score"])
    assert "as many as --max-masks allows (1)" in answer.stderr


async def test_answers_that_were_cut_say_so(ask: Ask, photo: Path) -> None:
    command = ["detect", photo, "red circle", "--min-score", "0"]
    assert (
        "as many as --max-detections allows (1), the best"
        in (await ask(*command, "--max-detections", 1)).stderr
    )
    assert (await ask("detect", photo, "red circle", "--min-score", "0.5", "--nms-iou", "0.5")).stderr == ""
    answer = await ask(*command, "--json", "--max-detections", 1)
    assert len(json.loads(answer.stdout)) == 1
    assert "--max-detections" in answer.stderr


async def test_nothing_found(ask: Ask, photo: Path) -> None:
    for command in (
        ["detect", photo, "cup", "--min-score", "1"],
        ["segment", photo, "--phrase", "cup", "--min-score", "1"],
        ["gaze", photo, "--min-score", "1"],
        ["ocr", photo, "--min-pixel-score", "1"],
    ):
        answer = await ask(*command)
        assert answer.stdout == ""
        assert "found" in answer.stderr
        assert (await ask(*command, "--json")).stdout.startswith("[")


async def test_faces(ask: Ask, ask_json: AskJson, photo: Path, tmp_path: Path) -> None:
    command = ["gaze", photo, "--box", "30,60,130,160"]
    (entry,) = await ask_json(*command)
    answer = await ask(*command, "--save", tmp_path / "out.png")
    for angle in ("yaw", "pitch"):
        assert shows(answer, entry[angle])
        assert shows(answer, entry[f"{angle}_degrees"], digits=1)
    assert "30, 60, 130, 160" in answer.stdout


async def test_classes_and_similarities(ask_json: AskJson, photo: Path) -> None:
    ranking = await ask_json("classify", photo, "cat", "red circle", "--template", "a {}")
    assert sum(entry["probability"] for entry in ranking) == pytest.approx(1, abs=1e-4)
    texts = await ask_json("compare", photo, "a red circle", "--photo", photo)
    assert list(texts[0]) == ["text", "similarity"]
    assert texts[1] == {"photo": str(photo), "similarity": pytest.approx(1, abs=1e-5)}


async def test_embeddings(ask: Ask, ask_json: AskJson, photo: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "photos"
    answer = await ask("embed", photo, photo, "--out", out)
    assert answer.stderr == f"wrote {out}\n"
    vectors = np.load(out)
    entries = await ask_json("embed", photo)
    assert entries[0]["photo"] == str(photo)
    assert np.array_equal(np.array(entries[0]["embedding"], np.float32), vectors[1])
    assert f" {vectors.shape[1]} " in answer.stdout


@pytest.mark.parametrize(
    ("command", "field"),
    [
        (["embed"], "images[1].encoded"),
        (["ocr"], "images[1].encoded"),
        (["compare", "PHOTO"], "candidates[1]"),
    ],
)
async def test_a_damaged_photo_does_not_fail_the_others(
    command: list[str], field: str, demo_address: str, photo: Path, tmp_path: Path
) -> None:
    damaged = tmp_path / "damaged.png"
    await asyncio.to_thread(damaged.write_bytes, b"no image")
    name, *subject = command
    photos = [str(photo), str(damaged), str(photo)]
    words = [word for path in photos for word in ("--photo", path)] if subject else photos
    result = await asyncio.to_thread(
        CliRunner().invoke,
        app,
        [name, *(str(photo) for _ in subject), *words, "--json", "--server", demo_address],
    )
    assert result.exit_code == 1
    assert result.stderr.startswith(f"error: {damaged}: INVALID_ARGUMENT: {field}")
    assert result.stderr.count("\n") == 1
    first, second, third = json.loads(result.stdout)
    assert first == third
    assert list(second) == ["photo", "error"]


async def test_a_photo_from_standard_input(ask: Ask, photo: Path, tmp_path: Path) -> None:
    command = ["red circle", "--min-score", "0.5"]
    picture = tmp_path / "out.png"
    by_name = await ask("detect", photo, *command)
    piped = await ask(
        "detect", "-", *command, "--save", picture, stdin=await asyncio.to_thread(photo.read_bytes)
    )
    assert piped.stdout == by_name.stdout
    assert piped.stderr == f"wrote {picture}\n"


async def test_models(ask: Ask, ask_json: AskJson, monkeypatch: pytest.MonkeyPatch) -> None:
    entries = await ask_json("models")
    answer = await ask("models")
    assert answer.stderr == ""
    for entry in entries:
        assert entry["family"] in answer.stdout
        assert str(entry["input_size"]) in answer.stdout
    away = [Model("detection", "[/]", "v", is_default=True, ready=False, input_size=1)]
    monkeypatch.setattr(Client, "list_models", lambda self: away)
    assert "None of these models is ready" in (await ask("models")).stderr
    monkeypatch.setattr(Client, "list_models", lambda self: [])
    assert "This server offers no model" in (await ask("models")).stderr


SAVING = [
    ["detect", "PHOTO", "cup"],
    ["segment", "PHOTO", "--phrase", "cup"],
    ["segment", "PHOTO", "--box", "1,2,3,4"],
    ["segment", "PHOTO", "--everything"],
    ["classify", "PHOTO", "cup"],
    ["gaze", "PHOTO"],
    ["ocr", "PHOTO"],
]
MISTAKES: list[tuple[list[str], str]] = [
    *(
        (
            [*command, "--save", "out/noext"],
            "--save: no picture can be written to out/noext: let its name",
        )
        for command in SAVING
    ),
    *(([*command, "--save", "PHOTO"], "would overwrite the photo") for command in SAVING),
    (["embed", "PHOTO", "--out", "PHOTO"], "would overwrite the photo"),
    (["embed", "PHOTO", "--out", "/proc/out.npy"], "--out /proc/out.npy cannot be written"),
    (["embed"], "give photos, or texts with --text"),
    (["embed", "PHOTO", "--text", "cat"], "give photos, or texts with --text"),
    (["embed", "--text", "PHOTO"], "is read as a text: leave out --text"),
    (["detect", "PHOTO", "PHOTO"], 'for photo in *.jpg; do visiongate detect "$photo" truck wheel; done'),
    (["classify", "PHOTO", "PHOTO"], "is read as a label: one photo a call"),
    (["segment", "PHOTO", "--phrase", "PHOTO"], "is read as a phrase"),
    (["compare", "PHOTO", "PHOTO"], "put --photo before each but the first"),
    (["compare", "PHOTO"], "give what to compare the photo with"),
    (["ocr", "PHOTO", "PHOTO", "--save", "out.png"], "--save draws on one photo, and here are 2"),
    (["ocr", "photos/*.jpg"], "no file matches photos/*.jpg"),
    (["gaze", "PHOTO", "--box", "1,2,3"], "'1,2,3' is not 4 numbers"),
    (["detect", "https://example.com/a.png", "cup", "--save", "out.png"], "only the server fetches"),
]


@pytest.mark.parametrize(("command", "says"), MISTAKES)
def test_mistakes_are_told_before_the_server_is_asked(
    command: list[str], says: str, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def call(*arguments: Any) -> None:
        raise AssertionError("the server was asked")

    monkeypatch.setattr(options.PatientClient, "call", call)
    monkeypatch.chdir(photo.parent)
    result = CliRunner().invoke(app, [str(photo) if word == "PHOTO" else word for word in command])
    assert isinstance(result.exception, CommandError), repr(result.exception)
    assert says in str(result.exception)
    assert "\n" not in str(result.exception)
    assert [path.name for path in photo.parent.iterdir()] == [photo.name]


def test_a_failure_is_one_sentence(
    photo: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = photo.parent / "[/] [link=x] none.png"
    monkeypatch.setattr("sys.argv", ["visiongate", "gaze", str(missing)])
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO()))
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    assert capsys.readouterr() == ("", f"error: no file matches {missing} (in {Path.cwd()})\n")


def test_without_a_server_the_clients_sentence_is_shown(
    photo: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["visiongate", "gaze", str(photo), "--server", "127.0.0.1:9"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert "127.0.0.1:9" in err
