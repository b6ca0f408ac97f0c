"""Whether the engines of a repository run on this host: `visiongate export --check-engines`.

TensorRT loads an engine only in the version that built it, and only on the GPU that it was built for.
"""

from collections.abc import Iterator
from pathlib import Path

from export import engine_host, engine_plan
from export.engine_host import Gpu, TensorRT
from export.errors import ExportError

_AGAIN = "export again on this host"


def problem(record: engine_plan.Record, library: TensorRT, gpu: Gpu | None) -> str | None:
    """Return why an engine does not run with this package on this GPU, and what to do, or None if it does.

    It is the end of a sentence.
    """
    made, here = f"{record.package} {record.version}", f"{library.package} {library.version}"
    if made != here:
        return f"was built with {made}, and this host has {here}: {_AGAIN}"
    if gpu is None:
        return "needs a GPU, and this host has none (or no driver): check on the host that runs it"
    if record.compute_capability != gpu.compute_capability or record.gpu not in {None, gpu.name}:
        kind = record.gpu or "any GPU"
        return (
            f"was built for {kind} (compute capability {record.compute_capability}), and this host has "
            f"{gpu.name} ({gpu.compute_capability}): {_AGAIN}"
        )
    return None


def problems(repository: Path) -> Iterator[tuple[Path, str | None]]:
    """Yield the path of each engine of a repository with what `problem` says of it.

    Raise ExportError if there is none, or if this host has no package of TensorRT.
    """
    records = sorted(repository.glob(f"*/[0-9]*/{engine_plan.RECORD}"))
    if not records:
        raise ExportError(f"There are no engines in {repository}: --engine tensorrt builds them.")
    library, gpu = engine_host.tensorrt(), engine_host.gpu()
    for path in records:
        yield path.with_name(engine_plan.FILE), problem(engine_plan.read_record(path), library, gpu)
