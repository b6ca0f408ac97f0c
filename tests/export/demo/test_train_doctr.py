"""What docTR's networks are taught, and that the exporter takes what they learnt."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from export import doctr, doctr_weights, onnx_file, weights
from export.demo import train_doctr, train_doctr_detection, train_doctr_recognition, training
from export.demo.scenes import ALPHABET, FIRST_UNSEEN_SEED, Plan, draw
from export.demo.train_doctr_detection import DetectionLearner, draw_batch, target_map
from export.demo.train_doctr_recognition import RecognitionLearner, cut, print_page, visible
from export.doctr_weights import new_detector, new_recognizer
from export.errors import ExportError
from export.families.doctr import DEMO
from export.weights import Options
from gateway.models.boxes import iou
from gateway.models.doctr_detection import MapThresholds, find_boxes, remove_padding

CPU = torch.device("cpu")
DETECTION = MapThresholds(bin_threshold=0.5, box_threshold=0.5, unclip_ratio=0.5, min_box_size=2)


@pytest.mark.parametrize("size", [(480, 360), (360, 480), (400, 400)])
def test_the_gateway_finds_the_words_on_the_target_maps(size: tuple[int, int]) -> None:
    width, height = size
    shares = []
    for seed in range(FIRST_UNSEEN_SEED, FIRST_UNSEEN_SEED + 10):
        scene = draw(seed, width, height, Plan(words=(1, 5)))
        boxes, _ = find_boxes(target_map(scene, DEMO.image_size, 0.5), DETECTION)
        assert len(boxes) == len(scene.words)
        places = remove_padding(boxes.reshape(-1, 2, 2), (height, width)) * [width, height]
        truth = np.stack([word.box for word in scene.words])
        shares += iou(truth, places.reshape(-1, 4).astype(np.float32)).max(1).tolist()
    assert min(shares) > 0.6
    assert np.mean(shares) > 0.82


def test_words_are_not_in_the_padding() -> None:
    images, maps = draw_batch(np.random.default_rng(5), 6, 0.5)
    assert images.shape == (*maps.shape, 3) == (6, DEMO.image_size, DEMO.image_size, 3)
    assert (maps.mean((1, 2)) > 0.001).any()
    for image, text in zip(images, maps, strict=True):
        rows, columns = (image > 0).any((1, 2)), (image > 0).any((0, 2))
        assert not text[~rows].any()
        assert not text[:, ~columns].any()


def test_printed_words_end_where_their_ink_does() -> None:
    printed = [one for seed in range(5) for one in print_page(seed)]
    assert len(printed) > 50
    for one in printed:
        assert len(one.ends) == len(one.text)
        assert (np.diff(one.ends) > 0).all()
        width, height = one.box[2:] - one.box[:2]
        # The last character takes more than its ink, most in a font whose characters are all as wide.
        assert -0.1 * height < one.ends[-1] - width < 0.35 * height
        assert one.pixels.shape[0] >= height
        assert one.pixels.shape[1] >= width


def test_a_part_of_a_word_shows_the_characters_in_it() -> None:
    one = next(one for one in print_page(1) if len(one.text) >= 6)
    ends = one.ends
    assert visible(one, 0, ends[-1]) == one.text
    assert visible(one, ends[1], ends[3]) == one.text[2:4]
    most = ends[1] + 0.7 * (ends[2] - ends[1])
    assert visible(one, 0, most) == one.text[:3]
    assert visible(one, most, ends[-1]) == one.text[3:]


def test_narrow_words_are_cut_whole_and_wide_ones_in_pieces() -> None:
    random = np.random.default_rng(0)
    for one in print_page(2) + print_page(3):
        width, height = one.box[2:] - one.box[:2]
        texts = {cut(random, one)[0] for _ in range(20)}
        if width < 6 * height:
            assert texts == {one.text}
        else:
            assert all(text in one.text for text in texts)
        if width > 9 * height:
            assert one.text not in texts


def test_both_losses_fall_on_a_fixed_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train_doctr_detection, "BATCH", 1)
    monkeypatch.setattr(train_doctr_recognition, "BATCH", 8)
    for make in (lambda: DetectionLearner(CPU), lambda: RecognitionLearner(CPU, pages=1)):
        torch.manual_seed(0)
        learner: DetectionLearner | RecognitionLearner = make()
        optimizer = torch.optim.AdamW(learner.network.parameters(), lr=2e-3)
        losses = []
        for _ in range(6):
            loss = torch.stack(list(learner.loss(np.random.default_rng(3), 0.0).values())).sum()
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            losses.append(loss.item())
        assert losses[-1] < 0.95 * losses[0]


def test_the_recognizer_reads_with_all_of_the_alphabet() -> None:
    network = new_recognizer(DEMO)
    assert network.vocab == ALPHABET
    assert network.linear.out_features == len(ALPHABET) + 1


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train_doctr_detection, "BATCH", 1)
    monkeypatch.setattr(train_doctr_recognition, "BATCH", 2)
    monkeypatch.setattr(train_doctr_recognition, "PAGES", 1)
    for module in (train_doctr_detection, train_doctr_recognition):
        monkeypatch.setattr(module, "UNSEEN_SCENES", 1)


@pytest.mark.usefixtures("quick")
@pytest.mark.long
def test_what_is_trained_is_what_is_exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train_doctr.run("cpu", 2, tmp_path / "states", tmp_path / "weights")
    monkeypatch.setattr(weights, "DEMO_WEIGHTS", tmp_path / "weights")
    files = {path.stem: load_file(path) for path in (tmp_path / "weights" / "doctr").iterdir()}
    assert set(files) == {DEMO.detector, DEMO.recognizer}
    networks = doctr_weights.build(Options(weights="demo"))
    assert networks.variant == "demo"
    for name, model in ((DEMO.detector, networks.detector), (DEMO.recognizer, networks.recognizer)):
        for key, value in model.state_dict().items():
            assert files[name][key].dtype == (torch.float16 if value.is_floating_point() else value.dtype)
            assert torch.equal(value, files[name][key].to(value.dtype)), key


@pytest.mark.usefixtures("quick")
@pytest.mark.long
def test_a_stopped_training_ends_with_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = replace(train_doctr_recognition.RECIPE, steps=3)

    def go(state: str, weights: str) -> dict[str, torch.Tensor]:
        training.train(RecognitionLearner, recipe, "test", state=tmp_path / state, weights=tmp_path / weights)
        return load_file(tmp_path / weights / f"{DEMO.recognizer}.safetensors")

    at_once = go("one.pt", "one")

    class StopError(Exception):
        pass

    original, calls = RecognitionLearner.loss, []

    def loss(*arguments: Any) -> Any:
        calls.append(arguments)
        if len(calls) == 3:
            raise StopError
        return original(*arguments)

    with monkeypatch.context() as context:
        context.setattr(training, "SAVE_EVERY_S", -1)
        context.setattr(RecognitionLearner, "loss", loss)
        with pytest.raises(StopError):
            go("two.pt", "two")
    assert not (tmp_path / "two").exists()
    in_two = go("two.pt", "two")
    assert all(torch.equal(value, in_two[name]) for name, value in at_once.items())


def test_demo_weights_export(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`place` compares the files with docTR."""
    torch.manual_seed(0)
    (tmp_path / "doctr").mkdir()
    for name, model in ((DEMO.detector, new_detector(DEMO)), (DEMO.recognizer, new_recognizer(DEMO))):
        training.save_halves(model.state_dict(), tmp_path / "doctr" / f"{name}.safetensors")
    monkeypatch.setattr(weights, "DEMO_WEIGHTS", tmp_path)
    export = doctr.prepare(Options(weights="demo"))
    onnx_file.place(export, tmp_path / "repository")
    detection, recognition = (graph.parameters for graph in export.graphs)
    assert detection["variant"] == recognition["variant"] == "demo"
    found = MapThresholds(
        float(detection["bin_threshold"]),
        float(detection["box_threshold"]),
        float(detection["unclip_ratio"]),
        int(detection["min_box_size"]),
    )
    assert found == DETECTION
    assert recognition["vocabulary"] == ALPHABET


def test_demo_weights_have_one_vocabulary(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="leave --vocabulary out"):
        doctr_weights.build(Options(weights="demo", vocabulary=tmp_path / "vocabulary.txt"))
