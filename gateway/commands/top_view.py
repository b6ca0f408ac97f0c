"""What `visiongate top` shows, as texts in rows: from two scrapes of a gateway's metrics."""

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from gateway.commands.samples import Change, Samples

NOTHING = "-"
_OK = "OK"


@dataclass(frozen=True, slots=True)
class Section:
    """A table: the first column names things, the others are about them."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


def sections(change: Change) -> list[Section]:
    """Return the tables, without those of metrics that the server does not have."""
    makers = (_whole, _methods, _refusals, _servers, _models, _caches)
    return [section for section in (make(change) for make in makers) if section.rows]


def _whole(change: Change) -> Section:
    now = change.after
    version = ", ".join(labels.get("version", "") for labels in now.labels("visiongate_build_info"))
    calls = sum(change.rates("visiongate_calls_total").values())
    workers = _of(now, "visiongate_workers", "visiongate_workers_wanted")
    rows = [
        ("version", version),
        *_state(now),
        ("calls per second", _rate(calls)),
        ("calls in flight", _of(now, "visiongate_calls_in_flight", "visiongate_max_calls_in_flight")),
        ("bytes in flight", _of(now, "visiongate_bytes_in_flight", "visiongate_max_bytes_in_flight", _bytes)),
        ("connections", _count(now.value("visiongate_connections"))),
        ("workers", workers),
        ("restarts of workers", _count(now.value("visiongate_worker_restarts_total"))),
    ]
    return Section(("gateway", "now"), [row for row in rows if row[1]])


def _state(now: Samples) -> list[tuple[str, str]]:
    """Return whether the server as a whole is ready, and which services are and are not."""
    ready = {
        _short(name): value == 1 for (name,), value in now.by("visiongate_ready", "grpc_service").items()
    }
    whole = ready.pop("", None)
    return [
        ("state", "" if whole is None else "ready" if whole else "not ready"),
        ("services ready", ", ".join(sorted(name for name, is_so in ready.items() if is_so))),
        ("services not ready", ", ".join(sorted(name for name, is_so in ready.items() if not is_so))),
    ]


def _methods(change: Change) -> Section:
    growth = change.growth("visiongate_calls_total", "method", "code")
    return Section(
        ("method", "calls/s", "p50", "p99", "failed"),
        [
            (
                _short(method),
                _rate(sum(codes.values()) / change.seconds),
                *_p50_p99(change, "visiongate_call_seconds", method=method),
                _failed(codes),
            )
            for method, codes in _by_first(growth).items()
        ],
    )


def _refusals(change: Change) -> Section:
    rates = change.rates("visiongate_refusals_total", "reason")
    return Section(
        ("refused for", "calls/s"), [(reason, _rate(rate)) for (reason,), rate in sorted(rates.items())]
    )


def _servers(change: Change) -> Section:
    up = change.after.by("visiongate_triton_up", "server")
    codes = _by_first(change.growth("visiongate_triton_requests_total", "server", "code"))
    states = {1.0: "up", 0.0: "down"}
    return Section(
        ("Triton", "state", "requests/s", "p50", "p99", "failed"),
        [
            (
                server,
                states.get(up.get((server,), math.nan), NOTHING),
                _rate(sum(codes.get(server, {}).values()) / change.seconds),
                *_p50_p99(change, "visiongate_triton_seconds", server=server),
                _failed(codes.get(server, {})),
            )
            for server in sorted({server for (server,) in up} | codes.keys())
        ],
    )


def _models(change: Change) -> Section:
    codes = _by_first(change.growth("visiongate_triton_requests_total", "model", "code"))
    again = change.rates("visiongate_triton_retries_total", "model")
    names = {
        labels.get("model", ""): " ".join(
            text for text in (labels.get("family", ""), labels.get("variant", "")) if text
        )
        for labels in change.after.labels("visiongate_model_info")
    }
    return Section(
        ("model", "serves", "requests/s", "p50", "p99", "failed", "again/s"),
        [
            (
                model,
                names.get(model, "") or NOTHING,
                _rate(sum(codes.get(model, {}).values()) / change.seconds),
                *_p50_p99(change, "visiongate_triton_seconds", model=model),
                _failed(codes.get(model, {})),
                _rate(again.get((model,), 0.0)),
            )
            for model in sorted(names.keys() | codes.keys())
        ],
    )


def _caches(change: Change) -> Section:
    lookups = _by_first(change.growth("visiongate_cache_lookups_total", "cache", "result"))
    held = change.after.by("visiongate_cache_bytes", "cache")
    rows = []
    for cache in sorted(lookups.keys() | {cache for (cache,) in held}):
        results = lookups.get(cache, {})
        asked = sum(results.values())
        rows.append(
            (
                cache,
                _rate(asked / change.seconds),
                _share(asked - results.get("miss", 0.0), asked),
                _bytes(held.get((cache,), 0.0)),
            )
        )
    return Section(("cache", "lookups/s", "hits", "holds"), rows)


def _by_first(sums: Mapping[tuple[str, ...], float]) -> dict[str, dict[str, float]]:
    """Return sums by two labels as those by the second within those by the first, sorted."""
    nested: dict[str, dict[str, float]] = defaultdict(dict)
    for (first, second), value in sorted(sums.items()):
        nested[first][second] = value
    return dict(nested)


def _failed(codes: Mapping[str, float]) -> str:
    """Return the share of each status but OK, the largest first."""
    total = sum(codes.values())
    failures = sorted(((count, code) for code, count in codes.items() if code != _OK and count), reverse=True)
    return ", ".join(f"{_share(count, total)} {code}" for count, code in failures) or NOTHING


def _p50_p99(change: Change, name: str, **labels: str) -> tuple[str, str]:
    return _seconds(change.quantile(name, 0.5, **labels)), _seconds(change.quantile(name, 0.99, **labels))


def _of(now: Samples, name: str, limit_name: str, shown: Callable[[float], str] | None = None) -> str:
    """Return a value and its limit; empty if the server does not say the value."""
    shown = shown or _count
    value, limit = now.value(name), now.value(limit_name)
    if value is None:
        return ""
    return shown(value) if limit is None else f"{shown(value)} of {shown(limit)}"


def _short(name: str) -> str:
    """Return `Service/Method` or `Service`, without the package."""
    return name.lstrip("/").rpartition(".")[2]


def _count(value: float | None) -> str:
    return "" if value is None else f"{value:.0f}"


def _rate(value: float) -> str:
    return f"{value:.1f}" if value else "0"


def _share(part: float, total: float) -> str:
    if not total:
        return NOTHING
    percent = 100 * part / total
    return f"{percent:.0f} %" if percent >= 1 or not part else "<1 %"


def _seconds(value: float) -> str:
    if math.isnan(value):
        return NOTHING
    if math.isinf(value):
        return "beyond"
    return f"{1000 * value:.0f} ms" if value < 1 else f"{value:.1f} s"


def _bytes(value: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if value < 1024:
            return f"{value:.0f} {unit}"
        value /= 1024
    return f"{value:.1f} GiB"
