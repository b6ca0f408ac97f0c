"""The command `visiongate export`."""

import shlex
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from export import engine_check, engines
from export.engines import Engine, Target
from export.errors import ExportError, first_line
from export.families import DEFAULT_SET, FAMILIES
from export.half import Precision
from export.placing import reserved
from export.weights import Options
from gateway import extras
from gateway.extras import MissingPackagesError
from gateway.settings_sources import SettingsError, find_repository
from visiongate.commands.common import fail, say, table, waiting

_DEFAULTS = "; ".join(f"{name}: {family.variants[0]}" for name, family in FAMILIES.items())
_WITHOUT_HUB = " and ".join(name for name, family in FAMILIES.items() if family.weights_file)

app = typer.Typer(add_completion=False, rich_markup_mode="rich")


class Size(StrEnum):
    """How large a model to build."""

    full = "full"
    tiny = "tiny"


@app.command()
def export(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="MODEL...",
            show_default=False,
            help=f"One or more of: {', '.join(FAMILIES)}; or all, which is {', '.join(DEFAULT_SET)}.",
        ),
    ] = None,
    list_families: Annotated[
        bool,
        typer.Option("--list", help="Print all models with their variants, weights and licences, and stop."),
    ] = False,
    variant: Annotated[
        str | None,
        typer.Option(
            help=f"A variant of one model; --list shows them all. The defaults are {_DEFAULTS}.",
            show_default=False,
        ),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            metavar="hub|demo|random|PATH",
            help="hub: the official weights (default). demo: small models that this project trained on drawn "
            "scenes. random: seeded weights, to compare results and speed. PATH: a local file, or a local "
            "folder of the hub's layout with config.json, *.safetensors, and tokenizer.json or vocab.txt. "
            f"{_WITHOUT_HUB} need PATH: no hub has their weights. --list shows what each model takes.",
            show_default=False,
        ),
    ] = None,
    revision: Annotated[
        str | None, typer.Option(help="A commit, branch or tag of the hub repository to pin.")
    ] = None,
    seed: Annotated[int, typer.Option(help="The seed of random weights.")] = 0,
    size: Annotated[
        Size,
        typer.Option(help="tiny: a toy of the same architecture, random unless PATH is given."),
    ] = Size.full,
    precision: Annotated[
        Precision,
        typer.Option(
            help="fp16 halves the file; inputs and outputs keep their types. fp16-weights also halves the "
            "file, and computes in float32. int8, of clip only: two to three times as fast on CPUs."
        ),
    ] = Precision.fp32,
    engine: Annotated[
        Engine,
        typer.Option(
            help="What runs the graphs on a GPU. tensorrt also builds engines, for this host's GPU. "
            "onnxruntime-tensorrt lets ONNX Runtime build them when it loads the models. Both stand beside "
            "the default: Triton's --model-config-name chooses.",
        ),
    ] = Engine.onnxruntime,
    compute_capability: Annotated[
        str | None,
        typer.Option(
            metavar="8.9",
            help="tensorrt: the kind of GPU to build for, if it is not this host's. TensorRT for RTX can.",
            show_default=False,
        ),
    ] = None,
    engine_cache: Annotated[
        str,
        typer.Option(
            metavar="PATH",
            help="onnxruntime-tensorrt: the folder, on Triton's host, where ONNX Runtime keeps its engines.",
        ),
    ] = engines.CACHE,
    check_engines: Annotated[
        bool,
        typer.Option(
            "--check-engines",
            help="Say of each engine in the repository whether it runs with the TensorRT and the GPU of this "
            "host, and stop.",
        ),
    ] = False,
    beside: Annotated[
        bool,
        typer.Option(
            "--beside",
            help="Put the variant beside the default one, under its own name (sam_encoder-vit_h), for "
            "requests that ask for it. Without this option it becomes the default.",
        ),
    ] = False,
    repository: Annotated[
        str | None,
        typer.Option(
            "--repository",
            "--out",
            metavar="PATH",
            help="The model repository to write to, the one that `visiongate up` reads. Default: "
            "VISIONGATE_REPOSITORY, or model_repository in a checkout or in the user's data folder.",
            show_default=False,
        ),
    ] = None,
    vocabulary: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            help="grounding_dino: BERT's uncased vocab.txt, instead of the tokenizer of the weights. doctr: "
            "the characters of a folder's recognizer in the order of its classes, on one line.",
        ),
    ] = None,
    with_traceback: Annotated[
        bool, typer.Option("--traceback", help="On failure, show where it failed.")
    ] = False,
) -> None:
    """Turn PyTorch models and ready ONNX files into ONNX files in a Triton model repository.

    Every file is compared with its reference on several inputs. The repository changes only if all of a
    model's files agree with it. A model that fails does not stop the others.

    PyTorch models need the packages of the extra `export` (5 GB). Ready ONNX files, such as those of
    face_detection and gaze, need only those of the extra `onnx` (0.1 GB). For example:

        visiongate export clip doctr grounding_dino sam

        visiongate export face_detection --weights face_detection_yunet_2023mar.onnx

        visiongate export sam --variant vit_h --repository /models

        visiongate export all --weights demo --repository demo/models
    """
    if list_families:
        _list()
        return
    if check_engines:
        _check_engines(repository)
        return
    if not models:
        raise typer.BadParameter("name at least one model; --list shows them all.", param_hint="MODEL...")
    models = list(DEFAULT_SET if models == ["all"] else dict.fromkeys(models))
    try:
        _check(models, variant, revision, weights, precision)
        options = Options(
            weights=weights
            or ("random" if size is Size.tiny else FAMILIES[models[0]].default_weights(variant)),
            variant=variant,
            revision=revision,
            seed=seed,
            size=size.value,
            vocabulary=vocabulary,
        )
        for name in models:
            extras.require(FAMILIES[name].extra(options), f"Exporting {name}")
        target = Target(engine, compute_capability, engine_cache)
        engines.check(target, precision)
        out = find_repository(repository)
        failed: dict[str, str] = {}
        with reserved(out):
            for name in models:
                try:
                    _export(name, options, precision, target, beside, out)
                except Exception as error:
                    if with_traceback:
                        traceback.print_exception(error)
                    failed[name] = _sentence(error)
                    fail(failed[name] if len(models) == 1 else f"{name}: {failed[name]}")
        if len(failed) < len(models):
            shared = f" --weights {weights}" if weights in {"demo", "random"} else ""
            shared += " --size tiny" if size is Size.tiny else ""
            _summary(models, failed, out, shared, target.notice)
    except (ExportError, ValueError) as error:
        if with_traceback:
            traceback.print_exception(error)
        fail(_sentence(error))
        raise typer.Exit(1) from error
    if failed:
        raise typer.Exit(1)


