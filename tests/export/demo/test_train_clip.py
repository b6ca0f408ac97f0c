import colorsys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from google.protobuf import text_format
from safetensors.torch import load_file
from torch import Tensor
from tritonclient.grpc import model_config_pb2

from export import clip, onnx_file, weights
from export.demo import scenes, train_clip, training
from export.demo.scenes import Plan
from export.demo.train_clip import OPEN, Learner, Square, matches
from export.weights import Options, randomise
from gateway.models.clip import ClipSpec

CPU = torch.device("cpu")
DEMO = Options(weights="demo")
TEXTS = [
    "a red circle",
    "An orange star, next to the purple cross.",
    "two astronauts' horses in 1983",
    "naïve café ☕ 圓形 \N{GRINNING FACE}",
    "&lt;b&gt; x   y",
]


def said(*things: tuple[str | None, str | None]) -> list[tuple[int, int]]:
    """Content of captions: None is left open."""
    indices = [
        (
            OPEN if colour is None else train_clip.COLOURS.index(colour),
            OPEN if kind is None else train_clip.KINDS.index(kind),
        )
        for colour, kind in things
    ]
    return [*indices, (0, 0)][:2]


@pytest.fixture(scope="module")
def model() -> Any:
    """The demo architecture with seeded weights that can be halves."""
    from open_clip import CLIP

    model = CLIP(**clip.DEMO)
    clip.set_preprocessing(model, {})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        randomise(model)
    return model.half().float().eval()


@pytest.fixture
def folder(model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(weights, "DEMO_WEIGHTS", tmp_path)
    folder = tmp_path / "clip"
    folder.mkdir()
    training.save_halves(model.state_dict(), folder / "model.safetensors")
    train_clip.write_vocabulary(folder / clip.DEMO_VOCABULARY)
    return folder


def test_captions_that_are_true_of_a_picture() -> None:
    shown = np.array(
        [
            said(("red", "circle"), ("blue", "square")),
            said(("red", "square"), ("blue", "circle")),
            said(("red", "circle")),
            said(("", "face")),
        ]
    )
    captions = {
        "both": said(("red", "circle"), ("blue", "square")),
        "in the other order": said(("blue", "square"), ("red", "circle")),
        "half of it": said(("red", "circle")),
        "one open": said((None, "square"), ("red", "circle")),
        "open colour": said((None, "circle")),
        "open kind": said(("red", None)),
        "face": said(("", "face")),
    }
    true = matches(shown, np.array(list(captions.values()))).T.astype(int).tolist()
    assert dict(zip(captions, true, strict=True)) == {
        "both": [1, 0, 0, 0],
        "in the other order": [1, 0, 0, 0],
        "half of it": [0, 0, 1, 0],
        "one open": [1, 0, 0, 0],
        "open colour": [0, 0, 1, 0],
        "open kind": [0, 0, 1, 0],
        "face": [0, 0, 0, 1],
    }


def test_captions_say_what_is_shown() -> None:
    random = np.random.default_rng(0)
    content = np.array(said(("orange", "circle"), ("blue", "cross")))
    captions = {train_clip.caption(random, content) for _ in range(100)}
    assert len(captions) > 50
    for text in captions:
        assert "orange circle" in text
        assert "blue cross" in text
        assert "a blue" in text or "an blue" not in text
    open_colour = train_clip.caption(random, np.array(said((None, "star"))))
    assert "star" in open_colour
    assert not any(colour in open_colour for colour in scenes.COLOURS)


def test_most_rivals_are_false() -> None:
    random = np.random.default_rng(0)
    for shown in (said(("red", "star")), said(("red", "star"), ("blue", "cross")), said(("", "word"))):
        content = np.array(shown)
        rivals = np.stack([train_clip.rival(random, content) for _ in range(200)])
        assert 0.7 < 1 - matches(content[None], rivals).mean() <= 1
        # The captions' words are there for all of them.
        assert all(train_clip.caption(random, one) for one in rivals)


def test_pictures_show_their_colours(model: Any) -> None:
    """Whole pictures and cuts: most of what is colourful has the colour of the one thing."""
    pictures = train_clip.draw_pictures(Square(model), range(40))
    assert pictures.images.shape[1:] == (64, 64, 3)
    assert pictures.images.shape[0] == len(pictures.contents) > 40
    checked = 0
    for image, content in zip(pictures.images, pictures.contents, strict=True):
        if content[1, 1] or not content[0, 0]:
            continue
        colourful = image[np.ptp(image, axis=2) > 60] / 255
        hues = np.array([colorsys.rgb_to_hsv(*pixel)[0] for pixel in colourful]) * 360
        away = (hues - scenes.COLOURS[train_clip.COLOURS[content[0, 0]]][0] + 180) % 360 - 180
        assert abs(np.median(away)) < 15
        checked += 1
    assert checked > 15


def test_contents_that_cannot_be_told() -> None:
    plan = Plan((1, 6), (0, 0), (0, 0))
    counts = set()
    for seed in range(40):
        scene = scenes.draw(seed, 64, 64, plan)
        content = train_clip.content_of(scene)
        phrases = {thing.phrase for thing in scene.things}
        assert (content is not None) == (len(phrases) == len(scene.things) <= 2)
        if content is not None:
            counts.add(int((content[:, 1] > 0).sum()))
    assert counts == {1, 2}


def test_the_vocabulary(folder: Path) -> None:
    from open_clip.tokenizer import SimpleTokenizer

    tokenize = SimpleTokenizer(str(folder / clip.DEMO_VOCABULARY), context_length=32)
    assert tokenize.vocab_size == clip.DEMO["text_cfg"]["vocab_size"]
    random = np.random.default_rng(0)
    for colour, kind in ((1, 1), (2, 5), (6, OPEN), (0, train_clip.FACE), (0, train_clip.WORD)):
        for text in (train_clip.caption(random, np.array([(colour, kind), (3, 4)])) for _ in range(20)):
            words = text.replace(",", " ,").replace(".", " .").replace("'s", " ' s").split()
            assert len(tokenize.encode(text)) == len(words)
    for text in TEXTS[:4]:
        assert tokenize.decode(tokenize.encode(text)).replace(" ", "") == text.lower().replace(" ", "")


def test_training_leaves_the_towers_as_they_are(model: Any) -> None:
    """The text tower is trained on shorter rows than it will read."""
    ids = train_clip.tokenizer()(TEXTS)
    torch.testing.assert_close(train_clip.encode(model, ids), model.encode_text(ids), atol=1e-4, rtol=1e-4)


class Interrupted(Learner):
    """Stops in its third step."""

    left = 2

    def loss(self, random: np.random.Generator, progress: float) -> dict[str, Tensor]:
        if self.left == 0:
            raise KeyboardInterrupt
        self.left -= 1
        return super().loss(random, progress)


def test_a_stopped_training_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "SAVE_EVERY_S", -1)
    monkeypatch.setattr(train_clip, "BATCH", 16)
    recipe = replace(train_clip.RECIPE, steps=4, warmup=1, bfloat16=False)
    for name, learners in (("straight", [Learner]), ("resumed", [Interrupted, Learner])):
        for learner in learners:
            make = partial(learner, pool=12, examined=4)
            try:
                training.train(make, recipe, "clip", state=tmp_path / f"{name}.pt", weights=tmp_path / name)
            except KeyboardInterrupt:
                assert not (tmp_path / name).exists()
    straight, resumed = (load_file(tmp_path / name / "model.safetensors") for name in ("straight", "resumed"))
    assert all(torch.equal(value, resumed[name]) for name, value in straight.items())
    assert (tmp_path / "straight" / clip.DEMO_VOCABULARY).is_file()


