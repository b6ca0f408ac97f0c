"""Which variants requests choose among, and which of them is the default."""

from dataclasses import replace

import grpc
import pytest

from gateway.catalog import Catalog, Family, Fault, Variant
from gateway.errors import InputError, NoModelError, TritonUnavailableError
from gateway.models.sam import SamSpec
from gateway.pipelines.detection import GROUNDING_DINO
from gateway.pipelines.segmentation import SAM, SAM2

SPEC = SamSpec(image_size=128, mask_size=4)


def variant(family: Family[SamSpec], name: str, is_default: bool = False) -> Variant[SamSpec]:
    return Variant(family, name, is_default, {role.name: role.name for role in family.roles}, {}, SPEC)


def fault(family: Family[SamSpec], name: str, is_default: bool = False) -> Fault:
    models = {role.name: role.name for role in family.roles}
    return Fault(family, name, is_default, models, "model sam_encoder: /models/it is broken")


def test_requests_choose_by_name_and_the_default_comes_first() -> None:
    catalog = Catalog([variant(SAM, "vit_h"), variant(SAM2, "hiera_tiny", True), variant(SAM, "vit_b")])
    assert [each.name for each in catalog.of(SAM)] == ["hiera_tiny", "vit_b", "vit_h"]
    assert catalog.choose(SAM, "").family is SAM2
    assert catalog.choose(SAM, "vit_h").name == "vit_h"
    with pytest.raises(InputError, match=r"no variant 'vit_x' of sam: there is hiera_tiny, vit_b, vit_h"):
        catalog.choose(SAM, "vit_x")


def test_a_task_without_any_model_is_unimplemented() -> None:
    catalog = Catalog([variant(SAM, "vit_b", True)])
    with pytest.raises(NoModelError) as caught:
        catalog.choose(GROUNDING_DINO, "")
    assert caught.value.code is grpc.StatusCode.UNIMPLEMENTED
    assert not catalog.has(GROUNDING_DINO)
    assert catalog.lacks(GROUNDING_DINO) == ["grounding_dino"]


@pytest.mark.parametrize("name", ["", "vit_b"])
def test_a_broken_variant_is_unavailable_and_none_takes_its_place(name: str) -> None:
    catalog = Catalog([variant(SAM, "vit_h")], [fault(SAM, "vit_b", is_default=True)])
    with pytest.raises(TritonUnavailableError, match=r"model sam vit_b cannot be used at present$") as caught:
        catalog.choose(SAM, name)
    # What the operator reads is for the log.
    assert str(caught.value.__cause__) == "model sam_encoder: /models/it is broken"
    assert catalog.choose(SAM, "vit_h").name == "vit_h"
    assert catalog.has(SAM)
    with pytest.raises(InputError, match="there is vit_b, vit_h"):
        catalog.choose(SAM, "vit_x")


def test_a_name_that_two_have_is_the_name_of_the_one_that_works() -> None:
    for other in (SAM, SAM2):
        catalog = Catalog([variant(SAM, "large")], [fault(other, "large")])
        assert catalog.choose(SAM, "large").family is SAM
        assert catalog.lacks(SAM) == ["sam_decoder", "sam_encoder"]


def test_readiness_is_that_of_all_models_of_the_default() -> None:
    default, other = variant(SAM, "vit_b", True), variant(SAM2, "hiera_tiny")
    catalog = Catalog([default, other])
    assert catalog.lacks(SAM) == ["sam_decoder", "sam_encoder"]
    catalog.set_ready({"sam_encoder", "sam2_encoder", "sam2_decoder"})
    assert catalog.lacks(SAM) == ["sam_decoder"]
    assert (catalog.is_ready(default), catalog.is_ready(other)) == (False, True)
    catalog.set_ready({"sam_encoder", "sam_decoder"})
    assert catalog.lacks(SAM) == []
    broken = fault(SAM, "vit_b", True)
    catalog.replace([other], [broken])
    assert catalog.lacks(SAM) == ["sam_decoder", "sam_encoder"]
    assert not catalog.is_ready(broken)


def test_no_two_variants_share_a_fingerprint() -> None:
    one, two = variant(SAM, "vit_b"), variant(SAM, "vit_b")
    assert one.fingerprint != two.fingerprint
    # To be the default changes nothing of its answers.
    assert replace(one, is_default=True).fingerprint == one.fingerprint


def test_alternatives_are_for_the_same_task() -> None:
    with pytest.raises(ValueError, match="sam is no alternative of grounding_dino"):
        replace(GROUNDING_DINO, alternatives=(SAM,))  # type: ignore[arg-type]
