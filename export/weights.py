"""Where the weights of a transformers model come from: the hub, a folder, our demo, or a seed."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from export import hub
from export.errors import ExportError, first_line

# The weights that this project trained itself (export/demo), in a folder per family. Their variant is "demo".
DEMO_WEIGHTS = Path(__file__).parent / "demo" / "weights"


def demo_weights(family: str) -> Path:
    """Return the folder of a family's demo weights. Raise ExportError if there is none."""
    folder = DEMO_WEIGHTS / family
    if not folder.is_dir():
        raise ExportError(
            f"There are no demo weights of {family}: `visiongate demo train {family}` makes them."
        )
    return folder


@dataclass(frozen=True)
class Options:
    """What the command line asks of an exporter."""

    weights: str = "hub"
    """`hub`, `random`, `demo`, or the path of a local file or of a folder of the hub's layout."""
    variant: str | None = None
    revision: str | None = None
    seed: int = 0
    size: Literal["full", "tiny"] = "full"
    vocabulary: Path | None = None

    @property
    def is_onnx(self) -> bool:
        """Return whether the name of the weights is that of a ready ONNX file."""
        return Path(self.weights).suffix.lower() == ".onnx"


@dataclass(frozen=True)
class Variant:
    """One size of an architecture."""

    hub: str | None
    """Its official repository. None for sizes of our own: the toy `tiny`, and `demo`, which we trained."""
    config: Callable[[], Any]
    parameters: Mapping[str, str]
    """The `parameters` of its config.pbtxt, without family and variant."""


def load(
    architecture: Any,
    variants: Mapping[str, Variant],
    is_same: Callable[[Any, Any], bool],
    options: Options,
    relatives: Sequence[str] = (),
) -> tuple[Any, str]:
    """Return the model in evaluation mode and the name of its variant.

    `architecture` is a class of transformers. `is_same` says whether two of its configurations describe the
    same variant, which finds the variant of a local folder. `relatives` are types of models that have all of
    its weights, and more.
    """
    own = "demo" if options.weights == "demo" else "tiny" if options.size == "tiny" else None
    name = own or options.variant or next(iter(variants))
    if name not in variants:
        known = ", ".join(variant for variant in variants if variants[variant].hub is not None)
        raise ExportError(f"There is no variant {name!r}; there are {known}.")
    source = options.weights
    if source == "hub" and variants[name].hub is None:
        raise ExportError(f"The hub has no {name} weights: use --weights random or a folder.")
    if options.revision is not None and source != "hub":
        raise ExportError("--revision is for the hub: leave it out with other weights.")

    if source == "random":
        return _random(architecture, variants[name].config(), options.seed), name
    if source == "hub":
        return _pretrained(architecture, str(variants[name].hub), relatives, revision=options.revision), name
    # Our name of the family is transformers' name of the architecture, without hyphens.
    folder = (
        demo_weights(architecture.config_class.model_type.replace("-", "_"))
        if own == "demo"
        else Path(source)
    )
    _check_folder(folder)
    model = _pretrained(architecture, str(folder), relatives, local_files_only=True)
    held = next((known for known, v in variants.items() if is_same(v.config(), model.config)), None)
    if held is None:
        raise ExportError(f"{folder} holds none of the variants {', '.join(variants)}.")
    if held != name and (options.variant is not None or options.size == "tiny"):
        raise ExportError(f"{folder} holds {held}, not {name}.")
    return model, held


def _check_folder(folder: Path) -> None:
    if not folder.is_dir():
        raise ExportError(f"{folder} is not a folder; --weights takes hub, random or a folder.")
    if not (folder / "config.json").is_file():
        raise ExportError(f"{folder} has no config.json, so it is not a folder of the hub's layout.")
    if not any(folder.glob("*.safetensors")):
        reason = "only pickled weights, which can run any code" if any(folder.glob("*.bin")) else "no weights"
        raise ExportError(f"{folder} has {reason}; model.safetensors is needed.")


def _pretrained(architecture: Any, name: str, relatives: Sequence[str], **arguments: Any) -> Any:
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(name, **arguments)
        if config.model_type in relatives:
            config = architecture.config_class.from_pretrained(name, **arguments)
        elif config.model_type != architecture.config_class.model_type:
            raise ExportError(
                f"{name} holds a {config.model_type} model, not {architecture.config_class.model_type}."
            )
        model, info = architecture.from_pretrained(
            name, config=config, use_safetensors=True, output_loading_info=True, **arguments
        )
    except ExportError:
        raise
    except Exception as error:
        if "revision" in arguments:
            raise hub.fault(name, error, arguments["revision"]) from error
        raise ExportError(f"Cannot load {name}: {first_line(error)}") from error
    # transformers fills what a file lacks with random numbers, and only logs that.
    for problem in ("missing_keys", "mismatched_keys"):
        if info[problem]:
            first = sorted(map(str, info[problem]))[0]
            raise ExportError(f"{name} lacks weights ({len(info[problem])}, the first is {first}).")
    return model.float().eval()


def _random(architecture: Any, config: Any, seed: int) -> Any:
    """Build the architecture with seeded weights that keep signals alive through all of its layers.

    The usual initialisers are made for training: SAM's vision weights spread by 1e-10, and Grounding DINO's
    box heads and many biases are zero. Outputs then hardly depend on the input, and parity proves nothing.
    """
    import torch

    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(seed)
        model = architecture(config)
        randomise(model)
    return model.eval()


def randomise(model: Any) -> None:
    """Draw every parameter anew from PyTorch's generator in its current state."""
    import torch

    with torch.no_grad():
        for module in model.modules():
            for name, parameter in module.named_parameters(recurse=False):
                if isinstance(module, torch.nn.Embedding) or name == "positional_embedding":
                    parameter.normal_()
                elif parameter.dim() > 1:
                    parameter.normal_(std=parameter[0].numel() ** -0.5)
                else:
                    # The scales of norms are called weight. All others are biases or layer scales.
                    parameter.normal_(mean=1.0 if name == "weight" else 0.0, std=0.1)
