"""Incidents as operators meet them: is the cause in the log and in the metrics, does the alert fire and end?

    make incidents

Two real Tritons, a gateway of two processes with TLS and API keys, and callers who do nothing wrong and must
lose nothing. One after the other: a Triton dies, a Triton loses a model, one key wants more than its share, a
client sends broken images, another a wrong key, the certificate is about to expire, the temporary folder is
full. The metrics are read each second, and Prometheus' own promtool says which alerts of gateway/README.md
fire for them, as if 15 seconds lay between two scrapes. Exits with 1 where something is missed.
"""

import argparse
import asyncio
import contextlib
import datetime
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import trustme
from tritonclient.grpc.aio import InferenceServerClient

import alerts
from export.demo.serving import REPOSITORY
from gateway.api_keys import ApiKey, write_keys
from gateway.embedded import EmbeddedTriton
from soak.goals import Goals, finish
from soak.poison import free_ports
from soak.service import COMMAND
from visiongate import AsyncClient, VisiongateError

MODELS = ("face_detection", "gaze", "clip_image", "clip_text")
CALLERS = ("steady", "greedy", "broken")
GREEDY_CALLS, MAX_CALLS = 64, 16
WARM_UP_S, CALM_S = 5.0, 25.0
"""Between two incidents: alerts look at five minutes, which are 20 scrapes."""
FULL_BYTES = 1 << 20
BOX = [(10, 10, 110, 110)]

Line = Mapping[str, Any]


@dataclass
class Stack:
    """What runs: the Tritons, and the gateway with its log, its metrics and its files."""

    tritons: list[EmbeddedTriton]
    folder: Path
    ca: trustme.CA
    keys: dict[str, str]
    address: str
    metrics_url: str
    scrapes: list[dict[str, float] | None] = field(default_factory=list)
    times: list[float] = field(default_factory=list)

    def client(self, caller: str = "", key: str | None = None, **options: Any) -> AsyncClient:
        return AsyncClient(
            self.address,
            api_key=self.keys[caller] if caller else key,
            root_certificates=self.folder / "ca.pem",
            **options,
        )

    def log(self) -> list[Line]:
        """The lines so far."""
        return [json.loads(line) for line in (self.folder / "log").read_text().splitlines()]

    def put_certificate(self, days: float) -> None:
        """Renew the certificate, as cert-manager would: the file is replaced."""
        end = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=days)
        issued = self.ca.issue_cert("127.0.0.1", not_after=end)
        for name, data in (
            ("tls.key", issued.private_key_pem.bytes()),
            ("tls.crt", issued.cert_chain_pems[0].bytes()),
        ):
            new = self.folder / f"{name}.new"
            new.write_bytes(data)
            new.rename(self.folder / name)

    async def scrape(self) -> None:
        """Read the metrics each second, until cancelled."""

        def read() -> dict[str, float] | None:
            try:
                with urllib.request.urlopen(self.metrics_url, timeout=1) as answer:
                    return alerts.samples(answer.read().decode())
            except OSError:
                return None

        while True:
            start = time.monotonic()
            self.scrapes.append(await asyncio.to_thread(read))
            self.times.append(time.time())
            await asyncio.sleep(max(0.0, 1 - (time.monotonic() - start)))


@dataclass(frozen=True)
class Incident:
    """One that begins and ends in `happen`.

    alert: what must fire meanwhile and end later; "" if nothing is wrong. in_log, in_metrics: what an
    operator finds. seconds: until the alert's `for` is over.
    """

    name: str
    happen: Callable[[Stack, float], Awaitable[None]]
    alert: str
    in_log: Callable[[Line], bool] | None
    in_metrics: Callable[[Mapping[str, float]], bool]
    seconds: float


async def a_triton_dies(stack: Stack, seconds: float) -> None:
    os.kill(stack.tritons[0].pid, signal.SIGKILL)
    await asyncio.sleep(seconds)
    await asyncio.to_thread(stack.tritons[0].stop)
    await asyncio.to_thread(stack.tritons[0].start)


