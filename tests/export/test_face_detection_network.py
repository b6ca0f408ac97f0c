import torch

from export import face_detection_network
from export.weights import Options

TINY = Options(weights="random", size="tiny")


def test_a_seed_is_its_weights_and_leaves_the_callers_generator_alone() -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    one, same = (face_detection_network.build(TINY).state_dict() for _ in range(2))
    other = face_detection_network.build(Options(weights="random", size="tiny", seed=1)).state_dict()
    assert torch.equal(torch.rand(3), expected)
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["down.0.weight"], other["down.0.weight"])
