"""CLIP through open_clip: the image tower and the text tower as two graphs, and the tokenizer's file."""

import logging
import os
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from export import clip_tokenizer, hub, weights
from export.errors import ExportError, first_line
from export.graph import Arrays, Export, Graph
from export.weights import Options, randomise

OPENAI = "openai"
# OpenAI's nine, by the names that requests use. All others go by open_clip's, NAME or NAME:TAG.
VARIANTS = {
    "vit_b_32": "ViT-B-32",
    "vit_b_16": "ViT-B-16",
    "vit_l_14": "ViT-L-14",
    "vit_l_14_336": "ViT-L-14-336",
    "rn50": "RN50",
    "rn101": "RN101",
    "rn50x4": "RN50x4",
    "rn50x16": "RN50x16",
    "rn50x64": "RN50x64",
}
TINY: Mapping[str, Any] = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 64, "patch_size": 16, "width": 64, "head_width": 32, "layers": 2},
    "text_cfg": {"context_length": 77, "vocab_size": 49_408, "width": 64, "heads": 2, "layers": 2},
    "quick_gelu": True,
}
# Merges of the vocabulary that the demo model has of its own, whose file lies beside its weights.
DEMO_MERGES = 400
DEMO_VOCABULARY = "vocabulary.txt.gz"
DEMO: Mapping[str, Any] = {
    "embed_dim": 64,
    "vision_cfg": {
        "image_size": 64,
        "layers": [1, 1, 1, 1],
        "width": 10,
        "patch_size": None,
        "head_width": 32,
    },
    "text_cfg": {
        "context_length": 32,
        "vocab_size": 512 + DEMO_MERGES + 2,
        "width": 64,
        "heads": 2,
        "layers": 2,
    },
}
# Words of what PyTorch says when weights do not load, and what that means.
LOAD_FAILURES = {
    "TorchScript": "it is a TorchScript program, not weights; the hub has OpenAI's as safetensors",
    "Weights only load failed": "it holds more than weights, which could run any code",
    "state_dict": "it holds the weights of another model",
}
# What all of OpenAI's models have learned; what training clips it to.
RANDOM_LOGIT_SCALE = 100.0


@dataclass(frozen=True)
class Source:
    """Which of open_clip's models: its name there, the tag of its weights ("" for none), ours for both."""

    name: str
    tag: str
    variant: str


def build(options: Options) -> tuple[Any, str]:
    """Return open_clip's own CLIP in evaluation mode, `visual.preprocess_cfg` set, and the variant's name."""
    from open_clip import CLIP, get_model_config

    if options.weights == "demo":
        file = weights.demo_weights("clip") / "model.safetensors"
        return _weighed(lambda: CLIP(**DEMO), {}, replace(options, weights=str(file))), "demo"
    if options.size == "tiny":
        if options.weights == "hub":
            raise ExportError("The hub has no tiny weights: use --weights random or a file.")
        return _weighed(lambda: CLIP(**TINY), {}, options), "tiny"
    source = parse_variant(options.variant or next(iter(VARIANTS)), options.weights)
    config = get_model_config(source.name)
    _check(source.name, config)
    return _weighed(lambda: _architecture(source), _tag_settings(source), options, source), source.variant


def parse_variant(text: str, weights: str = "hub") -> Source:
    """Read one of our names, or open_clip's as NAME or NAME:TAG; a hub's model needs a tag it has."""
    from open_clip import list_models, list_pretrained_tags_by_model

    if text in VARIANTS:
        return Source(VARIANTS[text], OPENAI, text)
    name, colon, tag = text.partition(":")
    if name not in list_models():
        raise ExportError(
            f"There is no variant {text!r}; there are {', '.join(VARIANTS)}, and open_clip's as NAME:TAG."
        )
    tags = list_pretrained_tags_by_model(name)
    if not colon and weights == "hub":
        if len(tags) != 1:
            raise ExportError(
                f"Say which weights of {name}: {name}:TAG, of the tags {', '.join(tags) or 'none'}."
            )
        (tag,) = tags
    elif colon and tag not in tags:
        raise ExportError(f"{name} has no weights {tag!r}; there are {', '.join(tags) or 'none'}.")
    return Source(name, tag, re.sub("[^a-z0-9]+", "_", text.lower()).strip("_"))


