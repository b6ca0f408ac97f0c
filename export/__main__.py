"""The command `visiongate export`."""

import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import StrEnum
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from export.errors import ExportError, first_line
from export.half import Precision
from export.placing import reserved
from gateway import extras
from gateway.extras import MissingPackagesError
from gateway.settings_sources import SettingsError, find_repository
from visiongate.commands.common import fail, say, waiting

# Each module has `prepare(options) -> Export`. They import torch: only the asked ones are loaded.
EXPORTERS = {
    "clip": "export.clip",
    "doctr": "export.doctr",
    "face_detection": "export.face_detection",
    "gaze": "export.gaze",
    "grounding_dino": "export.grounding_dino",
    "sam": "export.sam",
    "sam2": "export.sam2",
}
# Of families that answer the same task as another: not part of the default set, `all`.
ALTERNATIVES = {"sam2"}

app = typer.Typer(add_completion=False, rich_markup_mode="rich")


class Size(StrEnum):
    """How large a model to build."""

    full = "full"
    tiny = "tiny"


@app.command()
def export(
    models: Annotated[
        list[str],
        typer.Argument(metavar="MODEL...", help=f"One or more of: {', '.join(EXPORTERS)}; or all."),
    ],
    variant: Annotated[
        str | None,
        typer.Option(
            help="grounding_dino: swin_t (default), swin_b; sam: vit_b (default), vit_l, vit_h; sam2: "
            "hiera_tiny (default), hiera_small, hiera_base_plus, hiera_large; clip: "
            "vit_b_32 (default), vit_b_16, vit_l_14, vit_l_14_336, rn50, rn101, rn50x4, rn50x16, rn50x64, or "
            "any of open_clip's as NAME:TAG, such as ViT-B-32:laion2b_s34b_b79k; doctr: a detector and a "
            "recognizer, db_resnet50-crnn_vgg16_bn (default), of db_resnet50, db_mobilenet_v3_large, "
            "linknet_resnet18, fast_base and crnn_vgg16_bn, crnn_mobilenet_v3_small, vitstr_small, parseq."
        ),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            metavar="hub|demo|random|PATH",
            help="hub: the official repository (default). demo: small models that this project trained on "
            "drawn scenes. PATH: a local folder of the same layout: "
            "config.json, *.safetensors, tokenizer.json or vocab.txt. random: seeded, for parity and speed. "
            "clip: open_clip's own file (.safetensors, .pt). face_detection and gaze have no hub. "
            "face_detection: YuNet's file, "
            "face_detection_yunet_2023mar.onnx of opencv/opencv_zoo. gaze: the checkpoint "
            "L2CSNet_gaze360.pkl by the link in the README of Ahmednull/L2CS-Net, or an ONNX file of its "
            "kind, as of yakhyo/gaze-estimation.",
            show_default=False,
        ),
    ] = None,
    revision: Annotated[
        str | None, typer.Option(help="Pins a commit, branch or tag of the hub repository.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of random weights.")] = 0,
    size: Annotated[
        Size, typer.Option(help="tiny: a toy of the same architecture, random unless PATH is given.")
    ] = Size.full,
    precision: Annotated[
        Precision,
        typer.Option(
            help="fp16 halves the file; inputs and outputs stay as they are. fp16-weights halves the file "
            "too, and computes in float32."
        ),
    ] = Precision.fp32,
    beside: Annotated[
        bool,
        typer.Option(
            "--beside",
            help="Put the variant beside the default, under its name (sam_encoder-vit_h), for requests that "
            "ask for it. Otherwise it becomes the default.",
        ),
    ] = False,
    repository: Annotated[
        str | None,
        typer.Option(
            "--repository",
            "--out",
            metavar="PATH",
            help="The model repository to write to, as `visiongate up` reads it. Default: "
            "VISIONGATE_REPOSITORY, or model_repository in a checkout, or else in the user's data folder.",
            show_default=False,
        ),
    ] = None,
    vocabulary: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            help="grounding_dino: BERT's uncased vocab.txt, instead of the tokenizer of the weights.",
        ),
    ] = None,
    traceback: Annotated[bool, typer.Option("--traceback", help="On failure, show where it failed.")] = False,
) -> None:
    """Turn PyTorch models into ONNX files in a Triton model repository.

    Every file is compared with its PyTorch reference on several inputs; the repository changes only when all
    of a model's files agree with it. Of several models, one that fails does not stop the others. For example:

        visiongate export clip doctr grounding_dino sam

        visiongate export face_detection --weights face_detection_yunet_2023mar.onnx

        visiongate export sam --variant vit_h --repository /models

        visiongate export all --weights demo --repository demo/models
    """
    if models == ["all"]:
        models = [name for name in EXPORTERS if name not in ALTERNATIVES]
    models = list(dict.fromkeys(models))
    try:
        _check(models, variant, revision, weights)
        extras.require("export", "Exporting")
        out = find_repository(repository)
        from export.weights import Options

        options = Options(
            weights=weights or ("random" if size is Size.tiny else "hub"),
            variant=variant,
            revision=revision,
            seed=seed,
            size=size.value,
            vocabulary=vocabulary,
        )
        failed: dict[str, str] = {}
        with reserved(out):
            for name in models:
                try:
                    _export(name, options, precision, beside, out)
                except Exception as error:
                    if traceback:
                        raise
                    failed[name] = _sentence(error)
                    fail(failed[name] if len(models) == 1 else f"{name}: {failed[name]}")
        if len(failed) < len(models):
            shared = f" --weights {weights}" if weights in {"demo", "random"} else ""
            shared += " --size tiny" if size is Size.tiny else ""
            _summary(models, failed, out, shared)
    except (ExportError, ValueError) as error:
        if traceback:
            raise
        fail(_sentence(error))
        raise typer.Exit(1) from error
    if failed:
        raise typer.Exit(1)


