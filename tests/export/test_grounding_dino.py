import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer

from export import grounding_dino, onnx_file
from export.errors import ExportError
from export.families.grounding_dino import VARIANTS
from export.graph import Arrays
from export.grounding_dino import Detector, reference, resize_nearest, text_inputs
from export.half import Precision
from export.parity import difference
from export.pictures import noise_images
from export.weights import Options

from .conftest import TINY, Exported

CAPTIONS = ["a dog. a red ball.", "Purple Hexagons, left of it?", "hot dog. dog. cat."]


def case(
    exported: Exported, seed: int, canvas: tuple[int, int], length: int, *valid: tuple[int, int]
) -> Arrays:
    tokenizer = Tokenizer.from_file(str(exported.repository / "grounding_dino" / "tokenizer.json"))
    texts = [CAPTIONS[i % len(CAPTIONS)] for i in range(len(valid))]
    return noise_images(seed, *canvas, valid) | text_inputs(tokenizer, texts, length)


def test_thresholds_are_of_weights_that_mean_something() -> None:
    def thresholds(options: Options) -> dict[str, str]:
        [graph] = grounding_dino.prepare(options).graphs
        return {name: value for name, value in graph.parameters.items() if "threshold" in name}

    official = {"box_threshold": "0.35", "text_threshold": "0.25", "nms_iou_threshold": "0.8"}
    for variant in ("swin_t", "swin_b"):
        assert official.items() <= VARIANTS[variant].parameters.items()
    assert thresholds(Options(weights="demo")) == {"box_threshold": "0.5", "nms_iou_threshold": "0.5"}
    # Parity is looked at over all boxes.
    assert thresholds(TINY) == {}


@pytest.mark.parametrize(
    ("canvas", "length", "valid"),
    [
        ((128, 128), 16, [(128, 128)]),
        ((128, 192), 64, [(128, 170), (90, 192)]),
        ((224, 128), 32, [(224, 96), (200, 128), (1, 1)]),
        ((320, 288), 256, [(301, 288)]),
    ],
)
def test_equals_transformers(
    tiny_grounding_dino: Exported, canvas: tuple[int, int], length: int, valid: list[tuple[int, int]]
) -> None:
    inputs = case(tiny_grounding_dino, 11, canvas, length, *valid)
    actual = tiny_grounding_dino.run("grounding_dino", inputs)
    expected = reference(tiny_grounding_dino.model, inputs, {})
    assert actual.keys() == {"logits", "boxes"}
    assert actual["logits"].shape == (len(valid), 40, length)
    for name in actual:
        assert difference(actual[name], expected[name]) < 1e-4, name


def test_each_of_a_batch_is_as_if_alone(tiny_grounding_dino: Exported) -> None:
    inputs = case(tiny_grounding_dino, 5, (192, 128), 32, (192, 128), (150, 99), (64, 128))
    together = tiny_grounding_dino.run("grounding_dino", inputs)
    for i in range(3):
        alone = tiny_grounding_dino.run("grounding_dino", {n: v[[i]] for n, v in inputs.items()})
        assert all(difference(together[name][[i]], alone[name]) < 1e-4 for name in alone)


def test_padded_text_changes_nothing(tiny_grounding_dino: Exported) -> None:
    short, long = (
        tiny_grounding_dino.run(
            "grounding_dino", case(tiny_grounding_dino, 2, (128, 160), length, (128, 150))
        )
        for length in (16, 128)
    )
    assert difference(long["logits"][..., :16], short["logits"]) < 1e-4
    assert difference(long["boxes"], short["boxes"]) < 1e-4


def test_logits_are_minus_infinity_at_padded_tokens(tiny_grounding_dino: Exported) -> None:
    inputs = case(tiny_grounding_dino, 2, (128, 160), 32, (128, 150), (128, 160))
    logits = tiny_grounding_dino.run("grounding_dino", inputs)["logits"]
    real = np.broadcast_to(inputs["attention_mask"][:, None] == 1, logits.shape)
    assert np.isfinite(logits[real]).all()
    assert np.isneginf(logits[~real]).all()


def test_does_not_see_the_rest_of_the_canvas(tiny_grounding_dino: Exported) -> None:
    inputs = case(tiny_grounding_dino, 3, (128, 192), 16, (120, 150))
    other = {**inputs, "image": inputs["image"].copy()}
    other["image"][:, 120:] = 255
    other["image"][:, :, 150:] = 7
    one, two = (tiny_grounding_dino.run("grounding_dino", c)["logits"] for c in (inputs, other))
    np.testing.assert_array_equal(one, two)
    other["image"][:, :60] = 255 - other["image"][:, :60]
    assert difference(tiny_grounding_dino.run("grounding_dino", other)["logits"], one) > 1e-2


