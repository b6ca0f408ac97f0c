from collections.abc import Sequence

import numpy as np
import pytest

from export.graph import Arrays
from export.sam_decoder import MULTIMASKS, PADDING, PromptDecoder, decoder_graph, random_prompts

SIZES = {"image_size": 128, "mask_size": 32}


@pytest.mark.parametrize("labels", [[1, PADDING], [2, 3], [1, 0, 2, 3, PADDING]])
def test_random_prompts_have_these_labels_at_places_on_the_image(labels: list[int]) -> None:
    inputs = random_prompts(np.random.default_rng(0), labels, batch=2, prompts=3, masks=1, **SIZES)
    assert inputs["labels"].tolist() == [[labels] * 3] * 2
    points = inputs["points"]
    assert points.shape == (2, 3, len(labels), 2)
    is_padding = inputs["labels"] == PADDING
    assert not points[is_padding].any()
    assert ((points[~is_padding] > 0) & (points[~is_padding] < 128)).all()
    assert inputs["mask_input"].shape == (2, 1, 32, 32)
    assert inputs["has_mask_input"].shape == (2, 1)


@pytest.mark.parametrize("box_padding", [[], [PADDING]])
def test_the_cases_ask_by_points_and_by_boxes_with_the_padding_of_the_decoder(
    box_padding: list[int],
) -> None:
    def case(seed: int, batch: int, labels: Sequence[int], prompts: int, masks: int) -> Arrays:
        random = np.random.default_rng(seed)
        return random_prompts(random, labels, batch=batch, prompts=prompts, masks=masks, **SIZES)

    decoder = PromptDecoder.__new__(PromptDecoder)
    graph = decoder_graph(
        "toy_decoder",
        decoder,
        case,
        lambda inputs, _outputs: inputs,
        mask_size=32,
        box_padding=box_padding,
        parameters={"family": "toy"},
        encode=dict,
        min_iou=0.99,
    )
    assert graph.outputs["multimasks"] == ("batch", "prompts", MULTIMASKS, 32, 32)
    assert graph.parameters == {"family": "toy", "mask_size": "32"}
    labels = [case["labels"][0, 0].tolist() for case in graph.cases]
    boxes = [row for row in labels if 2 in row]
    assert len(boxes) == 2
    assert all(row[row.index(2) :] == [2, 3, *box_padding] for row in boxes)
    assert all(row[-1] == PADDING for row in labels if 2 not in row)
