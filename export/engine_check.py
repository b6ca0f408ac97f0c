"""Whether the engines of a repository run on this host: `python -m export.engine_check REPOSITORY`.

TensorRT loads an engine only in the version that built it, and only on the GPU that it was built for.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

from export import engine_host, engine_plan
from export.engine_host import Gpu, TensorRT
from export.errors import ExportError
from visiongate.commands.common import fail, say


def problem(record: engine_plan.Record, library: TensorRT, gpu: Gpu | None) -> str | None:
    """Return why an engine does not run with this package on this GPU, as the end of a sentence, or None."""
    made, here = f"{record.package} {record.version}", f"{library.package} {library.version}"
    if made != here:
        return f"was built with {made}, and this host has {here}"
    if gpu is None:
        return "needs a GPU, and this host has none (or no driver)"
    if record.compute_capability != gpu.compute_capability or record.gpu not in {None, gpu.name}:
        kind = record.gpu or "any GPU"
        return (
            f"was built for {kind} (compute capability {record.compute_capability}), and this host has "
            f"{gpu.name} ({gpu.compute_capability})"
        )
    return None


def problems(repository: Path) -> Iterator[tuple[Path, str | None]]:
    """Yield the path of each engine of a repository with what `problem` says of it."""
    records = sorted(repository.glob(f"*/[0-9]*/{engine_plan.RECORD}"))
    if not records:
        return
    library, gpu = engine_host.tensorrt(), engine_host.gpu()
    for path in records:
        yield path.with_name(engine_plan.FILE), problem(engine_plan.read_record(path), library, gpu)


def main() -> None:
    """Print a line for every engine. End with 1 if one does not run here."""
    (repository,) = sys.argv[1:]
    is_wrong = False
    try:
        for path, why in problems(Path(repository)):
            if why is None:
                say(f"{path} runs here.")
            else:
                is_wrong = True
                fail(f"{path} {why}: export again on this host.")
    except ExportError as error:
        is_wrong = True
        fail(str(error))
    if is_wrong:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