def _check(name: str, config: Mapping[str, Any]) -> None:
    text = config["text_cfg"]
    # SigLIP's tokenizers are chosen by name in open_clip, all others by their configuration.
    if text.get("hf_tokenizer_name") or text.get("tokenizer_kwargs") or "siglip" in name.lower():
        raise ExportError(f"{name} has a tokenizer of its own: only models with CLIP's can be exported.")
    if "multimodal_cfg" in config:
        raise ExportError(f"{name} writes captions: only models of two towers can be exported.")


def _tag_settings(source: Source) -> Mapping[str, Any]:
    """What open_clip knows of published weights: their place, colours, resizing, and activation."""
    from open_clip import get_pretrained_cfg

    settings: Mapping[str, Any] = get_pretrained_cfg(source.name, source.tag)
    return settings


def _architecture(source: Source) -> Any:
    from open_clip import create_model

    # The same architecture was trained with two activations. Names without "-quickgelu" have the plain GELU,
    # and open_clip only warns where the weights (all of OpenAI's) are of the other.
    quick_gelu = bool(_tag_settings(source).get("quick_gelu"))
    with _silence():
        return create_model(
            source.name, force_quick_gelu=quick_gelu, pretrained_image=False, pretrained_text=False
        )


@contextmanager
def _silence() -> Iterator[None]:
    """Keep open_clip from telling that the weights, which come after, are not there yet."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def _weighed(make: Any, settings: Mapping[str, Any], options: Options, source: Source | None = None) -> Any:
    """Make the model, give it the asked weights and say how its images are prepared."""
    if options.revision is not None and options.weights != "hub":
        raise ExportError("--revision is of the hub: leave it out with other weights.")
    # Before the model is made: a file that is not there should not cost minutes.
    file = None if options.weights == "random" else _file(settings, options, source)
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(options.seed)
        model = make()
        if file is None:
            randomise(model)
            with torch.no_grad():
                model.logit_scale.fill_(np.log(RANDOM_LOGIT_SCALE))
        else:
            _load(model, file)
    set_preprocessing(model, settings)
    return model.float().eval()


def set_preprocessing(model: Any, settings: Mapping[str, Any]) -> None:
    """Set `visual.preprocess_cfg`: open_clip's, but for what `settings` say, at the model's own size."""
    from open_clip.model import set_model_preprocess_cfg
    from open_clip.transform import PreprocessCfg, merge_preprocess_dict

    preprocess = merge_preprocess_dict(asdict(PreprocessCfg()), dict(settings))
    preprocess["size"] = model.visual.image_size
    set_model_preprocess_cfg(model, preprocess)


def _file(settings: Mapping[str, Any], options: Options, source: Source | None) -> Path:
    """The file of weights: a local one, or fetched."""
    from open_clip.pretrained import download_pretrained, download_pretrained_from_hf

    if options.weights != "hub":
        file = Path(options.weights)
        if not file.is_file():
            raise ExportError(f"{file} is not a file; --weights takes hub, random or a file of weights.")
        return file
    assert source is not None
    place = str(settings.get("hf_hub", ""))
    try:
        if options.revision is None:
            return Path(download_pretrained(settings))
        repository, filename = os.path.split(place)
        return Path(download_pretrained_from_hf(repository, filename or None, revision=options.revision))
    except Exception as error:
        raise hub.fault(f"{source.name}:{source.tag}", error, options.revision) from error


def _load(model: Any, file: Path) -> None:
    from open_clip.factory import load_checkpoint

    try:
        load_checkpoint(model, str(file), strict=True, weights_only=True)
    except Exception as error:
        reason = first_line(error)
        said = next((said for words, said in LOAD_FAILURES.items() if words in reason), reason)
        raise ExportError(f"{file} cannot be loaded: {said.rstrip('.')}.") from error


def prepare(options: Options) -> Export:
    """Describe both graphs, with the reference that each must agree with."""
    return describe(*build(options))


def describe(model: Any, variant: str) -> Export:
    """Describe both graphs of one of open_clip's models, or of the demo model."""
    vocabulary, merges = clip_tokenizer.own_vocabulary(), clip_tokenizer.MERGES
    if variant == "demo":
        vocabulary, merges = weights.demo_weights("clip") / DEMO_VOCABULARY, DEMO_MERGES
    tokenizer = clip_tokenizer.from_vocabulary(vocabulary, merges)
    names = {"family": "clip", "variant": variant}
    return Export(
        [_image(model, names), _text(model, names, vocabulary)],
        {"clip_text/tokenizer.json": tokenizer.to_str()},
    )


