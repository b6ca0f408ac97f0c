"""The results of a run as tables, with what is missing and why."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.gpu import plan, timing

Entry = Mapping[str, Any]
OURS, EAGER, PLAIN, COMPILED = "fast-fp16", "torch-fp16", "plain-fp16", "torch-compile"


def report(results: Path) -> str:
    """Return everything that a file of results says, as Markdown."""
    entries = timing.read(results)
    parts = [_head(entries), _graphs(entries), _ways(entries), _served(entries), _missing(entries)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _head(entries: Sequence[Entry]) -> str:
    lines = []
    for host in _of(entries, "host"):
        versions = ", ".join(f"{name} {version}" for name, version in host["versions"].items())
        lines.append(f"{host['card']}; {host['cores']} cores; Python {host['python']}, {versions}.")
    if peak := _peak(entries):
        lines.append(
            "A product of two large matrices reaches "
            + " and ".join(f"{rate:.4g} TFLOP/s in {name.upper()}" for name, rate in peak.items())
            + ": the share of the peak is of that."
        )
    return "\n".join(lines)


def _graphs(entries: Sequence[Entry]) -> str:
    """Return the main table: our graphs at half precision, and how many times as fast they are as others."""
    found = _by_key(entries)
    macs = {entry["model"]: entry["macs"] for entry in _of(entries, "facts")}
    peak = _peak(entries).get("fp16")
    rows = []
    for model, batch in _models_and_batches(found):
        ours = found.get((OURS, model, batch))
        rate = _rate(ours)
        share = 2 * macs.get(model, 0) * rate / (peak * 1e12) if rate and peak else None
        rows.append(
            [
                f"`{model}`",
                str(batch),
                _number(_of_entry(ours, "ms"), 2),
                _number(rate, 1),
                _number(share and 100 * share, 1),
                *(_ratio(rate, _rate(found.get((way, model, batch)))) for way in (EAGER, COMPILED, PLAIN)),
                _ratio(_rate(found.get(("fast-fp16-cuda-graph", model, batch))), rate),
                _number(_of_entry(ours, "difference"), 5),
            ]
        )
    head = [
        "model", "batch", "ms", "items/s", "% of peak", "x PyTorch eager", "x torch.compile",
        "x plain graph", "CUDA graph gains x", "differs from FP32",
    ]  # fmt: skip
    return _table(head, rows)


def _ways(entries: Sequence[Entry]) -> str:
    """Return the milliseconds of every way."""
    found = _by_key(entries)
    rows = [
        [
            f"`{model}`",
            str(batch),
            *(_number((found.get((way, model, batch)) or {}).get("ms"), 2) for way in plan.WAYS),
        ]
        for model, batch in _models_and_batches(found)
    ]
    return _table(["ms of", "batch", *(way.title for way in plan.WAYS.values())], rows)


def _served(entries: Sequence[Entry]) -> str:
    rows = [
        [
            entry["task"],
            str(entry["callers"]),
            _number(entry["items_a_second"], 1),
            _number(entry["p50_ms"], 1),
            _number(entry["p99_ms"], 1),
            _number(_share_of_graph(entry, entries), 2),
            str(entry["errors"]),
        ]
        for entry in _of(entries, "served")
    ]
    return _table(["served", "callers", "items/s", "p50 ms", "p99 ms", "of GPU-only", "errors"], rows)


def _share_of_graph(served: Entry, entries: Sequence[Entry]) -> float | None:
    """Return the served rate over the best of the graphs alone; of a chain, over what they give in turn."""
    seconds = 0.0
    for model in served["models"]:
        rates = [
            rate for entry in _of(entries, "graph")
            if entry["model"] == model and entry["way"] == OURS and (rate := _rate(entry))
        ]  # fmt: skip
        if not rates:
            return None
        seconds += 1 / max(rates)
    return float(served["items_a_second"] * seconds) if seconds else None


def _missing(entries: Sequence[Entry]) -> str:
    """Return a line for each reason, with all that it holds for."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for entry in entries:
        what = plan.WAYS[entry["way"]].title if "way" in entry else entry.get("task", "")
        if why := _why(entry):
            where = f"`{entry['model']}` {entry['batch']}" if "batch" in entry else ""
            reasons.setdefault((what, why), []).append(where)
    lines = [
        f"- {what}{': ' if any(wheres) else ''}{', '.join(dict.fromkeys(filter(None, wheres)))}: {why}"
        for (what, why), wheres in reasons.items()
    ]
    return "Missing or doubtful, with the batch behind the model:\n\n" + "\n".join(lines) if lines else ""


def _why(entry: Entry) -> str:
    if entry["kind"] in {"failed", "skipped"}:
        return str(entry["why"])
    if entry["kind"] == "graph" and entry.get("on_cpu"):
        return f"on the CPU are {', '.join(entry['on_cpu'])}"
    return "answers are not finite" if entry["kind"] == "graph" and not entry["finite"] else ""


def _by_key(entries: Sequence[Entry]) -> dict[tuple[str, str, int], Entry]:
    return {(entry["way"], entry["model"], entry["batch"]): entry for entry in _of(entries, "graph")}


def _models_and_batches(found: Iterable[tuple[str, str, int]]) -> list[tuple[str, int]]:
    order = {model: place for place, model in enumerate(plan.MODELS)}
    return sorted({key[1:] for key in found}, key=lambda key: (order.get(key[0], 99), key[1]))


def _of(entries: Sequence[Entry], kind: str) -> list[Entry]:
    return [entry for entry in entries if entry["kind"] == kind]


def _peak(entries: Sequence[Entry]) -> dict[str, float]:
    found = _of(entries, "peak")
    return dict(found[-1]["tflops"]) if found else {}


def _of_entry(entry: Entry | None, name: str) -> float | None:
    return entry.get(name) if entry else None


def _rate(entry: Entry | None) -> float | None:
    return entry["batch"] / entry["ms"] * 1e3 if entry else None


def _ratio(one: float | None, other: float | None) -> str:
    return f"{one / other:.2f}" if one and other else "-"


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return ""
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *rows])
