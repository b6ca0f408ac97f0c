"""What all pipelines work with: answers of models that are no numbers."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import grpc
import numpy as np
import pytest

from gateway.catalog import Catalog, Role, Variant
from gateway.errors import NotFiniteError
from gateway.image_ids import ImageIds
from gateway.pipelines.resources import Resources
from gateway.services.registry import FAMILIES
from gateway.settings import Settings
from gateway.triton import Triton

ROLES = [role for family in FAMILIES for member in family.with_alternatives for role in member.roles]
# What a model says of itself only: boxes without a number are dropped, and masks are where logits are over 0.
UNCHECKED = {
    "grounding_dino": {"logits", "boxes"},
    "sam_encoder": {"image_embedding"},
    "sam2_encoder": {"image_embedding", "features_s4", "features_s8"},
    "sam_decoder": {"mask", "multimasks"},
    "sam2_decoder": {"mask", "multimasks"},
    "doctr_detection": {"probability_map"},
    "doctr_recognition": {"classes"},
}


@pytest.fixture
def value() -> list[float]:
    """The number in all outputs."""
    return [0.5]


@pytest.fixture
def resources(value: list[float]) -> Iterator[Resources]:
    async def infer(_model: str, _inputs: Any, outputs: tuple[str, ...]) -> dict[str, Any]:
        return {name: np.full((1, 3), value[0], np.float32) for name in outputs}

    triton = cast(Triton, SimpleNamespace(infer=infer))
    made = Resources(triton, Catalog([]), Settings(threads=1), ImageIds(bytes(32)))
    yield made
    made.close()


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
async def test_an_answer_that_is_no_number_is_a_fault_of_the_model(
    resources: Resources, value: list[float], role: Role, number: float
) -> None:
    variant = cast(Variant[Any], SimpleNamespace(triton_models={role.name: "the-model"}))
    inputs = {name: np.zeros((1, 1)) for name in role.inputs}
    await resources.infer(variant, role, inputs)
    value[0] = number
    for output in role.outputs:
        if output in UNCHECKED.get(role.name, ()):
            await resources.infer(variant, role, inputs, (output,))
            continue
        with pytest.raises(NotFiniteError, match="model the-model answered with a number") as caught:
            await resources.infer(variant, role, inputs, (output,))
        assert caught.value.code is grpc.StatusCode.INTERNAL