def _sentence(error: Exception) -> str:
    if isinstance(error, ExportError | SettingsError | MissingPackagesError):
        return str(error)
    return f"{type(error).__name__}: {first_line(error)}"


def _check(models: Sequence[str], variant: str | None, revision: str | None, weights: str | None) -> None:
    if unknown := [name for name in models if name not in EXPORTERS]:
        raise ExportError(f"There is no model {unknown[0]!r}; there are {', '.join(EXPORTERS)}.")
    if len(set(models)) > 1 and (variant or revision or weights not in {None, "hub", "demo", "random"}):
        raise ExportError(
            "--variant, --revision and a folder of weights are of one model: export one at a time."
        )


def _export(name: str, options: object, precision: Precision, beside: bool, out: Path) -> None:
    with _step(f"{name}: load PyTorch and the weights"):
        from transformers.utils import logging

        from export import onnx_file

        # Its loading reports and bars would drown ours; what matters of them is checked.
        silence: tuple[Any, ...] = (logging.set_verbosity_error, logging.disable_progress_bar)
        for function in silence:
            function()
        prepared = import_module(EXPORTERS[name]).prepare(options)
        if beside:
            prepared = onnx_file.beside(prepared)
    for placed in onnx_file.place(prepared, out, precision=precision, step=_step):
        say(
            f"{placed.model}: {placed.megabytes:,.1f} MB in {placed.seconds:.1f} s, differs from "
            f"{placed.origin} by at most {placed.error:.1e}, "
            f"peak memory {onnx_file.peak_memory_bytes() / 1e9:.1f} GB"
        )
        if placed.config_changed:
            say(f"  {placed.model}/config.pbtxt, which was there, has this export's sizes and parameters.")


@contextmanager
def _step(name: str) -> Iterator[None]:
    start = time.perf_counter()
    with waiting(name):
        yield
    say(Text.assemble(f"  {name} ", (f"{time.perf_counter() - start:.1f} s", "dim")))


def _summary(models: Sequence[str], failed: Mapping[str, str], repository: Path, shared: str) -> None:
    """Say what was exported and what not, what the repository now holds, lacks, and is good for."""
    from export import summary

    say("")
    if failed:
        say(f"Exported: {', '.join(name for name in models if name not in failed)}")
        for name, sentence in failed.items():
            say(f"Not exported: {name}. {sentence}")
    say(f"In {repository}: {', '.join(summary.models(repository))}")
    option = "" if repository == find_repository() else f" --repository {shlex.quote(str(repository))}"
    for line in summary.lacks(repository, shared + option):
        say(line)
    say(f"Next: visiongate up{option}")


def main() -> None:
    """Run the command on its own: `python -m export`."""
    app(prog_name="visiongate export")


if __name__ == "__main__":
    main()