def test_the_loss_of_a_batch_falls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train_clip, "BATCH", 16)
    torch.manual_seed(0)
    learner = Learner(CPU, pool=12, examined=4)
    optimizer = torch.optim.AdamW(learner.network.parameters(), lr=2e-3)
    losses = []
    for _ in range(12):
        loss = torch.stack(list(learner.loss(np.random.default_rng(0), 0).values())).sum()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.6 * losses[0]


def test_true_captions_have_their_shares() -> None:
    """Two captions are true of the first picture, one of the second, the last of none."""
    true = np.array([[1, 1, 0, 0], [0, 0, 1, 0]], np.bool_)
    pictures, captions = torch.eye(3)[[0, 1]], torch.eye(3)[[0, 0, 1, 2]]
    terms = train_clip.contrast(pictures, captions, true, torch.tensor(np.log(100.0)))
    assert terms["to captions"].item() == pytest.approx(np.log(2) / 2, abs=1e-3)
    assert terms["to pictures"].item() == pytest.approx(0, abs=1e-3)


@pytest.mark.usefixtures("folder")
def test_the_exporter_reads_what_was_trained(model: Any, tmp_path: Path) -> None:
    built, variant = clip.build(DEMO)
    assert variant == "demo"
    assert all(torch.equal(value, built.state_dict()[name]) for name, value in model.state_dict().items())
    repository = tmp_path / "repository"
    # Each agrees with open_clip, which reads our vocabulary.
    placed = onnx_file.place(clip.prepare(DEMO), repository)
    assert {one.model for one in placed} == {"clip_image", "clip_text"}

    parameters: dict[str, str] = {}
    for one in placed:
        config = text_format.Parse(
            (repository / one.model / "config.pbtxt").read_text(), model_config_pb2.ModelConfig()
        )
        parameters |= {key: value.string_value for key, value in config.parameters.items()}
    assert (parameters["family"], parameters["variant"]) == ("clip", "demo")
    spec = ClipSpec.from_parameters(parameters, repository / "clip_text")
    assert spec.logit_scale == pytest.approx(model.logit_scale.exp().item(), rel=1e-5)
    tokenize = train_clip.tokenizer()
    for text in TEXTS:
        np.testing.assert_array_equal(spec.encode(text, truncate=True), tokenize([text])[0].numpy())


def test_pictures_are_made_square_as_the_gateway_does(model: Any) -> None:
    scene = scenes.draw(scenes.FIRST_UNSEEN_SEED, 230, 150)
    spec = ClipSpec(64, "shortest", "bicubic", 0, 32, 100.0, 64, None, 0, 0)  # type: ignore[arg-type]
    np.testing.assert_array_equal(Square(model)(scene.image), spec.preprocess(scene.image))
