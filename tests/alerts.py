"""The alerts of the chart, and which of them fire for what was seen at /metrics.

scrapes = []
for _ in range(120):
    scrapes.append(samples(page))  # {'visiongate_ready{grpc_service=""}': 1.0, ...}; or None: no answer
    time.sleep(1)
replay(scrapes)  # {"VisiongateNotReady": [31, 32, 33]}: it fires at these scrapes
"""

import gzip
import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

FILE = Path(__file__).parents[1] / "deploy" / "helm" / "visiongate" / "files" / "alerts.yaml"
PROMTOOL = shutil.which("promtool")
"""Debian's package prometheus has it. None where it is missing: `replay` then cannot work."""

INTERVAL_S = 15
"""Seconds between two scrapes, as Prometheus is told."""
JOBS = {"nv_": "visiongate-triton", "envoy_": "visiongate-envoy", "DCGM_": "dcgm-exporter", "": "visiongate"}
"""The job of a series, by how its name begins."""
INSTANCE = "replay:9090"


def rules() -> str:
    """Return the alerts: a file of rules for Prometheus, YAML."""
    return FILE.read_text()


def samples(page: str) -> dict[str, float]:
    """Return what a page of /metrics says, by series: the text in front of each value."""
    lines = (line.rpartition(" ") for line in page.splitlines() if line and not line.startswith("#"))
    return {series: float(value) for series, _, value in lines}


def replay(scrapes: Sequence[Mapping[str, float] | None]) -> dict[str, list[int]]:
    """Return the alerts that fire, with the scrapes (0 is the first) after which they do.

    scrapes: what `samples` makes of one page after the other, or None for one that did not come: `up` is
    then 0. They may be taken each second. Prometheus is told that 15 seconds lie between two, so `for: 5m`
    is 20 scrapes. Shares stay what they were, but rates become a 15th. time() is the time since the first
    scrape: values that are times, such as the certificate's, must be given accordingly. Prometheus adds the
    label instance="replay:9090", and job where a series has none: by its name, as JOBS has it.

    `promtool test rules` evaluates the rules. Raises RuntimeError if it does not run.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "rules.yml").write_text(rules())
        queries = [
            {
                "expr": 'count by (alertname) (ALERTS{alertstate="firing"})',
                "eval_time": f"{INTERVAL_S * number}s",
                "exp_samples": [],  # promtool prints what differs
            }
            for number in range(len(scrapes))
        ]
        test = {"interval": f"{INTERVAL_S}s", "input_series": _series(scrapes), "promql_expr_test": queries}
        tests = {"rule_files": ["rules.yml"], "evaluation_interval": f"{INTERVAL_S}s", "tests": [test]}
        # JSON is YAML too.
        (folder / "test.yml").write_text(json.dumps(tests))
        output = promtool("test", "rules", str(folder / "test.yml"))
    if "SUCCESS" in output:
        return {}
    found: dict[str, list[int]] = {}
    for time, got in re.findall(r"time: (\S+),\n\s+exp: nil\n\s+got: (.+)", output):
        for alert in re.findall(r'alertname="(\w+)"', got):
            found.setdefault(alert, []).append(_seconds(time) // INTERVAL_S)
    if not found:
        raise RuntimeError(output)
    return found


@dataclass(frozen=True)
class Recording:
    """What was scraped of a gateway while it had incidents.

    periods: by the alert that belongs to it, the first and the last scrape of an incident.
    """

    scrapes: Sequence[Mapping[str, float] | None]
    periods: Mapping[str, tuple[int, int]]

    def write(self, file: Path) -> None:
        """Write what the rules look at, each series with its values, but for those that are always 0."""
        text = rules()
        names = {series for scrape in self.scrapes for series in scrape or ()}
        series = {
            name: values
            for name in sorted(names)
            if name.partition("{")[0] in text
            and any(values := [scrape and scrape.get(name) for scrape in self.scrapes])
        }
        data = json.dumps({"periods": dict(self.periods), "series": series}, separators=(",", ":"))
        file.write_bytes(gzip.compress(data.encode(), mtime=0))

    @classmethod
    def read(cls, file: Path) -> "Recording":
        data = json.loads(gzip.decompress(file.read_bytes()))
        rows = zip(*data["series"].values(), strict=True)
        scrapes = [dict(zip(data["series"], row, strict=True)) for row in rows]
        return cls(
            [
                {name: value for name, value in scrape.items() if value is not None} or None
                for scrape in scrapes
            ],
            {alert: (first, last) for alert, (first, last) in data["periods"].items()},
        )


def promtool(*arguments: str) -> str:
    """Run promtool, and return what it prints; raise RuntimeError if there is none."""
    if PROMTOOL is None:
        raise RuntimeError("promtool is missing: install Debian's package prometheus")
    result = subprocess.run([PROMTOOL, *arguments], capture_output=True, text=True, check=False)
    return result.stdout + result.stderr


def _series(scrapes: Sequence[Mapping[str, float] | None]) -> list[dict[str, str]]:
    """Return promtool's input: each series with a value for every scrape."""
    told = [{"up": 0.0} if scrape is None else {"up": 1.0, **scrape} for scrape in scrapes]
    return [
        {"series": _labelled(series), "values": " ".join(_values([scrape.get(series) for scrape in told]))}
        for series in dict.fromkeys(series for scrape in told for series in scrape)
    ]


def _labelled(series: str) -> str:
    """Add the labels of the target, as Prometheus does."""
    name, _, labels = series.removesuffix("}").partition("{")
    own = [f'instance="{INSTANCE}"', *([labels] if labels else [])]
    if not labels.startswith("job="):
        own.append(f'job="{next(job for start, job in JOBS.items() if name.startswith(start))}"')
    return f"{name}{{{','.join(own)}}}"


def _values(values: Sequence[float | None]) -> list[str]:
    """Return values in promtool's notation. A series that is missing in a scrape ends there."""
    words = []
    before = None
    for value in values:
        if value is not None:
            words.append(repr(float(value)).replace("inf", "Inf").replace("nan", "NaN"))
        else:
            words.append("_" if before is None else "stale")
        before = value
    return words


def _seconds(duration: str) -> int:
    """Return the seconds of 1h2m15s."""
    units = {"h": 3600, "m": 60, "s": 1}
    return sum(int(number) * units[unit] for number, unit in re.findall(r"(\d+)([hms])", duration))