async def a_triton_loses_a_model(stack: Stack, seconds: float) -> None:
    control = InferenceServerClient(stack.tritons[1].grpc_address)
    await control.unload_model("gaze")
    await asyncio.sleep(seconds)
    await control.load_model("gaze")
    await control.close()


async def one_key_wants_all(stack: Stack, seconds: float) -> None:
    async with stack.client("greedy", wait=False, timeout=60) as client:
        await _for_a_while(
            seconds, GREEDY_CALLS, lambda number: client.embed_texts([f"greedy {number}"] * 64)
        )


async def broken_images_come(stack: Stack, seconds: float) -> None:
    async with stack.client("broken", wait=False) as client:
        await _for_a_while(seconds, 4, lambda _: client.embed_images([b"no image"]), pause_s=0.05)


async def a_wrong_key_is_tried(stack: Stack, seconds: float) -> None:
    async with stack.client(key="vg_wrong", wait=False) as client:
        await _for_a_while(seconds, 4, lambda _: client.embed_texts(["a"]), pause_s=0.05)


async def the_certificate_expires_soon(stack: Stack, seconds: float) -> None:
    for days in (3.0, 90.0):
        stack.put_certificate(days)
        async with stack.client("steady") as client:  # gRPC reads the files at the next handshake
            await client.embed_texts(["a"])
        if days < 90:
            await asyncio.sleep(seconds)


async def the_temporary_folder_is_full(stack: Stack, seconds: float) -> None:
    fillers = stack.folder / "tmp" / "filler"
    with contextlib.suppress(OSError), fillers.open("wb") as file:
        file.write(bytes(2 * FULL_BYTES))
        file.flush()
    await asyncio.sleep(seconds)
    fillers.unlink()


async def _for_a_while(
    seconds: float, callers: int, call: Callable[[int], Awaitable[object]], pause_s: float = 0.0
) -> None:
    end = time.monotonic() + seconds

    async def work(number: int) -> None:
        while time.monotonic() < end:
            number += 1
            with contextlib.suppress(VisiongateError):
                await call(number)
            await asyncio.sleep(pause_s)

    await asyncio.gather(*(work(1_000_000 * number) for number in range(callers)))


def incidents(stack: Stack) -> list[Incident]:
    first, second = (triton.grpc_address for triton in stack.tritons)

    def counted(series: str) -> Callable[[Mapping[str, float]], bool]:
        return lambda scrape: scrape.get(series, 0) > 0

    def is_zero(series: str) -> Callable[[Mapping[str, float]], bool]:
        return lambda scrape: scrape.get(series) == 0

    return [
        Incident(
            "one of two Tritons dies",
            a_triton_dies,
            "VisiongateTritonDown",
            lambda line: line["message"].startswith(f"Triton {first} is lost: "),
            is_zero(f'visiongate_triton_up{{server="{first}"}}'),
            20,
        ),
        Incident(
            "one of two Tritons lacks a model",
            a_triton_loses_a_model,
            "VisiongateTritonLacksModel",
            lambda line: line["message"] == f"Triton {second} lacks model gaze: calls go to others",
            is_zero(f'visiongate_triton_model_ready{{model="gaze",server="{second}"}}'),
            35,
        ),
        Incident(
            "one key wants all",
            one_key_wants_all,
            "VisiongateCallerOverShare",
            lambda line: line.get("caller") == "greedy" and line.get("limit") == "caller",
            counted('visiongate_refusals_total{reason="caller"}'),
            35,
        ),
        Incident(
            "a client sends broken images",
            broken_images_come,
            "VisiongateBadRequests",
            lambda line: line.get("caller") == "broken" and line.get("field", "").startswith("image"),
            counted('visiongate_caller_calls_total{caller="broken",code="INVALID_ARGUMENT"}'),
            60,
        ),
        Incident(
            "a wrong key is tried",
            a_wrong_key_is_tried,
            "VisiongateKeysTried",
            lambda line: line.get("reason") == "KEY_UNKNOWN" and line.get("peer") == "127.0.0.1",
            counted('visiongate_refusals_total{reason="key_unknown"}'),
            35,
        ),
        Incident(
            "the certificate expires soon",
            the_certificate_expires_soon,
            "VisiongateCertificateExpires",
            lambda line: line["message"].startswith("the TLS files have changed"),
            lambda scrape: any(
                value - time.time() < 4 * 86400
                for series, value in scrape.items()
                if series.startswith("visiongate_certificate_expiry_seconds")
            ),
            55,
        ),
        Incident(
            "the temporary folder is full",
            the_temporary_folder_is_full,
            "",
            None,
            counted("visiongate_workers"),
            10,
        ),
    ]


