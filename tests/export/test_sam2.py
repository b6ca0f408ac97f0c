from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from transformers import Sam2ImageProcessor, Sam2VideoConfig, Sam2VideoModel

from export import onnx_file, sam2
from export.families.sam2 import VARIANTS
from export.graph import Arrays, Export
from export.parity import difference
from export.pictures import noise_images
from export.sam2 import FEATURES, decoder_reference
from export.weights import Options

from .conftest import Exported, prompt_inputs

SIZE = 128
SHAPES = {"image_embedding": (32, 8, 8), "features_s4": (4, 32, 32), "features_s8": (8, 16, 16)}


def prompts(
    seed: int, batch: int, count: int, labels: Sequence[int], masks: int = 1, given: float = 0
) -> Arrays:
    random = np.random.default_rng(seed)
    maps = {name: random.normal(size=(batch, *shape)).astype(np.float32) for name, shape in SHAPES.items()}
    # Of every other image masks are clear, so that the single one is stable.
    maps["features_s4"][1::2] = np.abs(maps["features_s4"][1::2]) * 100
    return maps | prompt_inputs(random, labels, batch=batch, count=count, masks=masks, given=given)


@pytest.mark.parametrize("count", [1, 3])
def test_encoder_equals_the_processor_and_the_model(tiny_sam2: Exported, count: int) -> None:
    images = noise_images(7, SIZE, SIZE, [(SIZE, SIZE)] * count)["image"]
    processor = Sam2ImageProcessor(size={"height": SIZE, "width": SIZE})
    pixels = processor(list(images), return_tensors="pt").pixel_values
    actual = tiny_sam2.run("sam2_encoder", {"image": images})
    assert {name: value.shape for name, value in actual.items()} == {
        name: (count, *shape) for name, shape in SHAPES.items()
    }
    expected = [tiny_sam2.model.get_image_embeddings(one[None]) for one in pixels]
    for index, maps in enumerate(expected):
        for name, value in zip((*FEATURES, "image_embedding"), maps, strict=True):
            assert difference(actual[name][[index]], value.numpy()) < 2e-5, name


@pytest.mark.parametrize("labels", [[1, -1], [0, 1, 1, -1], [2, 3, -1], [1, 2, 3, -1], [0, 1, 2, 3, -1]])
@pytest.mark.parametrize(
    ("batch", "count", "masks", "given"), [(1, 1, 1, 0), (1, 1, 1, 1), (2, 5, 1, 0.5), (3, 2, 2, 0.5)]
)
def test_decoder_equals_transformers(
    tiny_sam2: Exported, labels: list[int], batch: int, count: int, masks: int, given: float
) -> None:
    inputs = prompts(len(labels), batch, count, labels, masks, given)
    actual = tiny_sam2.run("sam2_decoder", inputs)
    expected = decoder_reference(tiny_sam2.model, inputs, {})
    assert expected.keys() == actual.keys() == {"mask", "mask_iou", "multimasks", "multimask_iou"}
    for name, value in expected.items():
        assert difference(actual[name], value) < 1e-5 * max(1, np.abs(value).max()), name


def test_a_single_mask_that_is_not_stable_gives_way_to_the_best_of_three(tiny_sam2: Exported) -> None:
    actual = tiny_sam2.run("sam2_decoder", prompts(3, 4, 16, [1, -1]))
    best = actual["multimask_iou"].argmax(2)
    replaced = actual["mask_iou"] == np.take_along_axis(actual["multimask_iou"], best[..., None], 2)[..., 0]
    # Both happen, so both are compared above.
    assert replaced[::2].all()
    assert not replaced[1::2].any()
    masks = np.take_along_axis(actual["multimasks"], best[..., None, None, None], 2)[:, :, 0]
    np.testing.assert_array_equal(actual["mask"][replaced], masks[replaced])
    stable = actual["mask"][~replaced]
    assert ((stable > 0.05).sum((1, 2)) >= 0.97 * (stable > -0.05).sum((1, 2))).all()


