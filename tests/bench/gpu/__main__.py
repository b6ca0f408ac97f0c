"""What one GPU gives, measured on an offline host, in twelve minutes at most.

Where there is a network, PyTorch and the checkout:

    PYTHONPATH=tests:. python -m bench.gpu pack

writes bundles of at most 60 MiB to build/gpu/: ONNX Runtime for that GPU, graphs without weights, the server.
On the host with the GPU, in the folder where the bundles are:

    python3 bundle-1/unpack.py && PYTHONPATH=host python3 -m bench.gpu run
    python3 bundle-1/unpack.py bundle-2 bundle-3 && PYTHONPATH=host python3 -m bench.gpu serve
    PYTHONPATH=host python3 -m bench.gpu read

The host needs Python 3.12 with torch (CUDA 13), transformers, torchvision and onnx.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.gpu import host, plan

# Large ones, in versions that do not matter.
HOST_HAS = "numpy", "opencv-python-headless", "pillow", "tokenizers", "huggingface-hub", "hf-xet", "fsspec"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return the exit status."""
    given = parser().parse_args(arguments)
    return int(given.command(given))


def parser() -> argparse.ArgumentParser:
    """Return what reads the command line."""
    whole = argparse.ArgumentParser(
        prog="python -m bench.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = whole.add_subparsers(required=True, metavar="pack | run | serve | read")
    models: dict[str, Any] = {
        "default": ",".join(plan.MODELS),
        "type": _names(plan.MODELS),
        "metavar": "NAMES",
    }

    pack = commands.add_parser(
        "pack", help="export all graphs without weights, and pack them with ONNX Runtime"
    )
    pack.add_argument("--to", type=Path, default=Path("build/gpu"), help="default: %(default)s")
    pack.add_argument("--models", **models, help="with commas between; default: all, %(default)s")
    pack.add_argument("--size", choices=("full", "tiny"), default="full", help="tiny: toys, to try a run")
    pack.add_argument(
        "--architecture", type=int, default=90, help="90 is H100 and H200; 80 A100; 89 L4, L40S"
    )
    pack.add_argument(
        "--unpruned", action="store_true", help="code for every architecture: five bundles in place of one"
    )
    pack.add_argument(
        "--keep-lone",
        action="store_true",
        help="keep kernels that exist for this architecture alone, which none of the models is known to need",
    )
    pack.add_argument(
        "--no-server", action="store_true", help="graphs alone: leave Triton and the gateway out"
    )
    pack.add_argument(
        "--host-has",
        type=lambda text: text.split(","),
        default=HOST_HAS,
        metavar="NAMES",
        help="packages of the gateway's that the host has already; default: " + ",".join(HOST_HAS),
    )
    pack.set_defaults(command=_pack)

    run = commands.add_parser(
        "run", help="measure within a time limit; a run that is stopped leaves what it has measured"
    )
    run.add_argument(
        "--graphs", type=Path, default=Path("graphs"), help="what pack wrote; default: %(default)s"
    )
    run.add_argument("--results", type=Path, default=Path("results.jsonl"), help="lines are added to it")
    run.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu: to try the run itself")
    run.add_argument("--models", **models, help="with commas between; default: all")
    run.add_argument(
        "--ways",
        type=_names(plan.WAYS),
        default=",".join(plan.WAYS),
        metavar="NAMES",
        help=f"with commas between; default: all, {', '.join(plan.WAYS)}",
    )
    run.add_argument("--limit-s", type=float, default=420, help="for everything; default: %(default)s")
    run.add_argument("--seconds", type=float, default=1.0, help="of each measurement; default: %(default)s")
    run.set_defaults(command=_run)

    served = commands.add_parser("serve", help="measure `visiongate up --gpu` with callers, after run")
    served.add_argument(
        "--graphs", type=Path, default=Path("graphs"), help="what pack wrote; default: %(default)s"
    )
    served.add_argument("--results", type=Path, default=Path("results.jsonl"), help="lines are added to it")
    served.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu: to try it")
    served.add_argument("--wheels", type=Path, default=Path("wheels"), help="for Triton's environment")
    served.add_argument("--limit-s", type=float, default=200, help="for everything; default: %(default)s")
    served.add_argument(
        "--seconds", type=float, default=4.0, help="of each measurement; default: %(default)s"
    )
    served.set_defaults(command=_serve)

    read = commands.add_parser("read", help="print the results as Markdown")
    read.add_argument("results", type=Path, nargs="?", default=Path("results.jsonl"))
    read.set_defaults(command=_read)
    return whole


def _names(known: Sequence[str] | dict[str, plan.Way]) -> "type[list[str]]":
    def names(text: str) -> list[str]:
        given = text.split(",")
        if unknown := [name for name in given if name not in known]:
            raise argparse.ArgumentTypeError(f"there is no {unknown[0]!r}: choose among {', '.join(known)}")
        return given

    return names  # type: ignore[return-value]


def _pack(given: argparse.Namespace) -> int:
    from bench.gpu import pack, pack_graphs

    pack_graphs.pack(given.models, given.size, given.to / "graphs", print)
    pack.pack(
        given.to,
        given.models,
        architecture=given.architecture,
        is_pruned=not given.unpruned,
        drop_lone=not given.keep_lone,
        host_has=given.host_has,
        with_server=not given.no_server,
        tell=print,
    )
    return 0


def _run(given: argparse.Namespace) -> int:
    with_torch = any(not plan.WAYS[way].graph for way in given.ways)
    if not _is_able(given.device, with_torch=with_torch, with_server=False):
        return 1
    from bench.gpu import run

    if missing := [name for name in given.models if not (given.graphs / name / "facts.json").is_file()]:
        return _refuse(f"{given.graphs} has no {', '.join(missing)}: `bench.gpu pack` makes them")
    try:
        run.run(
            given.graphs,
            given.results,
            device=given.device,
            models=given.models,
            ways=given.ways,
            limit_s=given.limit_s,
            seconds=given.seconds,
            tell=print,
        )
    except run.SmokeError as error:
        return _refuse(f"The smoke test failed, nothing was measured: {error}")
    return 0


def _serve(given: argparse.Namespace) -> int:
    if not _is_able(given.device, with_torch=False, with_server=True):
        return 1
    from bench.gpu import run_served

    run_served.run(
        given.graphs,
        given.results,
        device=given.device,
        wheels=given.wheels,
        limit_s=given.limit_s,
        seconds=given.seconds,
    )
    return 0


def _read(given: argparse.Namespace) -> int:
    from bench.gpu import read

    if not given.results.is_file():
        return _refuse(f"{given.results} is not there: `bench.gpu run` writes it")
    print(read.report(given.results), end="")
    return 0


def _is_able(device: str, *, with_torch: bool, with_server: bool) -> bool:
    """Say everything that the host lacks, and whether it can be measured without that."""
    lacks = host.lacks(device, with_torch=with_torch, with_server=with_server)
    for lack in lacks:
        print(lack.sentence, file=sys.stderr)
    return not any(lack.is_fatal for lack in lacks)


def _refuse(sentence: str) -> int:
    print(sentence, file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
