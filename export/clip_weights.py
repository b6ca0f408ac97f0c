"""Where CLIP's weights come from: open_clip's downloads, a file of its layout, our demo, or a seed."""

import logging
import os
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from export import hub, weights
from export.errors import ExportError, first_line
from export.families.clip import DEMO, FAMILY, TINY, VARIANTS
from export.weights import Options, randomise

OPENAI = "openai"
# Words of PyTorch's message when weights do not load, and what they mean.
LOAD_FAILURES = {
    "TorchScript": "it is a TorchScript program, not weights; the hub has OpenAI's as safetensors",
    "Weights only load failed": "it holds more than weights, which could run any code",
    "state_dict": "it holds the weights of another model",
}
# The scale that all of OpenAI's models have learned. Their training clips it to this.
RANDOM_LOGIT_SCALE = 100.0


@dataclass(frozen=True)
class Source:
    """A model of open_clip's: its name there, the tag of its weights ("" for none), our name for both."""

    name: str
    tag: str
    variant: str


def build(options: Options) -> tuple[Any, str]:
    """Return open_clip's own CLIP in evaluation mode, and the variant's name.

    Its `visual.preprocess_cfg` says how images are prepared.
    """
    from open_clip import CLIP, get_model_config

    if options.weights == "demo":
        file = weights.demo_weights(FAMILY.name) / "model.safetensors"
        return _with_weights(lambda: CLIP(**DEMO), {}, replace(options, weights=str(file))), "demo"
    if options.size == "tiny":
        if options.weights == "hub":
            raise ExportError("The hub has no tiny weights: use --weights random or a file.")
        return _with_weights(lambda: CLIP(**TINY), {}, options), "tiny"
    source = parse_variant(options.variant or FAMILY.variants[0], options.weights)
    config = get_model_config(source.name)
    _check_exportable(source.name, config)
    return _with_weights(
        lambda: _architecture(source), _tag_settings(source), options, source
    ), source.variant


def parse_variant(text: str, weights: str = "hub") -> Source:
    """Return the model of one of our names, or of open_clip's NAME or NAME:TAG.

    Raise ExportError if there is no such model, or if the tag of weights from the hub is not clear.
    """
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


def _check_exportable(name: str, config: Mapping[str, Any]) -> None:
    text = config["text_cfg"]
    # SigLIP's tokenizers are chosen by name in open_clip, all others by their configuration.
    if text.get("hf_tokenizer_name") or text.get("tokenizer_kwargs") or "siglip" in name.lower():
        raise ExportError(f"{name} has a tokenizer of its own: only models with CLIP's can be exported.")
    if "multimodal_cfg" in config:
        raise ExportError(f"{name} writes captions: only models of two towers can be exported.")


def _tag_settings(source: Source) -> Mapping[str, Any]:
    """Return what open_clip knows of published weights: their place, colours, resizing and activation."""
    from open_clip import get_pretrained_cfg

    settings: Mapping[str, Any] = get_pretrained_cfg(source.name, source.tag)
    return settings


def _architecture(source: Source) -> Any:
    from open_clip import create_model

    # The same architecture was trained with two activations. Names without "-quickgelu" get the plain GELU.
    # open_clip only warns if the weights were trained with the other, as all of OpenAI's were.
    quick_gelu = bool(_tag_settings(source).get("quick_gelu"))
    with _no_warnings():
        return create_model(
            source.name, force_quick_gelu=quick_gelu, pretrained_image=False, pretrained_text=False
        )


@contextmanager
def _no_warnings() -> Iterator[None]:
    """Keep open_clip from logging that the model has no weights yet: they come later."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def _with_weights(
    make: Callable[[], Any], settings: Mapping[str, Any], options: Options, source: Source | None = None
) -> Any:
    """Make the model, load the chosen weights into it and set how its images are prepared."""
    if options.revision is not None and options.weights != "hub":
        raise ExportError("--revision is for the hub: leave it out with other weights.")
    # Found before the model is made, which can take minutes.
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
    """Set `visual.preprocess_cfg` to open_clip's defaults and these settings, at the model's own size."""
    from open_clip.model import set_model_preprocess_cfg
    from open_clip.transform import PreprocessCfg, merge_preprocess_dict

    preprocess = merge_preprocess_dict(asdict(PreprocessCfg()), dict(settings))
    preprocess["size"] = model.visual.image_size
    set_model_preprocess_cfg(model, preprocess)


def _file(settings: Mapping[str, Any], options: Options, source: Source | None) -> Path:
    """Return the file of weights: a local one, or one fetched from the hub."""
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
        meaning = next((text for words, text in LOAD_FAILURES.items() if words in reason), reason)
        raise ExportError(f"{file} cannot be loaded: {meaning.rstrip('.')}.") from error
