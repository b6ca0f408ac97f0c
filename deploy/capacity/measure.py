"""Measures costs: CPU of gateway and Triton for each image, and Triton's time for each batch.

Triton, the gateway and the callers run on this machine, each in a process of its own. The gateway keeps
nothing in its caches, so that each call does all of its work.
"""

import asyncio
import io
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image
from tritonclient.grpc import InferenceServerClient

from deploy.capacity.costs import Costs, ModelCost, TaskCost
from gateway.embedded import EmbeddedTriton
from visiongate import AsyncClient

TICK_S = 1 / os.sysconf("SC_CLK_TCK")
WARM_UP_S = 2.0
QUALITY = 90  # of the JPEG files that are sent
PICTURES = 64  # more than callers: the gateway works once for callers that send the same at the same time
NO_CACHES = (
    "--image-cache-bytes=0",
    "--sam-embedding-cache-bytes=0",
    "--clip-image-cache-bytes=0",
)
PHRASES = ["person", "cup", "table"]
Call = Callable[[AsyncClient, bytes], Awaitable[object]]
TASKS: dict[str, Call] = {
    "embed": lambda client, image: client.embed_images([image]),
    "detect": lambda client, image: client.detect(image, PHRASES),
    "cut_out": lambda client, image: client.segment_phrases(image, PHRASES),
    "read": lambda client, image: client.recognize_text([image]),
    "gaze": lambda client, image: client.estimate_gaze(image),
}


@dataclass
class Run:
    """What a run of one task showed. CPU seconds are of a call, latencies of all calls."""

    callers: int
    calls: int
    seconds: float
    latencies_s: list[float]
    loop_s: float
    threads_s: float
    caller_s: float
    triton_s: float
    request_bytes: float
    # By model: items, and seconds by batch size.
    items: dict[str, float] = field(default_factory=dict)
    batch_s: dict[str, dict[int, float]] = field(default_factory=dict)

    @property
    def rate(self) -> float:
        return self.calls / self.seconds

    @property
    def median_s(self) -> float:
        return statistics.median(self.latencies_s)


@contextmanager
def gateway(triton: str, repository: Path) -> Iterator[tuple[int, str]]:
    """Start a gateway without caches; give its process id and address."""
    command = str(Path(sys.executable).parent / "visiongate")
    places = [f"--triton={triton}", f"--repository={repository}", "--port=0", "--log-level=warning"]
    with subprocess.Popen(
        [command, "serve", *places, *NO_CACHES], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            first = process.stdout.readline()
            found = re.search(r"answers at (\S+)", first)
            if found is None:
                raise RuntimeError(f"the gateway did not start: {first}")
            yield process.pid, found[1]
        finally:
            process.terminate()


@contextmanager
def stack(repository: Path, triton: str | None) -> Iterator["Stack"]:
    """Start Triton, unless there is one at an address, and the gateway."""
    with EmbeddedTriton(repository) if triton is None else nullcontext() as embedded:
        address = triton or (embedded.grpc_address if embedded else "")
        with gateway(address, repository) as (pid, server):
            yield Stack(pid, server, InferenceServerClient(address), _tree(os.getpid()) - _tree(pid))


@dataclass
class Stack:
    """A running gateway and Triton. triton_pids: its processes on this machine, if it is here."""

    gateway_pid: int
    server: str
    triton: InferenceServerClient
    triton_pids: set[int]

    def statistics(self) -> dict[str, tuple[int, dict[int, tuple[int, int]]]]:
        """Return items, and executions with their nanoseconds by batch size, of each model."""
        answer = self.triton.get_inference_statistics(as_json=True)
        known = {}
        for model in answer.get("model_stats", ()):
            batches = {}
            for batch in model.get("batch_stats", ()):
                parts = [batch[name] for name in ("compute_input", "compute_infer", "compute_output")]
                spent = sum(int(part.get("ns", 0)) for part in parts)
                batches[int(batch["batch_size"])] = (int(batch["compute_infer"].get("count", 0)), spent)
            known[model["name"]] = (int(model.get("inference_count", 0)), batches)
        return known


async def run(stack: Stack, call: Call, pictures: list[bytes], callers: int, seconds: float) -> Run:
    """Let callers ask one call after the other for so many seconds."""
    async with AsyncClient(stack.server) as client:
        warm = time.perf_counter() + min(WARM_UP_S, seconds)
        while time.perf_counter() < warm:
            await asyncio.gather(*(call(client, picture) for picture in pictures[:callers]))
        before = stack.statistics()
        loop, threads = _cpu(stack.gateway_pid)
        own, triton = time.process_time(), _cpu_of(stack.triton_pids - {os.getpid()})
        latencies: list[float] = []
        start = time.perf_counter()
        turn = iter(range(10**9))

        async def caller() -> None:
            while time.perf_counter() - start < seconds:
                began = time.perf_counter()
                await call(client, pictures[next(turn) % len(pictures)])
                latencies.append(time.perf_counter() - began)

        await asyncio.gather(*(caller() for _ in range(callers)))
        took = time.perf_counter() - start
        loop_after, threads_after = _cpu(stack.gateway_pid)
        count = len(latencies)
        result = Run(
            callers,
            count,
            took,
            latencies,
            loop_s=(loop_after - loop) / count,
            threads_s=(threads_after - threads) / count,
            caller_s=(time.process_time() - own) / count,
            triton_s=(_cpu_of(stack.triton_pids - {os.getpid()}) - triton) / count,
            request_bytes=statistics.mean(map(len, pictures)),
        )
    for name, (items, batches) in stack.statistics().items():
        items_before, batches_before = before.get(name, (0, {}))
        if items == items_before:
            continue
        result.items[name] = (items - items_before) / count
        for size, (executions, spent) in batches.items():
            executions_before, spent_before = batches_before.get(size, (0, 0))
            if executions > executions_before:
                seconds_each = (spent - spent_before) / (executions - executions_before) / 1e9
                result.batch_s.setdefault(name, {})[size] = seconds_each
    return result


def pictures(photo: Path, megapixels: float) -> list[bytes]:
    """Return JPEG files of a photo at a size. One pixel differs, so that no two are the same."""
    with Image.open(photo) as opened:
        picture = opened.convert("RGB")
    scale = (megapixels * 1e6 / (picture.width * picture.height)) ** 0.5
    size = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
    pixels = np.array(picture.resize(size))
    files = []
    for number in range(PICTURES):
        pixels[0, 0] = number
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "JPEG", quality=QUALITY)
        files.append(file.getvalue())
    return files