@pytest.mark.parametrize("canvas", [(128, 128), (128, 224), (192, 128), (224, 224)])
def test_boxes_are_parts_of_the_valid_area(canvas: tuple[int, int]) -> None:
    """Box heads of zeros leave every box where its place in the feature maps is."""
    model, tokenizer, _ = grounding_dino.build(TINY)
    with torch.no_grad():
        for head in (model.model.encoder_output_bbox_embed, *model.bbox_embed):
            head.layers[-1].weight.zero_()
            head.layers[-1].bias.zero_()
    inputs = noise_images(0, *canvas, [(128, 128)]) | text_inputs(tokenizer, ["dog."], 16)
    with torch.no_grad():
        _, boxes, *_ = Detector(model)(*[torch.from_numpy(value) for value in inputs.values()])
    x, y, width, height = boxes[0].T.double()
    # Level i has cells of 8 * 2**i pixels, and boxes of 0.05 * 2**i of the area. Padding is chosen with
    # a box of 1 where there are fewer good places than queries.
    real = width < 0.9
    assert real.sum() > 20
    cells = 128 / 8 / (width[real] / 0.05)
    for centre in (x[real], y[real]):
        steps = centre * cells - 0.5
        assert (steps - steps.round()).abs().max() < 1e-3
        assert centre.min() > 0
        assert centre.max() < 1
        assert centre.max() > 0.7
    assert torch.equal(width, height)


def test_masks_are_resized_as_pytorch_does() -> None:
    for side in range(32, 1345, 32):
        mask = torch.randn(1, 2, side, 32)
        cells = side // 32
        for size in ((side // 8, 4), (side // 16, 2), (cells, 1), (-(-cells // 2), 1)):
            expected = torch.nn.functional.interpolate(mask, size=size)
            assert torch.equal(resize_nearest(mask, size), expected)


def test_transformers_is_left_as_it_was() -> None:
    from transformers.models.grounding_dino import modeling_grounding_dino as modeling

    model, tokenizer, _ = grounding_dino.build(TINY)
    names = ("topk", "linspace", "as_tensor")
    before = [getattr(torch, name) for name in names]
    masks, resize = (
        modeling.generate_masks_with_special_tokens_and_transfer_map,
        torch.nn.functional.interpolate,
    )
    inputs = noise_images(0, 128, 128, [(128, 128)]) | text_inputs(tokenizer, ["dog."], 16)
    with pytest.raises(RuntimeError):
        Detector(model)(*[torch.from_numpy(value)[..., :1] for value in inputs.values()])
    assert [getattr(torch, name) for name in names] == before
    assert modeling.generate_masks_with_special_tokens_and_transfer_map is masks
    assert torch.nn.functional.interpolate is resize


def test_another_choice_among_the_best_is_followed_only_if_it_is_as_good(
    tiny_grounding_dino: Exported,
) -> None:
    inputs = case(tiny_grounding_dino, 8, (128, 128), 16, (128, 128))
    model = tiny_grounding_dino.model
    with torch.no_grad():
        *_, proposals, _ = Detector(model)(*[torch.from_numpy(value) for value in inputs.values()])
    own = reference(model, inputs, {})
    worse = {"proposals": proposals.numpy()[:, ::-1].copy()}
    assert difference(reference(model, inputs, worse)["boxes"], own["boxes"]) == 0
    repeated = {"proposals": np.broadcast_to(proposals.numpy()[:, :1], proposals.shape).copy()}
    assert difference(reference(model, inputs, repeated)["boxes"], own["boxes"]) == 0


@pytest.mark.long
def test_half_precision(tmp_path: Path) -> None:
    [placed] = onnx_file.place(grounding_dino.prepare(TINY), tmp_path, precision=Precision.fp16)
    assert placed.error < 2e-2


def test_a_real_vocabulary(data: Callable[[str], Path]) -> None:
    vocabulary = data("grounding_dino/bert-base-uncased-vocab.txt")
    model, tokenizer, _ = grounding_dino.build(Options("random", size="tiny", vocabulary=vocabulary))
    assert model.config.text_config.vocab_size == tokenizer.get_vocab_size() == 30522


def test_a_folder_brings_its_tokenizer(tiny_grounding_dino: Exported, tmp_path: Path) -> None:
    tiny_grounding_dino.model.save_pretrained(tmp_path)
    with pytest.raises(ExportError, match=r"neither tokenizer.json nor vocab.txt"):
        grounding_dino.build(Options(str(tmp_path)))
    file = tiny_grounding_dino.repository / "grounding_dino" / "tokenizer.json"
    (tmp_path / "tokenizer.json").write_bytes(file.read_bytes())
    model, tokenizer, variant = grounding_dino.build(Options(str(tmp_path)))
    expected = tiny_grounding_dino.model.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in model.state_dict().items())
    assert json.loads(tokenizer.to_str()) == json.loads(file.read_bytes())
    assert variant == "tiny"


def test_published_sizes() -> None:
    small, base = (VARIANTS[name].config() for name in ("swin_t", "swin_b"))
    backbones = [
        (c.backbone_config.embed_dim, list(c.backbone_config.depths), c.backbone_config.window_size)
        for c in (small, base)
    ]
    assert backbones == [(96, [2, 2, 6, 2], 7), (128, [2, 2, 18, 2], 12)]
    for config in (small, base):
        assert (config.d_model, config.num_queries, config.max_text_len) == (256, 900, 256)
        assert config.text_config.vocab_size == 30522
