"""What a click costs: a prompt on an image that the gateway knows, over SAM's decoder alone.

    python tests/bench/clicks.py --repository DIR

The decoder alone is ONNX Runtime in this process, with as many threads, on the same embedding and prompt. The
two take turns. Ratios of one run on one machine; the gateway and Triton have processes of their own.
"""

import argparse
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
from skimage import data as skimage_data

from gateway.embedded import EmbeddedTriton
from gateway.pipelines.segmentation import SAM, SAM2
from visiongate import Client, ImageHandle, Model, VisiongateError

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


def until_ready(client: Client) -> list[Model]:
    for _ in range(600):
        try:
            return list(client.list_models())
        except VisiongateError:
            time.sleep(0.2)
    raise TimeoutError("the gateway does not answer")


def measure(repository: Path, server: int, port: int, rounds: int, clicks: int) -> None:
    threads = len(os.sched_getaffinity(0))
    print(f"{'model':6} {'click ms':>9} {'decoder ms':>11} {'ratio':>6} {'gateway CPU ms a click':>23}")
    with Client(f"127.0.0.1:{port}", timeout=600) as client:
        models = until_ready(client)
        for family in (SAM, SAM2):
            decoder = family.roles[1].name
            model = next((each for each in models if each.family == family.name), None)
            if model is None:
                continue
            image = client.encode_image(skimage_data.coffee(), model=model.variant)
            run = alone(repository, decoder, threads)

            def click(image: ImageHandle = image, variant: str = model.variant) -> object:
                return client.segment(image, points=[[POINT]], model=variant)

            for each in (click, run):
                milliseconds(each, 3)
            found, cpu = [], 0.0
            for _ in range(rounds):
                before = cpu_s(server)
                clicked = milliseconds(click, clicks)
                cpu += cpu_s(server) - before
                found.append((clicked, milliseconds(run, clicks)))
            ratio = statistics.median(clicked / decoded for clicked, decoded in found)
            columns = [statistics.median(column) for column in zip(*found, strict=True)]
            each_ms = cpu / rounds / clicks * 1e3
            print(
                f"{family.name:6} {columns[0]:9.1f} {columns[1]:11.1f} {ratio:6.2f} {each_ms:23.1f}",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repository", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--clicks", type=int, default=10)
    parser.add_argument("serve", nargs="*", help="after --: arguments of `visiongate serve`")
    arguments = parser.parse_args()
    with EmbeddedTriton(arguments.repository) as triton:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        command = [str(Path(sys.executable).parent / "visiongate"), "serve", "--port", str(port)]
        command += ["--triton", triton.grpc_address, "--repository", str(arguments.repository)]
        with subprocess.Popen([*command, *arguments.serve]) as server:
            try:
                measure(arguments.repository, server.pid, port, arguments.rounds, arguments.clicks)
            finally:
                server.terminate()


if __name__ == "__main__":
    main()
