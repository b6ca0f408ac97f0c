"""What Triton offers is checked at start; every way it can be wrong is one clear sentence."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import grpc
import pytest

from gateway import metrics
from gateway.catalog import Catalog
from gateway.catalog_loading import CatalogError, load
from gateway.errors import InputError, NoModelError
from gateway.health import Health
from gateway.pipelines.detection import GROUNDING_DINO
from gateway.pipelines.segmentation import SAM, SAM2
from gateway.readiness import Readiness
from gateway.services.registry import FAMILIES, SERVICES
from gateway.triton import ModelConfig, ModelState

SIZES = {"image_size": "1024", "mask_size": "256"}


class Offer:
    """A Triton that only tells what it has."""

    def __init__(self, configs: Mapping[str, ModelConfig], broken: Mapping[str, str] | None = None) -> None:
        self._configs = configs
        self._broken = broken or {}

    async def models(self) -> list[ModelState]:
        ready = [ModelState(name, True, "") for name in self._configs]
        return ready + [ModelState(name, False, reason) for name, reason in self._broken.items()]

    async def config(self, model: str) -> ModelConfig:
        return self._configs[model]

    async def absence(self) -> str:
        return ""

    async def is_model_ready(self, name: str) -> bool:
        return name in self._configs

    async def infer(self, model: str, inputs: Mapping[str, Any], outputs: Sequence[str]) -> dict[str, Any]:
        raise NotImplementedError


def sam(variant: str = "vit_b", suffix: str = "") -> dict[str, ModelConfig]:
    return {
        role.name + suffix: ModelConfig(role.inputs, role.outputs, SIZES | {"variant": variant})
        for role in SAM.roles
    }


def sam2(variant: str = "hiera_tiny", suffix: str = "") -> dict[str, ModelConfig]:
    parameters = SIZES | {"variant": variant, "fit": "stretch"}
    return {role.name + suffix: ModelConfig(role.inputs, role.outputs, parameters, 4) for role in SAM2.roles}


async def load_from(offer: Offer, folder: Path = Path("nowhere")) -> Catalog:
    return await load(offer, folder, FAMILIES)


async def test_variants_lie_side_by_side_and_the_plain_name_is_the_default() -> None:
    catalog = await load_from(
        Offer(sam("vit_b") | sam("vit_h", "-vit_h") | {"something_else": replace(sam()["sam_decoder"])})
    )
    assert [(variant.name, variant.is_default) for variant in catalog.variants] == [
        ("vit_b", True),
        ("vit_h", False),
    ]
    assert catalog.choose(SAM, "").name == "vit_b"
    assert catalog.choose(SAM, "vit_h").triton_models["sam_decoder"] == "sam_decoder-vit_h"


async def test_alternative_families_share_one_default_and_one_set_of_names() -> None:
    catalog = await load_from(
        Offer(sam2() | sam2("hiera_large", "-hiera_large") | sam() | sam("vit_h", "-vit_h"))
    )
    assert [(variant.family.name, variant.name, variant.is_default) for variant in catalog.variants] == [
        ("sam", "vit_b", True),
        ("sam2", "hiera_large", False),
        ("sam2", "hiera_tiny", False),
        ("sam", "vit_h", False),
    ]
    assert catalog.choose(SAM, "").name == "vit_b"
    chosen = catalog.choose(SAM, "hiera_tiny")
    assert chosen.family is SAM2
    assert chosen.spec.stretches
    assert chosen.triton_models == {"sam2_encoder": "sam2_encoder", "sam2_decoder": "sam2_decoder"}
    with pytest.raises(InputError, match="there is vit_b, hiera_large, hiera_tiny, vit_h"):
        catalog.choose(SAM, "vit_x")


async def test_an_alternative_alone_is_the_default() -> None:
    catalog = await load_from(Offer(sam2()))
    assert catalog.has(SAM)
    assert [(variant.name, variant.is_default) for variant in catalog.of(SAM)] == [("hiera_tiny", True)]
    assert catalog.choose(SAM, "").family is SAM2
    # The plain name goes before a suffixed one, also where that is of the first family.
    catalog = await load_from(Offer(sam2() | sam("vit_h", "-vit_h")))
    assert catalog.choose(SAM, "").family is SAM2


async def test_without_a_plain_name_the_first_variant_is_the_default() -> None:
    """For requests and for health alike: otherwise such a repository answers, and is never ready."""
    catalog = await load_from(Offer(sam("vit_l", "-vit_l") | sam("vit_h", "-vit_h")))
    assert [(variant.name, variant.is_default) for variant in catalog.of(SAM)] == [
        ("vit_h", True),
        ("vit_l", False),
    ]
    assert catalog.choose(SAM, "").name == "vit_h"
    health = Health()
    readiness = Readiness(cast(Any, Offer(sam("vit_h", "-vit_h"))), catalog, SERVICES, health)
    await readiness.update()
    assert metrics.readiness()[metrics.WHOLE_SERVER]
    readiness = Readiness(cast(Any, Offer({})), catalog, SERVICES, health)
    await readiness.update()
    assert not metrics.readiness()[metrics.WHOLE_SERVER]


@pytest.mark.parametrize(
    ("encoder", "decoder", "says"),
    [
        ({"variant": "vit_b"}, {"variant": "vit_h"}, "variant is 'vit_b' and 'vit_h'"),
        ({"image_size": "1024"}, {"image_size": "512"}, "image_size is '1024' and '512'"),
    ],
)
async def test_halves_of_different_exports_are_not_served(
    encoder: dict[str, str], decoder: dict[str, str], says: str
) -> None:
    """Their tensors fit, and their masks would mean nothing."""
    offered = sam()
    for name, changed in (("sam_encoder", encoder), ("sam_decoder", decoder)):
        offered[name] = replace(offered[name], parameters={**offered[name].parameters, **changed})
    with pytest.raises(CatalogError, match=f"sam_encoder and sam_decoder are not of one export: .*{says}"):
        await load_from(Offer(offered))


async def test_unknown_variant_names_those_there_are() -> None:
    catalog = await load_from(Offer(sam()))
    with pytest.raises(InputError, match=r"no variant 'vit_x' of sam: there is vit_b"):
        catalog.choose(SAM, "vit_x")


async def test_a_task_without_any_model_is_unimplemented() -> None:
    catalog = await load_from(Offer(sam()))
    with pytest.raises(NoModelError) as caught:
        catalog.choose(GROUNDING_DINO, "")
    assert caught.value.code is grpc.StatusCode.UNIMPLEMENTED


def without(models: dict[str, ModelConfig], name: str) -> dict[str, ModelConfig]:
    return {key: value for key, value in models.items() if key != name}


def changed(tensor: str, value: tuple[str, int] | None) -> dict[str, ModelConfig]:
    """SAM with an encoder input of another type or rank, or without it."""
    models = sam()
    inputs = dict(models["sam_encoder"].inputs)
    if value is None:
        del inputs[tensor]
    else:
        inputs[tensor] = value
    return models | {"sam_encoder": replace(models["sam_encoder"], inputs=inputs)}


@pytest.mark.parametrize(
    ("offer", "says"),
    [
        (Offer({}), "none of the models"),
        (Offer(without(sam(), "sam_decoder")), "model sam_decoder is not loaded .* but sam_encoder needs it"),
        (
            Offer(without(sam(), "sam_decoder"), {"sam_decoder": "no memory"}),
            "could not load model sam_decoder: no memory",
        ),
        (Offer(changed("valid_size", None)), "sam_encoder has no input 'valid_size'"),
        (
            Offer(changed("image", ("FP32", 4))),
            "sam_encoder: input 'image' is FP32 of rank 4, not UINT8 of rank 4",
        ),
        (
            Offer(sam("large") | sam2("large")),
            "models sam_decoder and sam2_decoder are both variant 'large'",
        ),
        (
            Offer(without(sam2(), "sam2_decoder")),
            "model sam2_decoder is not loaded .* but sam2_encoder needs it",
        ),
        (Offer(changed("mood", ("FP32", 1))), "input that visiongate does not know: mood"),
        (
            Offer({name: replace(config, parameters={}) for name, config in sam().items()}),
            "sam_encoder: .*image_size",
        ),
    ],
)
async def test_what_cannot_be_served_is_one_clear_sentence(offer: Offer, says: str) -> None:
    with pytest.raises(CatalogError, match=says):
        await load_from(offer)


def test_a_missing_tokenizer_names_the_file(tmp_path: Path) -> None:
    (role,) = GROUNDING_DINO.roles
    sizes = {
        "shortest_edge": "800",
        "longest_edge": "1333",
        "canvases": "800x1344,1344x800",
        "text_lengths": "16,256",
    }
    offer = Offer({role.name: ModelConfig(role.inputs, role.outputs, sizes)})
    with pytest.raises(CatalogError, match=r"tokenizer\.json"):
        asyncio.run(load_from(offer, tmp_path))