def _list() -> None:
    table(
        ("model", "variants, the default first", "weights", "licence"),
        [(name, family.variants_text, family.weights, family.licence) for name, family in FAMILIES.items()],
    )


def _check_engines(repository: str | None) -> None:
    """Print a line for every engine. Raise typer.Exit with 1 if one does not run here."""
    is_wrong = False
    try:
        for path, why in engine_check.problems(find_repository(repository)):
            if why is None:
                say(f"{path} runs here.")
            else:
                is_wrong = True
                fail(f"{path} {why}.")
    except (ExportError, SettingsError) as error:
        is_wrong = True
        fail(str(error))
    if is_wrong:
        raise typer.Exit(1)


def _sentence(error: Exception) -> str:
    if isinstance(error, ExportError | SettingsError | MissingPackagesError):
        return str(error)
    return f"{type(error).__name__}: {first_line(error)}"


def _check(
    models: Sequence[str],
    variant: str | None,
    revision: str | None,
    weights: str | None,
    precision: Precision,
) -> None:
    if unknown := [name for name in models if name not in FAMILIES]:
        raise ExportError(f"There is no model {unknown[0]!r}; there are {', '.join(FAMILIES)}.")
    if len(set(models)) > 1 and (variant or revision or weights not in {None, "hub", "demo", "random"}):
        raise ExportError(
            "--variant, --revision and a folder of weights belong to one model: export one at a time."
        )
    quantizable = [name for name, family in FAMILIES.items() if family.can_be_int8]
    if precision is Precision.int8 and (others := [name for name in models if name not in quantizable]):
        raise ExportError(
            f"{', '.join(others)} cannot be int8: only {', '.join(quantizable)} measures what that does to "
            "its answers; --precision fp16-weights halves any file."
        )


def _export(
    name: str, options: Options, precision: Precision, target: Target, beside: bool, out: Path
) -> None:
    family = FAMILIES[name]
    with_pytorch = family.extra(options) == "export"
    with _step(f"{name}: load {'PyTorch and ' if with_pytorch else ''}the weights"):
        from export import graph, onnx_file

        if with_pytorch:
            _silence_transformers()
        prepared = family.prepare(options)
        if beside:
            prepared = graph.beside(prepared)
    for placed in onnx_file.place(prepared, out, precision=precision, target=target, step=_step):
        say(
            f"{placed.model}: {placed.megabytes:,.1f} MB in {placed.seconds:.1f} s, differs from "
            f"{placed.origin} by at most {placed.error:.1e}, "
            f"{''.join(f'{measured}, ' for measured in placed.measured)}"
            f"peak memory {onnx_file.peak_memory_bytes() / 1e9:.1f} GB"
        )
        if placed.kept:
            say(f"  {len(placed.kept)} tensors stay in float32: a half might not hold them.")
        if placed.config_changed:
            what = "sizes and parameters, and its warm-up unless that is your own"
            say(f"  {placed.model}/config.pbtxt, which was there, has this export's {what}.")
    if prepared.notice:
        say(f"  {prepared.notice}")


def _silence_transformers() -> None:
    """Turn off the reports and bars of transformers, which would drown ours.

    Whatever matters in them is checked.
    """
    from transformers.utils import logging

    silence: tuple[Any, ...] = (logging.set_verbosity_error, logging.disable_progress_bar)
    for function in silence:
        function()


@contextmanager
def _step(name: str) -> Iterator[None]:
    start = time.perf_counter()
    with waiting(name):
        yield
    say(Text.assemble(f"  {name} ", (f"{time.perf_counter() - start:.1f} s", "dim")))


def _summary(
    models: Sequence[str], failed: Mapping[str, str], repository: Path, shared: str, notice: str
) -> None:
    """Print what was exported and what not, what the repository now holds and lacks, and what comes next."""
    from export import summary

    say("")
    if failed:
        say(f"Exported: {', '.join(name for name in models if name not in failed)}")
        for name, sentence in failed.items():
            say(f"Not exported: {name}. {sentence}")
    say(f"In {repository}: {', '.join(summary.models(repository))}")
    option = "" if repository == find_repository() else f" --repository {shlex.quote(str(repository))}"
    if notice:
        say(notice)
    for line in summary.lacks(repository, shared + option):
        say(line)
    say(f"Next: visiongate up{option}")


def main() -> None:
    """Run the command on its own: `python -m export`."""
    app(prog_name="visiongate export")


if __name__ == "__main__":
    main()