class ImageTower(nn.Module):
    """RGB bytes, NHWC, to embeddings that are not normalised."""

    mean: Tensor
    std: Tensor

    def __init__(self, model: Any) -> None:
        super().__init__()
        preprocess = model.visual.preprocess_cfg
        self.visual = model.visual
        self.register_buffer("mean", torch.tensor(preprocess["mean"]).reshape(3, 1, 1))
        self.register_buffer("std", torch.tensor(preprocess["std"]).reshape(3, 1, 1))

    def forward(self, image: Tensor) -> tuple[Tensor]:
        pixels = image.permute(0, 3, 1, 2).to(torch.float32) / 255
        return (self.visual((pixels - self.mean) / self.std),)


class TextTower(nn.Module):
    """Token ids to embeddings that are not normalised."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor) -> tuple[Tensor]:
        # The end's place is found by ArgMax, which ONNX Runtime before 1.20 does not have for int64.
        return (self.model.encode_text(input_ids.to(torch.int32)),)


def _image(model: Any, names: Mapping[str, str]) -> Graph:
    from open_clip.transform import PreprocessCfg, image_transform_v2

    preprocess = model.visual.preprocess_cfg
    transform = image_transform_v2(PreprocessCfg(**preprocess), is_train=False)
    size = preprocess["size"]
    if isinstance(size, tuple | list):
        size, *others = size
        if others and others != [size]:
            raise ExportError(f"The model's images are {preprocess['size']}: only squares can be exported.")

    def case(seed: int, batch: int) -> Arrays:
        random = np.random.default_rng(seed)
        coarse = random.integers(0, 256, (batch, -(-size // 16), -(-size // 16), 3))
        smooth = coarse.repeat(16, axis=1).repeat(16, axis=2)[:, :size, :size]
        noisy = smooth + random.integers(-20, 21, smooth.shape)
        return {"image": noisy.clip(0, 255).astype(np.uint8)}

    @torch.no_grad()
    def reference(inputs: Arrays, _outputs: Arrays) -> Arrays:
        pixels = torch.stack([transform(Image.fromarray(image)) for image in inputs["image"]])
        return {"image_embedding": model.encode_image(pixels).numpy()}

    example = case(0, 2)
    width = reference(example, {})["image_embedding"].shape[1]
    return Graph(
        model="clip_image",
        module=ImageTower(model),
        inputs={name: torch.from_numpy(value) for name, value in example.items()},
        outputs={"image_embedding": ("batch", width)},
        dynamic={"image": {0: "batch"}},
        cases=[case(1, 1), case(2, 3)],
        reference=reference,
        # Wholly in half precision, ONNX Runtime's CPU session crashes while it loads the graph.
        half_products_only=True,
        parameters={
            **names,
            "image_size": str(size),
            "resize_mode": preprocess["resize_mode"],
            "interpolation": preprocess["interpolation"],
            "fill_color": str(preprocess["fill_color"]),
            "embedding_size": str(width),
        },
    )


def _text(model: Any, names: Mapping[str, str], vocabulary: Path) -> Graph:
    from open_clip.tokenizer import SimpleTokenizer

    length = model.context_length
    tokenizer = SimpleTokenizer(str(vocabulary), context_length=length)

    def case(*texts: str) -> Arrays:
        return {"input_ids": tokenizer(list(texts)).numpy()}

    @torch.no_grad()
    def reference(inputs: Arrays, _outputs: Arrays) -> Arrays:
        return {"text_embedding": model.encode_text(torch.from_numpy(inputs["input_ids"])).numpy()}

    example = case("a photo of a cat.", "two dogs on a red sofa")
    width = reference(example, {})["text_embedding"].shape[1]
    return Graph(
        model="clip_text",
        module=TextTower(model),
        inputs={name: torch.from_numpy(value) for name, value in example.items()},
        outputs={"text_embedding": ("batch", width)},
        dynamic={"input_ids": {0: "batch"}},
        # The embedding is that of the end's place: at the front, in the middle, at the very end.
        cases=[case("?"), case("a photo of a truck.", "words " * 100, "an astronaut, smiling, 1983")],
        reference=reference,
        # Wholly in half precision, ONNX Runtime's CPU session crashes while it loads the graph.
        half_products_only=True,
        parameters={
            **names,
            "context_length": str(length),
            "logit_scale": f"{model.logit_scale.exp().item():.6g}",
            "embedding_size": str(width),
        },
    )
