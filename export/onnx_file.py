"""From a PyTorch module or an ONNX model to `<repository>/<model>/1/model.onnx`, with proof that it agrees.

A family of models (see `export.families`) describes its files as `Graph`s. `place` does the rest: it exports
them aside, checks them, compares them with their references, and only then moves them into the repository.
PyTorch is imported only for a PyTorch module.
"""

import resource
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from export import engines, fingerprint, int8, parity, placing, rounding, triton_config, warmup
from export.engines import DEFAULT_TARGET, Target
from export.errors import ExportError
from export.graph import Arrays, Export, Graph
from export.half import Precision
from export.onnx_writing import drop_probes, load, read, write

Step = Callable[[str], AbstractContextManager[None]]


@dataclass(frozen=True)
class Placed:
    """A file that was placed, and the figures of its export."""

    model: str
    path: Path
    megabytes: float
    seconds: float
    error: float
    measured: Sequence[str]
    """The worst of each of the task's measures, for people. Empty at float32."""
    kept: Sequence[str]
    """The tensors that stay float32 at fp16, because a half might not hold them."""
    origin: str
    config_changed: bool


def place(
    export: Export,
    repository: Path,
    *,
    precision: Precision = Precision.fp32,
    target: Target = DEFAULT_TARGET,
    external_data: bool | None = None,
    step: Step = lambda _name: nullcontext(),
) -> list[Placed]:
    """Export, check and compare every graph, then move all of them into the repository.

    Nothing in the repository changes before the last comparison has passed. `external_data` puts the weights
    into `model.onnx.data`. By default that happens only if they do not fit into one protobuf message.
    """
    with placing.staged(repository, engines.CONFIGS) as staging:
        made = [
            _make(
                graph,
                staging,
                repository,
                precision=precision,
                target=target,
                external_data=external_data,
                step=step,
            )
            for graph in export.graphs
        ]
        for path, text in export.files.items():
            (staging / path).parent.mkdir(exist_ok=True)
            (staging / path).write_text(text, encoding="utf-8")
        fingerprint.write(staging / graph.model for graph in export.graphs)
    return made


def peak_memory_bytes() -> int:
    """Return the most memory that this process has held so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _make(
    graph: Graph,
    staging: Path,
    repository: Path,
    *,
    precision: Precision,
    target: Target,
    external_data: bool | None,
    step: Step,
) -> Placed:
    start = time.perf_counter()
    path = staging / graph.model / "1" / "model.onnx"
    path.parent.mkdir(parents=True)
    photos = () if precision is Precision.fp32 else graph.photos()
    with step(f"{graph.model}: export to ONNX"):
        kept = write(graph, path, precision=precision, external_data=external_data)
    with step(f"{graph.model}: check the file against config.pbtxt"):
        session = load(path)
        config, changed = triton_config.for_graph(graph, session, repository)
        config_path = staging / graph.model / "config.pbtxt"
        config_path.write_text(config, encoding="utf-8")
        warmup.write_files(graph, triton_config.parse(config, config_path), config_path.parent)
    agreement = _prove(graph, path, session, precision, photos, step)
    del session
    if target.needs_plain:
        plain = staging / graph.model / "plain" / engines.PLAIN
        plain.parent.mkdir()
        with step(f"{graph.model}: export the plain graph"):
            write(graph, plain, precision=precision, fast=False, external_data=external_data)
        _prove(graph, plain, load(plain), precision, photos, step)
        folders = staging / graph.model, repository / graph.model
        engines.add(target, graph, plain, *folders, precision=precision, step=step)
        shutil.rmtree(plain.parent)
    megabytes = sum(file.stat().st_size for file in path.parent.iterdir()) / 1e6
    final = repository / graph.model / "1" / "model.onnx"
    seconds = time.perf_counter() - start
    return Placed(
        graph.model,
        final,
        megabytes,
        seconds,
        agreement.difference,
        agreement.measured,
        kept,
        graph.origin,
        changed,
    )


def _prove(
    graph: Graph, path: Path, session: Any, precision: Precision, photos: Sequence[Arrays], step: Step
) -> parity.Agreement:
    """Compare a file with its reference, and drop the outputs that only the comparison needs."""
    with step(f"{graph.model}: compare with {graph.origin} on {len(graph.cases) + len(photos)} inputs"):
        agreement = _compare(graph, path, session, precision, photos)
    if graph.probes:
        with step(f"{graph.model}: drop the outputs that only the comparison needed"):
            del session
            drop_probes(graph, path)
            parity.run(load(path), graph.cases[0])
    return agreement


def _compare(
    graph: Graph, path: Path, session: Any, precision: Precision, photos: Sequence[Arrays]
) -> parity.Agreement:
    """Compare a file with its reference. If it computes in half, it is run with all of its rounding."""
    if precision is Precision.fp32:
        return parity.compare(graph, session, graph.tolerance)
    if precision is Precision.fp16_weights:
        return parity.compare(graph, session, graph.half_tolerance, graph.measures, photos)
    if precision is Precision.int8:
        gate = int8.gate_of(graph)
        return parity.compare(graph, session, int8.TOLERANCE, gate.measures, gate.cases)
    # The file itself must run, too.
    parity.run(session, graph.cases[0])
    with rounding.session(path, rounding.kept(read(path))) as rounded:
        try:
            return parity.compare(graph, rounded, graph.half_tolerance, graph.measures, photos)
        except ExportError as error:
            if name := rounding.first_not_finite(path, [*graph.cases, *photos]):
                raise ExportError(
                    f"{graph.model}: {name} is more than half precision can hold; "
                    f"export it with --precision {Precision.fp16_weights.value}."
                ) from error
            raise
