"""Runs the plan within a time limit, in processes that may fail, and notes what was not reached and why."""

import json
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench.gpu import plan, timing
from bench.gpu.plan import Measurement

Tell = Callable[[str], None]
# Of one measurement. A compilation of Grounding DINO's is the longest.
LONGEST_S = 120.0
_LEAST_S = 5.0


class SmokeError(Exception):
    """The host does not run what the models need, so no figure of it would mean anything."""


def run(
    graphs: Path,
    results: Path,
    *,
    device: str,
    models: Sequence[str],
    ways: Sequence[str],
    limit_s: float,
    seconds: float,
    tell: Tell,
) -> None:
    """Measure what the time allows, in the order of the plan, adding to `results`.

    Raises SmokeError before the first measurement if CUDA does not compute there, or computes wrong things.
    """
    end = time.monotonic() + limit_s
    results.parent.mkdir(parents=True, exist_ok=True)
    timing.add(results, kind="host", device=device, **_host(device))
    _smoke(device, results, tell)
    for name in models:
        timing.add(results, kind="facts", model=name, **_facts(graphs, name))
    if device == "cuda":
        _child(["peak"], results, end, 60.0)
    for measurements in plan.passes(models, ways):
        _one_pass(measurements, graphs, results, device, seconds, end, tell)


def _smoke(device: str, results: Path, tell: Tell) -> None:
    """Ask in a process of its own: a library that is missing may end it."""
    start = time.monotonic()
    before = len(timing.read(results))
    ended = _child(["smoke", "--device", device], results, start + 120, 120)
    entries = [entry for entry in timing.read(results)[before:] if entry["kind"] == "smoke"]
    bad = {entry["operator"]: entry["wrong"] for entry in entries if entry["wrong"]}
    if bad:
        raise SmokeError("; ".join(f"{operator}: {wrong}" for operator, wrong in bad.items()))
    if ended:
        raise SmokeError(ended)
    tell(f"smoke test: {len(entries)} operators in {time.monotonic() - start:.0f} s")


def _one_pass(
    measurements: Sequence[Measurement],
    graphs: Path,
    results: Path,
    device: str,
    seconds: float,
    end: float,
    tell: Tell,
) -> None:
    left = list(measurements)
    while left:
        if end - time.monotonic() < _LEAST_S:
            for each in left:
                timing.add(results, kind="skipped", **each.as_dict(), why="the time was over")
            return
        before = len(timing.read(results))
        arguments = ["measure", "--device", device, "--graphs", str(graphs), "--seconds", str(seconds)]
        ended = _child(arguments, results, end, LONGEST_S, json.dumps([each.as_dict() for each in left]))
        entries = timing.read(results)[before:]
        done = {_key(entry) for entry in entries if entry["kind"] in {"graph", "failed"}}
        started = [_key(entry) for entry in entries if entry["kind"] == "started"]
        for each in list(left):
            key = _key(each.as_dict())
            if key in done or (ended and started[-1:] == [key]):
                left.remove(each)
                if key not in done:
                    timing.add(results, kind="failed", **each.as_dict(), why=ended)
        if ended and not started:
            # The process did not get as far as its first measurement, and would not the next time.
            for each in left:
                timing.add(results, kind="failed", **each.as_dict(), why=ended)
            return
        tell(
            f"{plan.WAYS[measurements[0].way].title}: {len(measurements) - len(left)} of {len(measurements)}"
        )


def _key(entry: Any) -> tuple[str, str, int]:
    return entry["way"], entry["model"], entry["batch"]


def _child(arguments: list[str], results: Path, end: float, longest_s: float, text: str = "") -> str:
    """Run a part in a process of its own; return why it ended, or an empty text if it did its work.

    It is ended where nothing is added to the results for so long, or when the time is over.
    """
    log = results.with_suffix(".log")
    with log.open("ab") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "bench.gpu.child", *arguments, "--results", str(results)],
            stdin=subprocess.PIPE,
            stdout=file,
            stderr=file,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            # Compilers of PyTorch's are processes, too: they end with the group.
            start_new_session=True,
        )
        try:
            assert process.stdin
            process.stdin.write(text.encode())
            process.stdin.close()
            size, since = _size(results), time.monotonic()
            while process.poll() is None:
                time.sleep(0.05)
                now = time.monotonic()
                if _size(results) != size:
                    size, since = _size(results), now
                if now > end:
                    return "the time was over"
                if now - since > longest_s:
                    return f"took longer than {longest_s:.0f} s"
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if process.returncode == 0:
        return ""
    last = log.read_text(errors="replace").strip().splitlines()[-1:]
    return f"the process ended with {process.returncode}: {' '.join(last)[:300]}"


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _host(device: str) -> dict[str, Any]:
    from importlib.metadata import PackageNotFoundError, version

    versions = {}
    for name in ("onnxruntime-gpu", "onnxruntime", "torch", "transformers", "torchvision", "numpy"):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    card = platform.processor() or platform.machine()
    if device == "cuda":
        query = [
            "nvidia-smi",
            "--query-gpu=name,driver_version,memory.total,clocks.sm",
            "--format=csv,noheader",
        ]
        try:
            card = subprocess.run(
                query, check=False, capture_output=True, text=True, timeout=20
            ).stdout.strip()
        except OSError as error:
            card = f"nvidia-smi: {error}"
    return {"card": card, "cores": os.cpu_count(), "python": platform.python_version(), "versions": versions}


def _facts(graphs: Path, model: str) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads((graphs / model / "facts.json").read_text())
    return {name: facts[name] for name in ("size", "macs", "variant")}
