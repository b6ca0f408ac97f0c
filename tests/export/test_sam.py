from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from transformers import SamImageProcessorPil

from export.families.sam import VARIANTS
from export.graph import Arrays, Export
from export.parity import difference
from export.pictures import noise_images
from export.pixels import normalised
from export.sam import decoder_reference
from export.weights import Options

from .conftest import Exported, prompt_inputs

SIZE, GRID, CHANNELS = 128, 8, 32


def prompts(
    seed: int, batch: int, count: int, labels: Sequence[int], masks: int = 1, given: float = 0
) -> Arrays:
    random = np.random.default_rng(seed)
    embedding = random.normal(size=(batch, CHANNELS, GRID, GRID)).astype(np.float32)
    return {"image_embedding": embedding} | prompt_inputs(
        random, labels, batch=batch, count=count, masks=masks, given=given
    )


@pytest.mark.parametrize("valid", [[(128, 128)], [(1, 128)], [(128, 77), (128, 1), (31, 128)]])
def test_encoder_equals_transformers(tiny_sam: Exported, valid: list[tuple[int, int]]) -> None:
    inputs = noise_images(7, SIZE, SIZE, valid)
    pixels, _ = normalised(**inputs)
    expected = tiny_sam.model.get_image_embeddings(pixels).numpy()
    assert difference(tiny_sam.run("sam_encoder", inputs)["image_embedding"], expected) < 1e-5


def test_encoder_equals_the_processor_and_the_model(tiny_sam: Exported) -> None:
    image = noise_images(3, 150, 211, [(150, 211)])["image"][0]
    size = {"longest_edge": SIZE}
    processor = SamImageProcessorPil(size=size, pad_size={"height": SIZE, "width": SIZE})
    pixels = processor(image, return_tensors="pt")
    resized = processor(image, do_normalize=False, do_rescale=False, do_pad=False)["pixel_values"][0]
    height, width = resized.shape[1:]
    canvas = np.full((1, SIZE, SIZE, 3), 200, np.uint8)
    canvas[0, :height, :width] = resized.transpose(1, 2, 0)
    inputs: Arrays = {"image": canvas, "valid_size": np.array([[height, width]], np.int32)}
    expected = tiny_sam.model.get_image_embeddings(pixels["pixel_values"]).numpy()
    assert difference(tiny_sam.run("sam_encoder", inputs)["image_embedding"], expected) < 1e-5


def test_encoder_does_not_see_the_rest_of_the_canvas(tiny_sam: Exported) -> None:
    inputs = noise_images(4, SIZE, SIZE, [(100, SIZE)])
    other = {**inputs, "image": inputs["image"].copy()}
    other["image"][:, 100:] = 255
    one, two = (tiny_sam.run("sam_encoder", case)["image_embedding"] for case in (inputs, other))
    np.testing.assert_array_equal(one, two)
    other["image"][:, 99] ^= 128
    assert difference(tiny_sam.run("sam_encoder", other)["image_embedding"], one) > 1e-3


@pytest.mark.parametrize("labels", [[1, -1], [0, -1], [1, 0, 1, -1], [2, 3], [1, 2, 3], [0, 1, 1, 2, 3]])
@pytest.mark.parametrize(
    ("batch", "count", "masks", "given"), [(1, 1, 1, 0), (1, 1, 1, 1), (2, 5, 1, 0.5), (3, 2, 2, 0.5)]
)
def test_decoder_equals_transformers(
    tiny_sam: Exported, labels: list[int], batch: int, count: int, masks: int, given: float
) -> None:
    inputs = prompts(len(labels), batch, count, labels, masks, given)
    actual = tiny_sam.run("sam_decoder", inputs)
    expected = decoder_reference(tiny_sam.model, inputs, {})
    assert expected.keys() == actual.keys() == {"mask", "mask_iou", "multimasks", "multimask_iou"}
    for name, value in expected.items():
        assert difference(actual[name], value) < 1e-5, name


def test_prompts_of_one_image_are_asked_at_once(tiny_sam: Exported) -> None:
    """The same as transformers' own batch of prompts, and as its chain from pixels to masks."""
    image = noise_images(5, SIZE, SIZE, [(90, SIZE)])
    embedding = tiny_sam.run("sam_encoder", image)["image_embedding"]
    inputs = {**prompts(6, 1, 4, [1, 1, 2, 3]), "image_embedding": embedding}
    points = torch.from_numpy(inputs["points"])
    with torch.no_grad():
        output = tiny_sam.model(
            pixel_values=normalised(**image)[0],
            input_points=points[:, :, :2],
            input_labels=torch.from_numpy(inputs["labels"][..., :2]),
            input_boxes=points[:, :, 2:].flatten(2),
        )
    actual = tiny_sam.run("sam_decoder", inputs)
    assert difference(actual["multimasks"], output.pred_masks.numpy()) < 1e-4
    assert difference(actual["multimask_iou"], output.iou_scores.numpy()) < 1e-4


def test_an_unused_mask_changes_nothing(tiny_sam: Exported) -> None:
    inputs = prompts(1, 1, 2, [2, 3], masks=2)
    other = {**inputs, "mask_input": inputs["mask_input"] * -3}
    one, two = (tiny_sam.run("sam_decoder", case) for case in (inputs, other))
    assert all(np.array_equal(one[name], two[name]) for name in one)
    used = {**other, "has_mask_input": np.array([[False, True]])}
    three = tiny_sam.run("sam_decoder", used)["mask"]
    assert np.array_equal(three[:, 0], one["mask"][:, 0])
    assert difference(three[:, 1], one["mask"][:, 1]) > 1e-2


def test_seeded_masks_have_an_inside_and_an_outside(tiny_sam: Exported) -> None:
    masks = tiny_sam.run("sam_decoder", prompts(2, 2, 8, [1, -1]))["multimasks"] > 0
    assert 0.1 < masks.mean() < 0.9


@pytest.mark.parametrize(
    ("variant", "sizes"),
    [
        ("vit_b", (768, 12, 12, [2, 5, 8, 11])),
        ("vit_l", (1024, 24, 16, [5, 11, 17, 23])),
        ("vit_h", (1280, 32, 16, [7, 15, 23, 31])),
    ],
)
def test_published_sizes(variant: str, sizes: tuple[Any, ...]) -> None:
    vision = VARIANTS[variant].config().vision_config
    actual = (
        *(
            vision.hidden_size,
            vision.num_hidden_layers,
            vision.num_attention_heads,
            vision.global_attn_indexes,
        ),
    )
    assert actual == sizes
    assert (vision.image_size, vision.patch_size, vision.window_size, vision.output_channels) == (
        1024,
        16,
        14,
        256,
    )


def test_exports_a_folder_as_the_model_it_was_saved_from(tiny_sam: Exported, tmp_path: Any) -> None:
    from export import onnx_file, sam

    tiny_sam.model.save_pretrained(tmp_path / "weights")
    export = sam.prepare(Options(weights=str(tmp_path / "weights")))
    decoder = Export([graph for graph in export.graphs if graph.model == "sam_decoder"])
    [placed] = onnx_file.place(decoder, tmp_path / "repository")
    # The exporter is deterministic, so the same weights are the same file.
    assert placed.path.read_bytes() == tiny_sam.file("sam_decoder").read_bytes()