async def steady(stack: Stack, codes: Counter[str], is_over: asyncio.Event) -> None:
    """Call all the time, as a caller who does nothing wrong."""

    async def work(number: int) -> None:
        async with stack.client("steady", timeout=30, wait=False) as client:
            while not is_over.is_set():
                number += 1
                image = np.random.default_rng(number).integers(0, 256, (120, 160, 3), np.uint8)
                try:
                    await client.estimate_gaze(image, boxes=BOX)
                    await client.embed_texts([f"steady {number}"])
                    codes["OK"] += 2
                except VisiongateError as error:
                    codes[f"{error.code.name} {error.reason} {error.message}"] += 1
                await asyncio.sleep(0.05)

    await asyncio.gather(work(0), work(1_000_000))


@contextlib.contextmanager
def small_folder(path: Path) -> Iterator[None]:
    """A temporary folder that is soon full, where this process may mount one."""
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={FULL_BYTES}", "tmpfs", str(path)]
    is_mounted = not subprocess.run(mount, capture_output=True, check=False).returncode
    if not is_mounted:
        print("no file system can be mounted here: the temporary folder will not be full")
    try:
        yield
    finally:
        if is_mounted:
            subprocess.run(["umount", "-l", str(path)], check=True)


@contextlib.asynccontextmanager
async def running() -> AsyncIterator[Stack]:
    """The stack, from its start to its end."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for model in MODELS:
            shutil.copytree(REPOSITORY / model, folder / "models" / model)
        grpc_ports = free_ports(4)
        loaded = [f"--load-model={model}" for model in MODELS]
        tritons = [
            EmbeddedTriton(
                folder / "models", grpc_port=port, model_control="explicit", extra_arguments=loaded
            )
            for port in grpc_ports[:2]
        ]
        for triton in tritons:
            stack.enter_context(triton)
        stack.enter_context(small_folder(folder / "tmp"))
        ca = trustme.CA()
        (folder / "ca.pem").write_bytes(ca.cert_pem.bytes())
        made = [ApiKey.generate(name) for name in CALLERS]
        write_keys(folder / "keys.toml", [key for key, _ in made])
        port, metrics_port = grpc_ports[2:]
        service = Stack(
            tritons,
            folder,
            ca,
            {key.name: text for key, text in made},
            f"127.0.0.1:{port}",
            f"http://127.0.0.1:{metrics_port}/metrics",
        )
        service.put_certificate(90)
        arguments = {
            "--triton": ",".join(triton.grpc_address for triton in tritons),
            "--repository": folder / "models",
            "--port": port,
            "--metrics-port": metrics_port,
            "--processes": 2,
            "--api-keys": folder / "keys.toml",
            "--tls-certificate": folder / "tls.crt",
            "--tls-key": folder / "tls.key",
            "--max-concurrent-calls": MAX_CALLS,
            "--log-format": "json",
        }
        log = stack.enter_context((folder / "log").open("w"))
        process = subprocess.Popen(  # noqa: ASYNC220
            [COMMAND, "serve", *(str(word) for pair in arguments.items() for word in pair)],
            stdout=log,
            stderr=log,
            env={**os.environ, "TMPDIR": str(folder / "tmp")},
        )
        stack.callback(process.wait, 60)
        stack.callback(process.terminate)
        while not any("visiongate answers at" in line["message"] for line in service.log()):
            if process.poll() is not None:
                raise RuntimeError((folder / "log").read_text())
            await asyncio.sleep(0.2)
        yield service


def prepared(stack: Stack) -> list[dict[str, float] | None]:
    """Return the scrapes for `alerts.replay`, to which the first is in 1970."""
    return [
        scrape
        and {
            series: value - now + alerts.INTERVAL_S * number
            if series.startswith("visiongate_certificate_expiry_seconds")
            else value
            for series, value in scrape.items()
        }
        for number, (scrape, now) in enumerate(zip(stack.scrapes, stack.times, strict=False))
    ]


async def watch(only: str, record: Path | None) -> Goals:
    goals: dict[str, bool] = {}
    codes: Counter[str] = Counter()
    async with running() as stack:
        scraping = asyncio.create_task(stack.scrape())
        is_over = asyncio.Event()
        calling = asyncio.create_task(steady(stack, codes, is_over))
        await asyncio.sleep(WARM_UP_S)
        chosen = [incident for incident in incidents(stack) if only in incident.name]
        periods = []
        for incident in chosen:
            start, before = len(stack.scrapes), len(stack.log())
            await incident.happen(stack, incident.seconds)
            seen = [scrape for scrape in stack.scrapes[start:] if scrape]
            lines = stack.log()[before:]
            end = len(stack.scrapes)
            await asyncio.sleep(CALM_S)
            periods.append((start, end))
            if incident.in_log is not None:
                found = next(filter(incident.in_log, lines), None)
                print(f"{incident.name}: log: {found}", flush=True)
                goals[f"{incident.name}: its cause is in the log"] = found is not None
            goals[f"{incident.name}: its cause is in the metrics"] = any(map(incident.in_metrics, seen))
        is_over.set()
        await calling
        scraping.cancel()
        scrapes = prepared(stack)
        fired = alerts.replay(scrapes)
        if record:
            periods_by_alert = {
                incident.alert: period
                for incident, period in zip(chosen, periods, strict=True)
                if incident.alert
            }
            alerts.Recording(scrapes, periods_by_alert).write(record)
        for name, numbers in sorted(fired.items()):
            print(f"{name}: from scrape {numbers[0]} to {numbers[-1]}", flush=True)
        for incident, (start, end) in zip(chosen, periods, strict=True):
            if incident.alert:
                times = fired.get(incident.alert, [])
                print(
                    f"{incident.name}: scrapes {start} to {end}, {incident.alert} {times[:1]} to {times[-1:]}"
                )
                is_there = any(start < number <= end + 2 for number in times)
                goals[f"{incident.name}: {incident.alert} fires"] = is_there
                goals[f"{incident.name}: {incident.alert} ends"] = (
                    is_there and times[-1] < len(stack.scrapes) - 1
                )
        wrong = fired.keys() - {incident.alert for incident in chosen}
        goals[f"no other alert fires: {', '.join(sorted(wrong))}"] = not wrong
        print(f"callers who do nothing wrong: {dict(codes)}; {len(stack.log())} lines of log")
        goals["callers who do nothing wrong lose nothing"] = set(codes) == {"OK"}
    return goals


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--only", default="", help="incidents whose name has this in it")
    parser.add_argument(
        "--record", type=Path, help="write what was scraped to a file, for tests/test_alerts.py"
    )
    arguments = parser.parse_args()
    if alerts.PROMTOOL is None:
        raise SystemExit("promtool is missing: install Debian's package prometheus")
    finish(asyncio.run(watch(arguments.only, arguments.record)))


if __name__ == "__main__":
    main()
