import numpy as np
import pytest
import torch

from export.demo.grounding_dino_examples import Example, draw
from export.demo.grounding_dino_losses import dense_loss, owners, places_of, targets_for
from export.demo.train_grounding_dino import Learner

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def learner() -> Learner:
    torch.manual_seed(0)
    return Learner(CPU)


def example(seed: int = 0) -> Example:
    return draw(seed, 160, 120)


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
