"""SAM's answers, if they are none."""

from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any, cast

import grpc
import numpy as np
import pytest

from gateway.catalog import Variant
from gateway.errors import NotFiniteError
from gateway.models.sam import PromptGroup, SamSpec
from gateway.pipelines.resources import Resources
from gateway.pipelines.segmentation import SAM, ImageView, Segmenter

GROUP = PromptGroup(
    (0,),
    np.zeros((1, 1, 2), np.float32),
    np.ones((1, 1), np.int32),
    np.zeros((1, 4, 4), np.float32),
    np.zeros(1, np.bool_),
)
MODELS = {role.name: role.name for role in SAM.roles}
VARIANT = Variant(SAM, "vit_b", True, MODELS, {}, SamSpec(image_size=128, mask_size=4))


@pytest.mark.parametrize(("iou", "is_fine"), [(0.5, True), (np.nan, False), (np.inf, False)])
async def test_an_estimate_that_is_no_number_is_a_fault_of_the_model(iou: float, is_fine: bool) -> None:
    async def infer(*_arguments: Any) -> dict[str, Any]:
        return {"mask": np.zeros((1, 1, 4, 4), np.float32), "mask_iou": np.full((1, 1), iou, np.float32)}

    resources = SimpleNamespace(
        settings=SimpleNamespace(sam_embedding_cache_bytes=0),
        infer=infer,
        working_room=lambda **_sizes: nullcontext(),
    )
    segmenter = Segmenter(cast(Resources, resources))
    view = ImageView({"image_embedding": np.zeros((1, 1, 1, 1), np.float32)}, (10, 10), (128, 128))
    if is_fine:
        _, ious = await segmenter.decode(VARIANT, view, GROUP, multimask=False)
        assert ious.tolist() == [[0.5]]
        return
    with pytest.raises(NotFiniteError, match="model sam_decoder answered with a number") as caught:
        await segmenter.decode(VARIANT, view, GROUP, multimask=False)
    assert caught.value.code is grpc.StatusCode.INTERNAL
