"""Measures tasks: through the gateway, straight to Triton with the same tensors, and the models alone."""

import contextlib
import os
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from gateway.bench import servers
from gateway.bench.cpu import Split
from gateway.bench.generator_process import GeneratorError, GeneratorProcess
from gateway.bench.load import Load, Wave
from gateway.bench.recorder import recording
from gateway.bench.rounds import Round, Summary
from gateway.bench.tasks import Task
from gateway.bench.tensors import read_request
from gateway.settings import Settings

GATEWAY, TRITON, MODELS = "gateway", "Triton alone", "ONNX Runtime alone"
_WARM_UP_S = 0.5
_SHARED_MEMORY = "triton_shared_memory"
_CALL_TIMEOUT_S = 300


@dataclass(frozen=True, slots=True)
class Target:
    """A server to load. processes: those that started all others, by whose they are; empty if unknown."""

    address: str
    processes: Mapping[str, Iterable[int]]


@dataclass(frozen=True, slots=True)
class Measured:
    """A task's rounds, by way: GATEWAY, TRITON, MODELS. ratios: the gateway's rate over the others'."""

    task: Task
    summaries: Mapping[str, Summary]
    ratios: Mapping[str, float]

    def as_dict(self) -> dict[str, Any]:
        return {
            "task": self.task.key,
            "items_a_call": self.task.items,
            "unit": self.task.unit,
            "calls_in_flight": self.task.in_flight,
            "ratios": dict(self.ratios),
            "ways": {name: summary.as_dict() for name, summary in self.summaries.items()},
        }


@dataclass(frozen=True, slots=True)
class Plan:
    """rounds: of so many seconds each, by turns between the ways."""

    rounds: int
    seconds: float


def record(tasks: Sequence[Task], triton_address: str, repository: Path, folder: Path) -> list[list[Wave]]:
    """Return what a gateway asks Triton for the first call of each task; nothing for a call that fails.

    Raises CommandError if the gateway does not start.
    """
    environment = dict(servers.NO_CACHES)
    if _SHARED_MEMORY in Settings.model_fields:
        # Tensors that lie elsewhere are not in the requests.
        environment[f"VISIONGATE_{_SHARED_MEMORY.upper()}"] = "off"
    found: list[list[Wave]] = []
    with (
        recording(triton_address) as (address, recorder),
        servers.gateway(address, repository, folder, environment, "recording") as gateway,
        grpc.insecure_channel(gateway.address, [("grpc.max_receive_message_length", -1)]) as channel,
    ):
        for task in tasks:
            recorder.take()
            ((method, content),) = task.calls[0][0]
            try:
                _unary(channel, method)(content, timeout=_CALL_TIMEOUT_S)
            except grpc.RpcError:
                found.append([])
            else:
                found.append(recorder.take())
    return found


def _unary(channel: grpc.Channel, method: str) -> Callable[..., bytes]:
    call: Any = channel.unary_unary(method)
    return call  # type: ignore[no-any-return]


def model_files(waves: Sequence[Wave], repository: Path) -> dict[str, str] | None:
    """Return the ONNX file of each model that is asked; None if one is none, or ONNX Runtime is missing."""
    try:
        import onnxruntime  # noqa: F401, PLC0415
    except ImportError:
        return None
    files = {}
    for name in {read_request(content).model for wave in waves for _, content in wave}:
        versions = [path for path in (repository / name).glob("*/model.onnx") if path.parent.name.isdigit()]
        if not versions:
            return None
        files[name] = str(max(versions, key=lambda path: int(path.parent.name)))
    return files


def measure(
    tasks: Sequence[Task],
    gateway: Target,
    triton: Target | None,
    repository: Path | None,
    plan: Plan,
    folder: Path,
    tell: Callable[[str], None],
) -> list[Measured]:
    """Measure the tasks. One that the server does not answer is left out, and told about.

    Triton alone, and ONNX Runtime alone, are measured where Triton and the repository are known.
    """
    recorded: list[list[Wave]] = [[] for _ in tasks]
    if triton is not None and repository is not None:
        recorded = record(tasks, triton.address, repository, folder)
    found = []
    with GeneratorProcess() as generator:
        for index, (task, waves) in enumerate(zip(tasks, recorded, strict=True)):
            tell(f"{task.title}, {task.items} a call …")
            loads = {GATEWAY: Load("grpc", gateway.address, task.items, task.calls)}
            if triton is not None and waves:
                loads[TRITON] = Load("grpc", triton.address, task.items, [waves])
                if repository is not None and (files := model_files(waves, repository)):
                    cores = len(os.sched_getaffinity(0))
                    threads = {"models": files, "threads": cores, "intra_op_threads": 1}
                    loads[MODELS] = Load("onnx", "", task.items, [waves], threads)
            paths = {name: load.write(folder, f"{index}-{len(name)}") for name, load in loads.items()}
            processes = {GATEWAY: gateway.processes, TRITON: triton.processes if triton else {}, MODELS: {}}
            try:
                found.append(_measure(task, paths, processes, generator, plan, tell))
            except GeneratorError as error:
                tell(f"{task.title} is left out: {error}")
    return found


def _measure(
    task: Task,
    paths: Mapping[str, Path],
    processes: Mapping[str, Mapping[str, Iterable[int]]],
    generator: GeneratorProcess,
    plan: Plan,
    tell: Callable[[str], None],
) -> Measured:
    generator.once(paths[GATEWAY])
    ways = dict(paths)
    for name in paths:
        with contextlib.suppress(GeneratorError):
            generator.once(paths[name])
            generator.round(paths[name], task.in_flight, min(_WARM_UP_S, plan.seconds))
            continue
        # Only the gateway must answer.
        tell(f"{task.title}: {name} cannot be measured")
        del ways[name]
    rounds: dict[str, list[Round]] = {name: [] for name in ways}
    cpu_s: dict[str, list[dict[str, float]]] = {name: [] for name in ways}
    splits = {name: Split(processes[name]) for name in ways}
    for _ in range(plan.rounds):
        for name, path in ways.items():
            splits[name].look()
            rounds[name].append(generator.round(path, task.in_flight, plan.seconds))
            cpu_s[name].append(splits[name].look())
    summaries = {name: Summary.of(rounds[name], cpu_s[name]) for name in ways}
    ratios = {name: ratio(rounds[GATEWAY], rounds[name]) for name in ways if name != GATEWAY}
    return Measured(task, summaries, ratios)


def ratio(rounds: Sequence[Round], others: Sequence[Round]) -> float:
    """Return the median of the rates' ratios, turn by turn; NaN if the others have none."""
    known = [
        one.items_a_second / other.items_a_second
        for one, other in zip(rounds, others, strict=True)
        if other.items_a_second
    ]
    return statistics.median(known) if known else float("nan")
