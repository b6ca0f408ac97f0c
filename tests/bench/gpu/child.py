"""One part of a run, in a process of its own: `bench.gpu.run` starts it."""

import argparse
import json
import sys
from pathlib import Path

from bench.gpu import run_graphs, smoke, timing
from bench.gpu.plan import Measurement


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("part", choices=("smoke", "peak", "measure"))
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--graphs", type=Path)
    parser.add_argument("--seconds", type=float, default=1.0)
    given = parser.parse_args()
    if given.part == "smoke":
        for operator, wrong in smoke.check(given.device):
            timing.add(given.results, kind="smoke", operator=operator, wrong=wrong)
    elif given.part == "peak":
        from bench.gpu.run_torch import peak

        timing.add(
            given.results, kind="peak", tflops=peak(given.device, 1.0 if given.device == "cuda" else 0.05)
        )
    else:
        wanted = [Measurement(**each) for each in json.load(sys.stdin)]
        run_graphs.run(wanted, given.graphs, given.device, given.seconds, given.results)


if __name__ == "__main__":
    main()
