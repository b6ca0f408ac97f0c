"""What a graph costs on a CPU with attention as one operator: seconds and memory, beside the plain graph.

    python tests/bench/graphs.py sam/sam_encoder [--variant vit_b] [--size tiny] [--rounds 3] [--against DIR]

Weights are random, sizes are those of production. By turns, a process of its own loads the file and
answers one request twice, with one thread. Seconds are those of the processors for the second answer: other
work on the machine changes them less than the time. Memory is the most that the process held. `--against`
compares with the same model of another repository, such as one that an earlier version has exported.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

# Arguments: the file and the request. Prints the CPU seconds of the second answer and the process's peak in
# bytes. The first answer also takes from the system the memory that the second finds there.
RUN = """
import json, resource, sys
import numpy, onnxruntime
options = onnxruntime.SessionOptions()
options.log_severity_level = 3
options.intra_op_num_threads = 1
session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
with numpy.load(sys.argv[2]) as file:
    inputs = dict(file)
def used():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024
session.run(None, inputs)
before = used()[0]
session.run(None, inputs)
seconds, peak = used()
print(json.dumps([seconds - before, peak]))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("graph", help="FAMILY/MODEL, such as clip/clip_image")
    parser.add_argument("--variant")
    parser.add_argument("--size", default="full", choices=["full", "tiny"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--against", type=Path, metavar="DIR")
    arguments = parser.parse_args()
    family, _, model = arguments.graph.partition("/")
    with tempfile.TemporaryDirectory() as folder:
        made = {name: Path(folder, name, model, "1", "model.onnx") for name in ("fast", "plain")}
        if arguments.against is not None:
            made["plain"] = arguments.against / model / "1" / "model.onnx"
        options = {"variant": arguments.variant, "size": arguments.size}
        for name, path in made.items():
            if path.is_relative_to(folder):
                # A process each, which gives its gigabytes back.
                write = [sys.executable, __file__, family, model, name, str(path), json.dumps(options)]
                subprocess.run([*write, str(Path(folder, "request.npz"))], check=True)
        compare(made, Path(folder, "request.npz"), arguments.rounds)


def write(family: str, model: str, name: str, path: str, options: str, request: str) -> None:
    """Export one graph, and the request to ask it: the smallest that its warm-up or its comparison has."""
    from export import onnx_writing
    from export.families import FAMILIES
    from export.weights import Options

    export = FAMILIES[family].prepare(Options(weights="random", **json.loads(options)))
    (graph,) = (graph for graph in export.graphs if graph.model == model)
    Path(path).parent.mkdir(parents=True)
    onnx_writing.write(graph, Path(path), fast=name == "fast")
    requests = graph.warmup or graph.cases
    np.savez(request, **min(requests, key=lambda inputs: sum(value.size for value in inputs.values())))  # type: ignore[arg-type]


def compare(files: dict[str, Path], request: Path, rounds: int) -> None:
    """Run each file by turns and print medians and ratios."""
    seen: dict[str, list[tuple[float, float]]] = {name: [] for name in files}
    for _ in range(rounds):
        for name, path in files.items():
            command = [sys.executable, "-c", RUN, str(path), str(request)]
            result = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            seconds, peak = json.loads(result.stdout)
            print(f"{name:5}  {seconds:8.3f} CPU s  {peak / 1e9:6.2f} GB", flush=True)
            seen[name].append((seconds, peak))
    fast, plain = (
        [statistics.median(column) for column in zip(*seen[name], strict=True)] for name in ("fast", "plain")
    )
    print(f"ratio  {fast[0] / plain[0]:8.2f}        {fast[1] / plain[1]:6.2f}")


if __name__ == "__main__":
    if len(sys.argv) == 7 and not sys.argv[1].startswith("-") and sys.argv[3] in {"fast", "plain"}:
        write(*sys.argv[1:])
    else:
        main()
