"""A real Prometheus for tests, and what is to be asked of it so that no name is wrong in an expression."""

import json
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import promql_parser
import pytest

_START_S = 30.0
_COMPARISONS = {"==", "!=", "<", "<=", ">", ">="}


@dataclass(frozen=True)
class Prometheus:
    """A running Prometheus, at 127.0.0.1."""

    port: int

    def get(self, path: str, **parameters: str) -> Any:
        """Return the data of an answer of its HTTP API."""
        query = urllib.parse.urlencode(
            {name.replace("match", "match[]"): it for name, it in parameters.items()}
        )
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/api/v1/{path}?{query}") as answer:
            return json.load(answer)["data"]

    def query(self, expression: str) -> list[Any]:
        """Return the series of an expression now. Raise ValueError if it is none of PromQL."""
        try:
            found: list[Any] = self.get("query", query=expression)["result"]
        except urllib.error.HTTPError as error:
            with error:
                raise ValueError(f"{expression}: {error.read().decode()}") from None
        return found


@contextmanager
def scraping(
    targets: Mapping[str, Sequence[Mapping[str, Any]]], rules: Mapping[str, Any]
) -> Iterator[Prometheus]:
    """Start a Prometheus that scrapes each second; skip the test where the machine has none.

    targets: by job, what Prometheus calls static_configs, and `metrics_path` beside that where it is another.
    rules: what a file of rules has in it.
    """
    if (program := shutil.which("prometheus")) is None:
        pytest.skip("prometheus is missing (Debian's package prometheus)")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    jobs = [
        {"job_name": f"{job} {number}", "relabel_configs": [{"target_label": "job", "replacement": job}]}
        | {"metrics_path": target.get("metrics_path", "/metrics")}
        | {"static_configs": [{name: it for name, it in target.items() if name != "metrics_path"}]}
        for job, each in targets.items()
        for number, target in enumerate(each)
    ]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # JSON is YAML too.
        (folder / "rules.yml").write_text(json.dumps(rules))
        config = {
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
            "rule_files": ["rules.yml"],
            "scrape_configs": jobs,
        }
        (folder / "prometheus.yml").write_text(json.dumps(config))
        command = [
            program,
            f"--config.file={folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={folder / 'data'}",
        ]
        command += [f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn"]
        with (folder / "log").open("w") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
            try:
                _wait_until_ready(port, process, folder / "log")
                yield Prometheus(port)
            finally:
                process.terminate()


def _wait_until_ready(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + _START_S
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/-/ready"):
                return
        except OSError:
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"prometheus does not start: {log.read_text()}") from None
            time.sleep(0.05)


def parts(expression: str) -> list[str]:
    """Return expressions that each have a series if all names and labels in an expression are right.

    An alert that does not fire has no series. So comparisons become 0 or 1, `unless` becomes `and`,
    absent(…) what should be there, and each side of `or` is a part.
    """
    told = promql_parser.transform(promql_parser.parse(expression), post_visit=_without_condition)
    return [str(part) for part in _sides_of_or(told)]


def _without_condition(node: promql_parser.Expr) -> promql_parser.Expr | None:
    if isinstance(node, promql_parser.Call) and node.func.name == "absent":
        return promql_parser.parse(str(node.args[0]))
    if not isinstance(node, promql_parser.BinaryExpr):
        return None
    operator, matching = str(node.op), "" if node.modifier is None else str(node.modifier)
    if operator in _COMPARISONS and "bool" not in matching:
        operator += " bool"
    elif operator == "unless":
        operator = "and"
    else:
        return None
    return promql_parser.parse(f"({node.lhs}) {operator} {matching} ({node.rhs})")


def _sides_of_or(node: promql_parser.Expr) -> list[promql_parser.Expr]:
    if isinstance(node, promql_parser.BinaryExpr) and str(node.op) == "or":
        return [*_sides_of_or(node.lhs), *_sides_of_or(node.rhs)]
    if isinstance(node, promql_parser.ParenExpr):
        return _sides_of_or(node.expr)
    return [node]
