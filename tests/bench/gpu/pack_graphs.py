"""Exports all graphs of a run without their weights."""

import json
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
import onnxruntime

from bench.gpu import macs, plan, weights
from bench.gpu.plan import SERVED
from export import onnx_writing, triton_config, warmup
from export.families import FAMILIES
from export.graph import Arrays, Graph
from export.half import Precision
from export.weights import Options

# Where transformers makes the model, PyTorch's side of the comparison is made of the same configuration.
_WITH_CONFIG = "sam", "grounding_dino"
_FAMILIES = {
    "clip_image": "clip",
    "clip_text": "clip",
    "sam_encoder": "sam",
    "sam_decoder": "sam",
    "grounding_dino": "grounding_dino",
    "doctr_detection": "doctr",
    "doctr_recognition": "doctr",
    "gaze": "gaze",
}


def pack(models: Iterable[str], size: str, folder: Path, tell: Callable[[str], None]) -> None:
    """Write `folder/<model>/` for each: its graphs, the inputs of one item, and facts.json.

    Full sizes take 6 GB of memory, and CLIP alone takes two minutes of CPU time. What is there already
    stays, so that a run may go on.
    """
    wanted = {name for name in models if not (folder / name / "facts.json").is_file()}
    for family in dict.fromkeys(_FAMILIES[name] for name in plan.MODELS if name in wanted):
        export = FAMILIES[family].prepare(Options(weights="random", size=size))  # type: ignore[arg-type]
        for graph in export.graphs:
            if graph.model in wanted:
                # What is there of a pack that was stopped is not whole.
                shutil.rmtree(folder / graph.model, ignore_errors=True)
                facts = {
                    "size": size,
                    "config": _config(family, size),
                    "variant": graph.parameters["variant"],
                }
                texts = {
                    path.partition("/")[2]: text
                    for path, text in export.files.items()
                    if path.startswith(f"{graph.model}/")
                }
                pack_graph(graph, folder / graph.model, facts, texts)
                sizes = ", ".join(
                    f"{file.stem} {file.stat().st_size / 1e6:.2f}"
                    for file in sorted((folder / graph.model).glob("*.onnx"))
                )
                tell(f"{graph.model}: MB {sizes}")


def pack_graph(
    graph: Graph, folder: Path, facts: Mapping[str, Any], texts: Mapping[str, str] | None = None
) -> None:
    """Write one model's folder. texts: small files that the gateway reads in the model's folder.

    facts.json is the last: where it is, the folder is whole.
    """
    folder.mkdir(parents=True, exist_ok=True)
    one = one_item(graph)
    held = weights.of_arrays(one)
    weights.strip_model(held)
    onnx.save_model(held, str(folder / "inputs.onnx"))
    products = 0
    with TemporaryDirectory() as temporary:
        exported, path = Path(temporary, "exported.onnx"), Path(temporary, "model.onnx")
        # Exporting takes longest: once for both precisions.
        for kind in ("plain", "fast"):
            onnx_writing.export(graph, exported, external_data=False, fast=kind == "fast")
            for precision in (Precision.fp32, Precision.fp16):
                name = f"{kind}-{precision}"
                shutil.copy(exported, path)
                # Speed does not depend on what overflows, and a run says where answers are not finite.
                onnx_writing.finish(graph, path, precision, too_large=(), external_data=False)
                model = onnx.load(str(path))
                if name == SERVED:
                    _configure(graph, path, folder / "repository")
                _drop_probes(model, graph)
                if name == "plain-fp32":
                    products = macs.count(model, one)
                weights.strip_model(model)
                onnx.save_model(model, str(folder / f"{name}.onnx"))
    for name, text in (texts or {}).items():
        (folder / "repository" / name).write_text(text, encoding="utf-8")
    (folder / "facts.json").write_text(json.dumps({**facts, "macs": products}), encoding="utf-8")


def _configure(graph: Graph, path: Path, folder: Path) -> None:
    """Write what a model repository has of a model beside its file."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    text, _ = triton_config.for_graph(graph, session, folder)
    config = folder / "config.pbtxt"
    config.write_text(text, encoding="utf-8")
    warmup.write_files(graph, triton_config.parse(text, config), folder)


def one_item(graph: Graph) -> Arrays:
    """Return the largest request that warms the model up: one item at the size of production.

    What is large and blank in it becomes noise: of zeros a card is quicker than of any photo.
    """
    random = np.random.default_rng(0)

    def filled(value: Any) -> Any:
        if value.size < weights.LEAST_NUMBERS or value.any():
            return value
        if value.dtype == np.uint8:
            return random.integers(0, 256, value.shape, np.uint8)
        return random.standard_normal(value.shape).astype(value.dtype) if value.dtype.kind == "f" else value

    largest = max(graph.warmup, key=lambda request: sum(value.nbytes for value in request.values()))
    return {name: filled(value) for name, value in largest.items()}


def _drop_probes(model: onnx.ModelProto, graph: Graph) -> None:
    kept = [output for output in model.graph.output if output.name not in graph.probes]
    del model.graph.output[:]
    model.graph.output.extend(kept)


def _config(family: str, size: str) -> Any:
    if family not in _WITH_CONFIG:
        return {}
    from importlib import import_module

    variants = import_module(f"export.families.{family}").VARIANTS
    name = "tiny" if size == "tiny" else next(iter(variants))
    return variants[name].config().to_dict()