def test_prompts_of_one_image_are_asked_at_once(tiny_sam2: Exported) -> None:
    """The same as transformers' own batch of prompts, and as its chain from pixels to masks."""
    image = noise_images(5, SIZE, SIZE, [(SIZE, SIZE)])["image"]
    pixels = Sam2ImageProcessor(size={"height": SIZE, "width": SIZE})(list(image), return_tensors="pt")
    inputs = {**prompts(6, 1, 4, [1, 0, 2, 3, -1]), **tiny_sam2.run("sam2_encoder", {"image": image})}
    points = torch.from_numpy(inputs["points"])
    with torch.no_grad():
        output = tiny_sam2.model(
            pixel_values=pixels.pixel_values,
            input_points=points[:, :, :2],
            input_labels=torch.from_numpy(inputs["labels"][..., :2]),
            input_boxes=points[:, :, 2:4].flatten(2),
        )
    actual = tiny_sam2.run("sam2_decoder", inputs)
    assert difference(actual["multimasks"], output.pred_masks.numpy()) < 1e-4
    assert difference(actual["multimask_iou"], output.iou_scores.numpy()) < 1e-4


@pytest.mark.parametrize(
    ("variant", "sizes"),
    [
        ("hiera_tiny", (96, [1, 2, 7, 2], [5, 7, 9], [8, 4, 14, 7], [7, 7], [1, 2, 4, 8])),
        ("hiera_small", (96, [1, 2, 11, 2], [7, 10, 13], [8, 4, 14, 7], [7, 7], [1, 2, 4, 8])),
        ("hiera_base_plus", (112, [2, 3, 16, 3], [12, 16, 20], [8, 4, 14, 7], [14, 14], [2, 4, 8, 16])),
        ("hiera_large", (144, [2, 6, 36, 4], [23, 33, 43], [8, 4, 16, 8], [7, 7], [2, 4, 8, 16])),
    ],
)
def test_published_sizes(variant: str, sizes: tuple[Any, ...]) -> None:
    vision = VARIANTS[variant].config().vision_config
    hiera = vision.backbone_config
    assert sizes == (
        hiera.hidden_size,
        hiera.blocks_per_stage,
        hiera.global_attention_blocks,
        hiera.window_size_per_stage,
        list(hiera.window_positional_embedding_background_size),
        hiera.num_attention_heads_per_stage,
    )
    assert vision.backbone_channel_list == [sizes[0] * 2**stage for stage in (3, 2, 1, 0)]


def test_exports_a_folder_as_the_model_it_was_saved_from(tiny_sam2: Exported, tmp_path: Any) -> None:
    tiny_sam2.model.save_pretrained(tmp_path / "weights")
    export = sam2.prepare(Options(weights=str(tmp_path / "weights")))
    assert {graph.parameters["variant"] for graph in export.graphs} == {"hiera_toy"}
    decoder = Export([graph for graph in export.graphs if graph.model == "sam2_decoder"])
    [placed] = onnx_file.place(decoder, tmp_path / "repository")
    # The exporter is deterministic, so the same weights are the same file.
    assert placed.path.read_bytes() == tiny_sam2.file("sam2_decoder").read_bytes()


def test_the_video_model_of_the_official_repositories_holds_the_image_model(tmp_path: Any) -> None:
    toy = VARIANTS["tiny"].config()
    parts = ("vision_config", "prompt_encoder_config", "mask_decoder_config")
    config = Sam2VideoConfig(
        **{part: getattr(toy, part).to_dict() for part in parts},
        image_size=SIZE,
        memory_attention_hidden_size=32,
        memory_attention_feed_forward_hidden_size=64,
        memory_encoder_hidden_size=32,
        memory_encoder_output_channels=16,
        mask_downsampler_embed_dim=32,
        memory_fuser_embed_dim=32,
        memory_fuser_intermediate_dim=64,
    )
    torch.manual_seed(0)
    video = Sam2VideoModel(config)
    video.save_pretrained(tmp_path)
    model, variant = sam2.build(Options(weights=str(tmp_path)))
    assert variant == "tiny"
    weights = dict(video.state_dict())
    for name, value in model.state_dict().items():
        assert torch.equal(value, weights[name]), name
