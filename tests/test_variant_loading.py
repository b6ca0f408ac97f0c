"""What is wrong with a variant is one clear sentence."""

from dataclasses import replace
from pathlib import Path

import pytest

from gateway.catalog import Fault, Variant
from gateway.pipelines.detection import GROUNDING_DINO
from gateway.pipelines.segmentation import SAM
from gateway.triton import ModelConfig
from gateway.triton_models import Seen
from gateway.variant_loading import is_marked, load_variant
from offered_models import grounding_dino, sam

PLAIN = (SAM, "")
ENCODER, DECODER = sam().values()


def with_input(name: str, value: tuple[str, int] | None) -> ModelConfig:
    """SAM's encoder with an input of another type or rank, or without it."""
    inputs = {**ENCODER.inputs, name: value}
    return replace(ENCODER, inputs={key: tensor for key, tensor in inputs.items() if tensor})


def with_parameters(config: ModelConfig, **others: str) -> ModelConfig:
    return replace(config, parameters={**config.parameters, **others})


@pytest.mark.parametrize(
    ("seen", "says"),
    [
        ((ENCODER, None), "model sam_decoder is not loaded in Triton, but sam_encoder needs it"),
        ((None, DECODER), "model sam_encoder is not loaded in Triton, but sam_decoder needs it"),
        ((ENCODER, "no memory\n\nAt:\n  model.py(3)"), "Triton could not load model sam_decoder: no memory"),
        ((None, "no memory"), "model sam_encoder is not loaded in Triton, but sam_decoder needs it"),
        (
            (with_input("valid_size", None), DECODER),
            "model sam_encoder has no input 'valid_size': `visiongate export` of this version makes it anew",
        ),
        (
            (with_input("image", ("FP32", 4)), DECODER),
            "model sam_encoder: input 'image' is FP32 of rank 4, not UINT8 of rank 4",
        ),
        (
            (with_input("mood", ("FP32", 1)), DECODER),
            "model sam_encoder needs an input that visiongate does not know: mood",
        ),
        (
            (replace(ENCODER, parameters={}), replace(DECODER, parameters={})),
            "model sam_encoder: The model has no parameter image_size.",
        ),
        (
            (ENCODER, with_parameters(DECODER, variant="vit_h", export="12")),
            "models sam_encoder and sam_decoder are not of one export: parameter variant is 'vit_b' and "
            "'vit_h'; `visiongate export sam` makes them anew",
        ),
        (
            (ENCODER, with_parameters(DECODER, image_size="512")),
            "models sam_encoder and sam_decoder are not of one export: parameter image_size is '1024' and "
            "'512'; `visiongate export sam` makes them anew",
        ),
        (
            (with_parameters(ENCODER, export="12"), with_parameters(DECODER, export="34")),
            "models sam_encoder and sam_decoder are not of one export: parameter export is '12' and '34'; "
            "`visiongate export sam` makes them anew",
        ),
        (
            (with_parameters(ENCODER, export="12"), with_parameters(DECODER, export="34", variant="vit_h")),
            "models sam_encoder and sam_decoder are not of one export: parameter variant is 'vit_b' and "
            "'vit_h'; `visiongate export sam` makes them anew",
        ),
    ],
)
async def test_what_cannot_be_served_is_one_clear_sentence(seen: Seen, says: str) -> None:
    fault = await load_variant(PLAIN, seen, Path("nowhere"), "known")
    assert isinstance(fault, Fault)
    assert fault.sentence == says
    assert fault.triton_models == {"sam_encoder": "sam_encoder", "sam_decoder": "sam_decoder"}


@pytest.mark.parametrize(
    ("suffix", "seen", "known", "name"),
    [
        ("-vit_h", (None, "broken"), "", "vit_h"),
        ("", (ENCODER, None), "", "vit_b"),
        ("", (None, "broken"), "vit_l", "vit_l"),
        ("", (None, "broken"), "", "sam"),
    ],
)
async def test_a_fault_has_the_name_that_callers_use(suffix: str, seen: Seen, known: str, name: str) -> None:
    assert (await load_variant((SAM, suffix), seen, Path("nowhere"), known)).name == name


async def test_models_of_one_export_or_made_by_hand_are_a_variant() -> None:
    marked = with_parameters(ENCODER, export="12"), with_parameters(DECODER, export="12")
    for encoder, decoder in (marked, (ENCODER, DECODER), (marked[0], DECODER)):
        variant = await load_variant((SAM, "-vit_b"), (encoder, decoder), Path("nowhere"), "")
        assert isinstance(variant, Variant)
        assert variant.triton_models == {
            "sam_encoder": "sam_encoder-vit_b",
            "sam_decoder": "sam_decoder-vit_b",
        }
        assert variant.fingerprint.startswith("12#" if encoder is marked[0] else "#")
    assert is_marked(marked)
    assert not is_marked((marked[0], DECODER))


async def test_a_missing_tokenizer_names_the_file(tmp_path: Path) -> None:
    fault = await load_variant((GROUNDING_DINO, ""), tuple(grounding_dino().values()), tmp_path, "")
    assert isinstance(fault, Fault)
    assert (
        fault.sentence == f"model grounding_dino: There is no file {tmp_path}/grounding_dino/tokenizer.json."
    )


async def test_a_fault_of_the_program_is_none_of_the_models() -> None:
    def read_spec(*_: object) -> None:
        raise TypeError("a bug")

    with pytest.raises(TypeError, match="a bug"):
        await load_variant((replace(SAM, read_spec=read_spec), ""), (ENCODER, DECODER), Path("nowhere"), "")  # type: ignore[arg-type]