def costs_of(runs: dict[str, list[tuple[float, Run]]], device: str, source: str) -> Costs:
    """Return what runs of each task, with the megapixels of their images, say of costs."""
    batches: dict[str, dict[int, list[float]]] = {}
    tasks: dict[str, TaskCost] = {}
    triton_s: dict[str, float] = {}
    cores: dict[str, int] = {}
    for name, of_task in runs.items():
        tasks[name] = _task_cost(of_task)
        for _, run in of_task:
            for model, by_size in run.batch_s.items():
                for size, seconds in by_size.items():
                    # On processors that a model shares with others, its time with several callers is mostly
                    # waiting, which the simulation adds by itself.
                    if device != "cpu" or run.callers == 1:
                        batches.setdefault(model, {}).setdefault(size, []).append(seconds)
        # How many cores models work on, and what Triton does beside them, is told by runs without waiting.
        alone = [run for _, run in of_task if run.callers == 1]
        spent_s = statistics.mean(run.triton_s for run in alone)
        models_s = statistics.mean(
            sum(
                run.items[model] * min(seconds / size for size, seconds in by_size.items())
                for model, by_size in run.batch_s.items()
            )
            for run in alone
        )
        for model in alone[0].items:
            cores[model] = max(1, round(spent_s / models_s)) if models_s and device == "cpu" else 1
            beside_s = max(0.0, spent_s - cores[model] * models_s) if device == "cpu" else spent_s
            triton_s[model] = beside_s / sum(alone[0].items.values())
    models = {
        model: ModelCost(
            batch_ms={device: {size: _ms(statistics.mean(s)) for size, s in sorted(by_size.items())}},
            max_batch=max(by_size),
            cores=cores.get(model, 1),
            triton_ms=_ms(triton_s.get(model, 0.0)),
            tensor_bytes=0,
        )
        for model, by_size in batches.items()
    }
    return Costs(sources={device: source}, task=tasks, model=models)


def _task_cost(runs: list[tuple[float, Run]]) -> TaskCost:
    """Return the cost of a task. Work by size is the line through the smallest and the largest images."""
    sizes = sorted({megapixels for megapixels, _ in runs})
    threads = [
        statistics.mean(run.threads_s for megapixels, run in runs if megapixels == size) for size in sizes
    ]
    slope = max(0.0, (threads[-1] - threads[0]) / (sizes[-1] - sizes[0])) if len(sizes) > 1 else 0.0
    models = {model for _, run in runs for model in run.items}
    return TaskCost(
        loop_ms=_ms(statistics.mean(run.loop_s for _, run in runs)),
        thread_ms=_ms(max(0.0, threads[0] - slope * sizes[0])),
        thread_ms_per_megapixel=_ms(slope),
        request_bytes_per_megapixel=round(
            statistics.mean(run.request_bytes / megapixels for megapixels, run in runs)
        ),
        answer_bytes=0,
        requests={
            model: round(statistics.mean(run.items.get(model, 0) for _, run in runs), 3)
            for model in sorted(models)
        },
    )


def _ms(seconds: float) -> float:
    return round(1e3 * seconds, 3)


def _cpu(pid: int) -> tuple[float, float]:
    """Return CPU seconds of a process: of its first thread, which runs the event loop, and of the others."""
    loop = others = 0.0
    for thread in Path(f"/proc/{pid}/task").iterdir():
        # The name in brackets may have spaces.
        fields = (thread / "stat").read_text().rpartition(")")[2].split()
        seconds = (int(fields[11]) + int(fields[12])) * TICK_S
        if int(thread.name) == pid:
            loop += seconds
        else:
            others += seconds
    return loop, others


def _cpu_of(pids: set[int]) -> float:
    return sum(sum(_cpu(pid)) for pid in pids if Path(f"/proc/{pid}").exists())


def _tree(pid: int) -> set[int]:
    """Return a process and all that it has started."""
    children: dict[int, list[int]] = {}
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                fields = (process / "stat").read_text().rpartition(")")[2].split()
            except OSError:  # it has just ended
                continue
            children.setdefault(int(fields[1]), []).append(int(process.name))
    found, waiting = set(), [pid]
    while waiting:
        one = waiting.pop()
        found.add(one)
        waiting += children.get(one, [])
    return found
