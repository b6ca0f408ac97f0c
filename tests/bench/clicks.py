"""What a click costs: a prompt on an image that the gateway knows, over SAM's decoder alone.

    python tests/bench/clicks.py --repository DIR

The decoder alone is ONNX Runtime in this process, with as many threads, on an embedding of the same size and
the same prompt. It takes turns with two gateways, of which one keeps embeddings in shared memory. Ratios of
one run on one machine; gateways and Triton have processes of their own.
"""

import argparse
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
from skimage import data as skimage_data

from gateway.embedded import EmbeddedTriton
from gateway.pipelines.segmentation import SAM, SAM2
from visiongate import Client, VisiongateError

POINT = (300.0, 200.0)


def alone(repository: Path, decoder: str, threads: int) -> Callable[[], object]:
    """One run of the decoder, with an embedding of its size."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.force_spinning_stop", "1")
    path = repository / decoder / "1" / "model.onnx"
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    inputs = {node.name: node for node in session.get_inputs()}
    random = np.random.default_rng(0)
    feed = {
        name: random.standard_normal((1, *node.shape[1:]), np.float32)
        for name, node in inputs.items()
        if all(isinstance(size, int) for size in node.shape[1:])
    }
    mask = next(size for size in inputs["mask_input"].shape[::-1] if isinstance(size, int))
    feed |= {
        "points": np.array([[[POINT, (0, 0)]]], np.float32),
        "labels": np.array([[[1, -1]]], np.int32),
        "mask_input": np.zeros((1, 1, mask, mask), np.float32),
        "has_mask_input": np.zeros((1, 1), bool),
    }
    return lambda: session.run(["mask", "mask_iou"], feed)


def milliseconds(call: Callable[[], object], times: int) -> float:
    taken = []
    for _ in range(times):
        start = time.perf_counter()
        call()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken) * 1e3


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Served:
    """A gateway of its own process. how: its setting triton_shared_memory."""

    how: str
    pid: int
    client: Client


@contextmanager
def serving(triton: str, repository: Path, how: str) -> Iterator[Served]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    command = [
        str(Path(sys.executable).parent / "visiongate"),
        "serve",
        "--port",
        str(port),
        "--triton",
        triton,
    ]
    command += ["--repository", str(repository), "--triton-shared-memory", how, "--log-level", "warning"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            with Client(f"127.0.0.1:{port}", timeout=600) as client:
                until_ready(client)
                yield Served(how, process.pid, client)
        finally:
            process.terminate()


def until_ready(client: Client) -> None:
    for _ in range(600):
        try:
            client.list_models()
        except VisiongateError:
            time.sleep(0.2)
        else:
            return
    raise TimeoutError("the gateway does not answer")


def measure(repository: Path, servers: list[Served], rounds: int, clicks: int) -> None:
    threads = len(os.sched_getaffinity(0))
    print(f"{'model':6} {'memory':7} {'click ms':>9} {'decoder ms':>11} {'ratio':>6} {'gateway CPU ms':>15}")
    for family in (SAM, SAM2):
        models = servers[0].client.list_models()
        model = next((each.variant for each in models if each.family == family.name), None)
        if model is None:
            continue
        run = alone(repository, family.roles[1].name, threads)
        milliseconds(run, 3)
        calls = [clicking(server.client, model) for server in servers]
        found: list[list[tuple[float, float, float]]] = [[] for _ in servers]
        for _ in range(rounds):
            for server, call, row in zip(servers, calls, found, strict=True):
                before = cpu_s(server.pid)
                clicked = milliseconds(call, clicks)
                row.append((clicked, milliseconds(run, clicks), (cpu_s(server.pid) - before) / clicks * 1e3))
        for server, row in zip(servers, found, strict=True):
            ratio = statistics.median(clicked / decoded for clicked, decoded, _ in row)
            clicked, decoded, cpu = (statistics.median(column) for column in zip(*row, strict=True))
            print(
                f"{family.name:6} {server.how:7} {clicked:9.1f} {decoded:11.1f} {ratio:6.2f} {cpu:15.1f}",
                flush=True,
            )


def clicking(client: Client, model: str) -> Callable[[], object]:
    """Return a click on a picture that the gateway knows, after a few clicks."""
    image = client.encode_image(skimage_data.coffee(), model=model)

    def click() -> object:
        return client.segment(image, points=[[POINT]], model=model)

    milliseconds(click, 3)
    return click


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repository", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--clicks", type=int, default=10)
    arguments = parser.parse_args()
    with (
        EmbeddedTriton(arguments.repository) as triton,
        serving(triton.grpc_address, arguments.repository, "on") as shared,
        serving(triton.grpc_address, arguments.repository, "off") as sent,
    ):
        measure(arguments.repository, [shared, sent], arguments.rounds, arguments.clicks)


if __name__ == "__main__":
    main()
