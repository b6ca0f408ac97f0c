"""What the small Segment Anything is taught, and that the exporter takes what it learnt."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from export import onnx_file, sam, weights
from export.demo import train_sam, training
from export.demo.scenes import FIRST_UNSEEN_SEED, Scene, Thing, draw
from export.demo.train_sam import Example, Learner, example, first_prompts, losses, turned
from export.weights import Options
from gateway.models.sam import BACKGROUND, BOX_MAX, BOX_MIN, FOREGROUND, PADDING, Prompt, SamSpec

CPU = torch.device("cpu")
SAM = SamSpec(image_size=160, mask_size=80)


def iou(one: np.ndarray[Any, Any], other: np.ndarray[Any, Any]) -> float:
    return float((one & other).sum() / (one | other).sum())


def box_of(mask: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], np.float32)


@pytest.mark.parametrize("size", [(480, 360), (240, 320), (320, 320)])
def test_the_gateway_makes_the_whole_masks_of_what_is_taught(size: tuple[int, int]) -> None:
    width, height = size
    ious = []
    for seed in range(FIRST_UNSEEN_SEED, FIRST_UNSEEN_SEED + 3):
        scene = draw(seed, width, height)
        seen = example(scene, SAM)
        assert seen.valid_size == SAM.valid_size((height, width))
        for thing, cover, box in zip(scene.things, seen.covers, seen.boxes, strict=True):
            logits = cover.astype(np.float32) - 127.5
            ious.append(
                iou(SAM.postprocess_mask(logits, seen.valid_size, (height, width)).whole(), thing.mask)
            )
            np.testing.assert_allclose(box / seen.ratio, box_of(cover > 0), atol=1)
    assert np.mean(ious) > 0.95


def lopsided() -> Example:
    """A bright patch near one corner that is the only thing."""
    mask = np.zeros((240, 320), np.bool_)
    mask[20:60, 40:160] = True
    image = np.where(mask[..., None], [250, 150, 50], 10).astype(np.uint8)
    return example(Scene(image, [Thing("red", "square", mask, box_of(mask))]), SAM)


def test_turned_views_show_the_thing_where_its_mask_and_box_are() -> None:
    views = set()
    for seed in range(100):
        seen = turned(lopsided(), np.random.default_rng(seed))
        [cover], [box], (height, width) = seen.covers, seen.boxes, seen.valid_size
        assert {height, width} == {120, 160}
        assert not seen.image[height:].any()
        assert not seen.image[:, width:].any()
        bright = (seen.image.max(2) > 130).reshape(80, 2, 80, 2).mean((1, 3))
        np.testing.assert_array_equal(bright, cover / 255)
        np.testing.assert_array_equal(box / 2, box_of(cover > 127))
        views.add((height, *box, *seen.image[bright.repeat(2, 0).repeat(2, 1) == 1].mean(0).round()))
    # Three choices of two, and six orders of the colours: nearly all of the 48 in a hundred tries.
    assert len(views) > 35


def test_prompts_point_at_what_they_ask_for() -> None:
    random = np.random.default_rng(1)
    kinds = set()
    for seed in range(20):
        seen = example(draw(seed, 320, 240), SAM)
        things, points, labels = first_prompts(seen, 8, random)
        for thing, prompt, label in zip(things, points, labels, strict=True):
            kinds.add((thing >= 0, *label))
            if tuple(label) == (BOX_MIN, BOX_MAX):
                error = np.abs(prompt.reshape(4) - seen.boxes[thing])
                assert (error < 0.3 * np.tile(seen.boxes[thing][2:] - seen.boxes[thing][:2], 2)).all()
                continue
            column, row = (prompt[0] // 2).astype(int)
            if thing >= 0:
                assert seen.covers[thing, row, column] > 127
            else:
                assert not seen.covers[:, row, column].any()
                assert (prompt[0] < seen.valid_size[::-1]).all()
        assert (things[:-1] >= 0).all()
    assert kinds == {(True, BOX_MIN, BOX_MAX), (True, FOREGROUND, PADDING), (False, FOREGROUND, PADDING)}


def test_losses_are_of_the_single_mask_the_best_of_three_and_the_iou() -> None:
    truth = torch.zeros(1, 2, 8, 8)
    truth[:, :, 2:6, 2:6] = 1
    right, wrong = (truth * 2 - 1) * 60, torch.full_like(truth, 60.0)
    is_thing = torch.tensor([[True, False]])

    def terms(mask: torch.Tensor, three: list[torch.Tensor], ious: list[float]) -> dict[str, float]:
        # On the second prompt there is nothing: its masks are not judged, and its IoU is 0.
        predicted = torch.tensor([ious, [0.0] * 4])[None]
        outputs = (mask, predicted[..., 0], torch.stack(three, 2), predicted[..., 1:])
        return {name: float(value) for name, value in losses(outputs, truth, is_thing).items()}

    perfect = terms(right, [wrong, right, wrong], [1, 0.25, 1, 0.25])
    assert perfect == pytest.approx(dict.fromkeys(perfect, 0), abs=1e-4)
    other = terms(wrong, [wrong, wrong, wrong], [1, 0.25, 0.25, 0.25])
    assert other["mask"] == pytest.approx(other["best of three"])
    assert other["mask"] > 1
    assert other["IoU"] == pytest.approx(3 * 0.75**2 / 8)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"SCENES": 4, "IMAGES": 2, "PROMPTS": 4, "REFINED": 2, "REPORTED": 1}.items():
        monkeypatch.setattr(train_sam, name, value)


@pytest.mark.usefixtures("quick")
def test_the_losses_fall_on_a_fixed_batch() -> None:
    learner = Learner(CPU, scenes=2)
    optimizer = torch.optim.AdamW(learner.network.parameters(), lr=2e-3)
    values = []
    for _ in range(8):
        # Of a step that refines the masks too.
        terms = learner.loss(np.random.default_rng(1), 0.0)
        optimizer.zero_grad()
        torch.stack(list(terms.values())).sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        values.append({name: value.item() for name, value in terms.items()})
    assert all(values[-1][name] < 0.8 * values[0][name] for name in values[0])


@pytest.mark.usefixtures("quick")
def test_more_points_say_where_the_mask_is_wrong() -> None:
    learner = Learner(CPU, scenes=1)
    truth = torch.zeros(1, 3, 80, 80)
    truth[..., 20:40, 20:40] = 1
    mask = torch.full_like(truth, -1.0)
    mask[:, 0, 20:40, 20:30] = 1  # too little
    mask[:, 1, 20:60, 20:40] = 1  # too much
    mask[:, 2, 20:40, 20:40] = 1  # right
    counts = set()
    for seed in range(12):
        points, labels = learner._more_points(mask, truth, np.random.default_rng(seed))
        counts.add(labels.shape[2])
        x, y = points[0, ..., 0] / 2, points[0, ..., 1] / 2
        assert (labels[0, 0] == FOREGROUND).all()
        assert ((x[0] >= 30) & (x[0] < 40) & (y[0] >= 20) & (y[0] < 40)).all()
        assert (labels[0, 1] == BACKGROUND).all()
        assert (y[1] >= 40).all()
        assert (labels[0, 2] == FOREGROUND).all()
        assert ((x[2] >= 20) & (x[2] < 40)).all()
    assert counts == {0, 1, 2}


@pytest.mark.long
@pytest.mark.usefixtures("quick")
def test_a_stopped_training_goes_on_as_if_it_had_not_been(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "SAVE_EVERY_S", -1)
    recipe = training.Recipe(steps=3, learning_rate=1e-3, warmup=1, report_every=3)

    class Stopped(Learner):
        steps = 0

        def loss(self, random: np.random.Generator, progress: float) -> dict[str, torch.Tensor]:
            if self.steps == 2:
                raise KeyboardInterrupt
            self.steps += 1
            return super().loss(random, progress)

    def weights_of(name: str, make: type[Learner]) -> dict[str, torch.Tensor]:
        state, folder = tmp_path / f"{name}.pt", tmp_path / name
        training.train(make, recipe, name, state=state, weights=folder)
        return sam.build(Options(weights=str(folder)))[0].state_dict()  # type: ignore[no-any-return]

    at_once = weights_of("at_once", Learner)
    with pytest.raises(KeyboardInterrupt):
        weights_of("stopped", Stopped)
    gone_on = weights_of("stopped", Learner)
    assert all(torch.equal(at_once[name], gone_on[name]) for name in at_once)


@pytest.mark.long
@pytest.mark.usefixtures("quick")
def test_what_is_trained_is_what_is_exported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    train_sam.run("cpu", 1, tmp_path / "states", tmp_path / "weights")
    assert "from point" in capsys.readouterr().err
    assert (tmp_path / "weights" / "sam" / "model.safetensors").stat().st_size < 2e6
    monkeypatch.setattr(weights, "DEMO_WEIGHTS", tmp_path / "weights")
    demo = Options(weights="demo")
    model, variant = sam.build(demo)
    assert variant == "demo"
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    # Placing compares the files with PyTorch.
    encoder, decoder = onnx_file.place(sam.prepare(demo), tmp_path / "repository")
    assert max(encoder.error, decoder.error) < 1e-4
    config = " ".join((tmp_path / "repository" / "sam_decoder" / "config.pbtxt").read_text().split())
    for name, value in {"variant": "demo", "image_size": "160", "mask_size": "80"}.items():
        assert f'key: "{name}" value {{ string_value: "{value}" }}' in config


def test_masks_for_the_report_come_in_the_order_of_the_prompts() -> None:
    learner = Learner(CPU, scenes=0)
    image = draw(FIRST_UNSEEN_SEED, 240, 180).image
    point = Prompt(np.array([[60.0, 50.0]]), np.array([FOREGROUND]))
    box = Prompt(box=np.array([20, 30, 150, 160], np.float32))
    with torch.no_grad():
        together = learner.segment(image, [point, box, point])
        [alone] = learner.segment(image, [box])
        three = learner.segment(image, [point], multimask=True)
    np.testing.assert_array_equal(together[1][0], alone[0])
    np.testing.assert_array_equal(together[0][0], together[2][0])
    assert together[0][1] != pytest.approx(together[1][1], abs=1e-3)
    assert three[0][0].shape == image.shape[:2]
