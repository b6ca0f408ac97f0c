from pathlib import Path

import numpy as np
import pytest
import torch

from export import grounding_dino, onnx_file, weights
from export.demo import scenes
from export.demo.train_grounding_dino import (
    FACE,
    SIZES,
    Example,
    Learner,
    dense_loss,
    draw,
    mirrored,
    owners,
    phrases_for,
    places_of,
    targets_for,
)
from export.errors import ExportError
from export.half import Precision
from export.weights import Options

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def learner() -> Learner:
    torch.manual_seed(0)
    return Learner(CPU)


def example(seed: int = 0) -> Example:
    return draw(seed, 160, 120)


def test_examples_are_what_can_be_found() -> None:
    names = {name for seed in range(20) for name in example(seed).names}
    assert FACE in names
    assert names <= {*scenes.PHRASES, FACE}
    boxes = np.concatenate([example(seed).boxes for seed in range(20)])
    assert ((boxes >= 0) & (boxes <= 1)).all()
    assert (boxes[:, 2:] > boxes[:, :2]).all()


def test_in_a_mirror_boxes_stay_on_their_objects() -> None:
    one = example(3)
    other = mirrored(one, True)
    assert mirrored(one, False) is one
    for before, after in zip(one.boxes, other.boxes, strict=True):
        x_min, y_min, x_max, y_max = np.round(before * [160, 120, 160, 120]).astype(int)
        part = one.image[y_min:y_max, x_min:x_max]
        x_min, y_min, x_max, y_max = np.round(after * [160, 120, 160, 120]).astype(int)
        np.testing.assert_array_equal(part[:, ::-1], other.image[y_min:y_max, x_min:x_max])


def test_phrases_are_present_and_absent_ones() -> None:
    random = np.random.default_rng(0)
    asked = [phrases_for(["red star", "blue circle", "red star"], random) for _ in range(200)]
    assert all(len(set(phrases)) == len(phrases) >= 1 for phrases in asked)
    present = [sum(phrase in {"red star", "blue circle"} for phrase in phrases) for phrases in asked]
    assert set(present) == {0, 1, 2}
    assert any(len(phrases) > count for phrases, count in zip(asked, present, strict=True))


def test_targets_name_objects_by_their_tokens(learner: Learner) -> None:
    batch = [example(1), example(2)]
    captions = [[*dict.fromkeys(one.names), "purple ball"] for one in batch]
    inputs = learner._inputs([one.image for one in batch], captions)
    targets = targets_for(batch, captions, inputs, learner.tokenizer)
    for image, one in enumerate(batch):
        np.testing.assert_array_equal(targets.boxes[image].numpy(), one.boxes)
        for row, name in enumerate(one.names):
            ids = inputs["input_ids"][image][targets.tokens[image][row]]
            assert learner.tokenizer.decode(ids.tolist()) == name
    only_absent = targets_for(batch[:1], [["purple ball"]], inputs, learner.tokenizer)
    assert len(only_absent.boxes[0]) == len(only_absent.tokens[0]) == 0


def test_places_belong_to_the_object_they_lie_in() -> None:
    # A canvas of 160 x 128 whose image is 160 x 120.
    places, reach = places_of((128, 160), torch.tensor([1.0, 120 / 128]))
    assert len(places) == 20 * 16 + 10 * 8 + 5 * 4
    boxes = torch.tensor([[0.1, 0.1, 0.4, 0.5], [0.6, 0.6, 0.65, 0.65]])
    owner, is_core, is_inside = owners(places, reach, boxes)
    for index, box in enumerate(boxes):
        mine = is_core & (owner == index)
        # Also an object that is smaller than a place has one.
        assert mine.any()
        middle, extent = (box[:2] + box[2:]) / 2, box[2:] - box[:2]
        far = (places[mine] - middle).abs() > torch.maximum(extent / 2, torch.tensor([1 / 40, 1 / 30]) + 1e-6)
        assert not far.any()
    large = is_core & (owner == 0)
    assert is_inside[large].all()
    assert large.sum() < (is_inside & (owner == 0)).sum()
    assert not any(mask.any() for mask in owners(places, reach, boxes[:0])[1:])


def test_the_dense_loss_is_least_for_the_truth(learner: Learner) -> None:
    batch, captions = [example(1)], [list(dict.fromkeys(example(1).names))]
    inputs = learner._inputs([batch[0].image], captions)
    targets = targets_for(batch, captions, inputs, learner.tokenizer)
    valid = torch.tensor([1.0, 120 / 128])
    places, reach = places_of((128, 160), valid)
    owner, is_core, _ = owners(places, reach, targets.boxes[0])
    box = targets.boxes[0][owner]
    centred = torch.cat([(box[:, :2] + box[:, 2:]) / 2, box[:, 2:] - box[:, :2]], -1)

    class Output:
        enc_outputs_class = torch.where(targets.tokens[0][owner] & is_core[:, None], 9.0, -9.0)[None]
        enc_outputs_coord_logits = torch.logit(centred, eps=1e-6)[None]

    right = {name: float(value) for name, value in dense_loss(Output(), targets, inputs, valid).items()}
    assert max(right.values()) < 0.01
    Output.enc_outputs_class = -Output.enc_outputs_class
    Output.enc_outputs_coord_logits = Output.enc_outputs_coord_logits + 1
    wrong = {name: float(value) for name, value in dense_loss(Output(), targets, inputs, valid).items()}
    assert all(wrong[name] > 0.3 for name in right)


def test_a_few_steps_help(learner: Learner) -> None:
    optimizer = torch.optim.AdamW(learner.network.parameters(), lr=1e-3)
    losses = []
    for _ in range(6):
        loss = torch.stack(list(learner.loss(np.random.default_rng(0), 0.0).values())).sum()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(learner.network.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


def test_saved_weights_are_exported_as_demo(
    learner: Learner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights, "DEMO_WEIGHTS", tmp_path / "weights")
    with pytest.raises(ExportError, match="visiongate demo train grounding_dino"):
        grounding_dino.prepare(Options(weights="demo"))
    folder = tmp_path / "weights" / "grounding_dino"
    folder.mkdir(parents=True)
    learner.save(folder)
    halves = (folder / "model.safetensors").stat().st_size
    assert halves < 2.1 * sum(p.numel() for p in learner.network.parameters()) + 50_000
    export = grounding_dino.prepare(Options(weights="demo"))
    assert export.graphs[0].parameters["variant"] == "demo"
    [placed] = onnx_file.place(export, tmp_path / "repository", precision=Precision.fp16_weights)
    assert placed.error < 1e-3
    assert placed.megabytes < 4
    model, tokenizer, _ = grounding_dino.build(Options(weights="demo"))
    for name, value in learner.network.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], value.half().float(), msg=name)
    assert tokenizer.token_to_id("star") is not None


def test_sizes_fit_their_canvas() -> None:
    for width, height in SIZES:
        one = draw(0, width, height)
        assert one.image.shape == (height, width, 3)
