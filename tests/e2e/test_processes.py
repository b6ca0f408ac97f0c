"""How gateways live and die, as real processes: on one port together, and alone."""

import base64
import contextlib
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families

from gateway.embedded import EmbeddedTriton
from gateway.settings import Settings
from visiongate import Client, ImageHandle, VisiongateError

COMMAND = str(Path(sys.executable).parent / "visiongate")
PHOTO = np.full((64, 64, 3), 200, np.uint8)
# Starting a process takes long where others keep all cores busy.
PATIENCE_S = 200
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
# One that is its own worker goes the same way, in less time.
WORKERS = pytest.mark.parametrize("workers", [pytest.param(1, marks=pytest.mark.long), 2])


def eventually(is_so: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < deadline, f"not in time: {what}"
        time.sleep(0.05)


class Served:
    """A running `visiongate serve`, with metrics."""

    def __init__(self, folder: Path, arguments: list[str]) -> None:
        self._log = folder / "log"
        self._out = folder / "out"
        self.temporary = folder / "temporary"
        self.temporary.mkdir()
        with self._log.open("w") as log, self._out.open("w") as out:
            self.process = subprocess.Popen(
                [COMMAND, "serve", *arguments, "--port", "0", "--metrics-port", "0"],
                stdout=out,
                stderr=log,
                env=os.environ | {"TMPDIR": str(self.temporary)},
            )

    @property
    def log(self) -> str:
        return self._log.read_text()

    def wait_for_log(self, words: str) -> None:
        eventually(lambda: words in self.log or self.process.poll() is not None, words)
        assert words in self.log

    @property
    def address(self) -> str:
        eventually(lambda: "answers at" in self._out.read_text(), self.log)
        found = re.search(r"answers at (\S+)", self._out.read_text())
        assert found
        return found[1]

    @property
    def url(self) -> str:
        """That of the HTTP front."""
        found = re.search(r"answers at \S+ and (\S+)", self._out.read_text())
        assert found
        return found[1]

    def wait_for_workers(self, count: int) -> None:
        eventually(lambda: self.log.count(" answers: process id") == count, f"{count} workers")

    @property
    def workers(self) -> list[int]:
        pid = self.process.pid
        children = Path(f"/proc/{pid}/task").glob("*/children")
        return [int(child) for path in children for child in path.read_text().split()]

    def http(self, path: str) -> tuple[int, str]:
        found = re.search(r"/readyz are at (\S+)", self.log)
        assert found
        try:
            with urllib.request.urlopen(f"http://{found[1]}{path}", timeout=PATIENCE_S) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def metric(self, name: str) -> float:
        """The sum of a metric's samples."""
        families = text_string_to_metric_families(self.http("/metrics")[1])
        samples = [sample for family in families for sample in family.samples]
        return sum(sample.value for sample in samples if sample.name == name)

    def has_connection(self, worker: int) -> bool:
        """Whether one of the workers has a connection of a caller."""
        port = f":{int(self.address.rpartition(':')[2]):04X}"
        own = {os.readlink(path) for path in Path(f"/proc/{worker}/fd").iterdir()}
        # gRPC also has sockets of IPv6 for addresses of IPv4.
        tables = [Path(f"/proc/net/{name}").read_text().splitlines()[1:] for name in ("tcp", "tcp6")]
        connections = [line.split() for table in tables for line in table]
        return any(
            local.endswith(port) and state == "01" and f"socket:[{inode}]" in own
            for _, local, _, state, _, _, _, _, _, inode, *_ in connections
        )

    def health(self) -> int:
        with grpc.insecure_channel(self.address) as channel:
            answer = health_pb2_grpc.HealthStub(channel).Check(  # type: ignore[attr-defined]
                health_pb2.HealthCheckRequest(), wait_for_ready=True, timeout=PATIENCE_S
            )
            return int(answer.status)

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE_S)


@pytest.fixture
def serve(tmp_path: Path, demo_settings: Settings) -> Iterator[Callable[..., Served]]:
    started: list[Served] = []

    def start(*arguments: str) -> Served:
        folder = tmp_path / str(len(started))
        folder.mkdir()
        given = ["--triton", demo_settings.triton, "--repository", str(demo_settings.repository), *arguments]
        started.append(Served(folder, given))
        return started[-1]

    yield start
    for served in started:
        workers = served.workers
        served.process.kill()
        served.process.wait(PATIENCE_S)
        for worker in workers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker, signal.SIGKILL)


@contextlib.contextmanager
def held(triton: EmbeddedTriton) -> Iterator[None]:
    """Inside, Triton does not go on: calls stay in flight."""
    os.kill(triton.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(triton.pid, signal.SIGCONT)


def is_running(pid: int) -> bool:
    try:
        # One that nobody has waited for is dead as well.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def call(address: str) -> None:
    with Client(address, timeout=PATIENCE_S, wait=False) as client:
        assert client.list_models()


def ask_each(served: Served, ask: Callable[[Client], object]) -> int:
    """Ask all workers, and return how many calls that took: the kernel picks the worker of a connection."""
    asked: set[int] = set()
    calls = 0

    def all_have_been() -> bool:
        nonlocal calls
        with Client(served.address, timeout=PATIENCE_S, wait=False) as client:
            ask(client)
            asked.update(filter(served.has_connection, served.workers))
        calls += 1
        return asked >= set(served.workers)

    eventually(all_have_been, "each worker has answered")
    return calls


def refusal(address: str) -> str:
    """The status of a call, empty where it is answered."""
    try:
        call(address)
    except VisiongateError as error:
        return error.code.name
    return ""


def embed(address: str) -> int:
    """A call that needs Triton."""
    with Client(address, timeout=PATIENCE_S) as client:
        return len(client.embed_images([PHOTO]))


def embed_over_http(url: str) -> int:
    """The same over HTTP, on a connection of its own."""
    file = io.BytesIO()
    Image.fromarray(PHOTO).save(file, "PNG")
    body = json.dumps({"images": [{"encoded": base64.b64encode(file.getvalue()).decode()}]}).encode()
    request = urllib.request.Request(
        f"{url}/v1/images:embed", body, {"content-type": "application/json", "x-timeout-s": str(PATIENCE_S)}
    )
    with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
        return len(json.load(answer)["results"])


def test_workers_share_a_port_and_are_replaced(serve: Callable[..., Served]) -> None:
    served = serve("--processes", "2", "--http-port", "0")
    address = served.address
    served.wait_for_workers(2)
    first, second = served.workers
    calls = ask_each(served, Client.list_models)
    # Workers report each second.
    eventually(lambda: served.metric("visiongate_calls_total") == calls, "all are counted")
    assert served.http("/readyz")[0] == 200
    assert served.http("/readyz/TextService") == (200, "visiongate.v1.TextService ready\n")
    assert served.http("/readyz/NoService")[0] == 404

    os.kill(first, signal.SIGKILL)
    served.wait_for_log(f"process id {first} was ended by SIGKILL; a new one starts")
    assert served.metric("visiongate_calls_total") == calls
    for _ in range(5):
        call(address)
        assert embed_over_http(served.url) == 1
        calls += 2
    # Also while the new one starts.
    while served.log.count(" answers: process id") < 3:
        assert served.http("/readyz")[0] == 200
        assert served.metric("visiongate_ready") > 1
    assert len(served.workers) == 2
    assert second in served.workers
    assert first not in served.workers
    calls += ask_each(served, Client.list_models)
    # Those of the dead one are still counted.
    eventually(lambda: served.metric("visiongate_calls_total") == calls, "all are counted")
    assert served.metric("visiongate_worker_restarts_total") == 1
    assert served.stop() == 0
    assert "Traceback" not in served.log


def test_the_parent_says_what_it_knows_of_workers(serve: Callable[..., Served]) -> None:
    served = serve("--processes", "2")
    served.wait_for_workers(2)
    assert (served.metric("visiongate_workers"), served.metric("visiongate_workers_wanted")) == (2, 2)
    pages = [f'process_resident_memory_bytes{{worker="{worker}"}}' for worker in ("parent", "1", "2")]
    text = served.http("/metrics")[1]
    assert [page in text for page in pages] == [True] * 3
    assert served.metric("visiongate_build_info") == 1
    before = set(re.findall(r"visiongate_ready\S+", text))
    assert before
    for worker in served.workers:
        os.kill(worker, signal.SIGKILL)
    eventually(lambda: served.log.count("was ended by SIGKILL") == 2, "both are dead")
    if not served.workers:
        assert served.metric("visiongate_workers") == 0
    # The series stay. The new ones take seconds to start.
    text = served.http("/metrics")[1]
    assert set(re.findall(r"visiongate_ready\S+", text)) == before
    assert served.metric("visiongate_ready") == 0
    assert served.http("/readyz")[0] == 503
    eventually(lambda: served.http("/readyz")[0] == 200, "new ones answer")


@WORKERS
def test_no_temporary_folder_is_needed(serve: Callable[..., Served], workers: int) -> None:
    """None is written to, so a full or a vanished one costs nothing."""
    served = serve("--processes", str(workers))
    address = served.address
    served.wait_for_workers(workers if workers > 1 else 0)
    assert embed(address) == 1
    assert not list(served.temporary.iterdir())
    served.temporary.rmdir()
    assert embed(address) == 1
    assert served.metric("visiongate_ready") > 0
    for worker in served.workers:
        os.kill(worker, signal.SIGKILL)
    if workers > 1:
        served.wait_for_workers(4)
        assert embed(address) == 1
    assert served.stop() == 0


@WORKERS
def test_a_log_on_a_full_disk_costs_no_call(tmp_path: Path, demo_settings: Settings, workers: int) -> None:
    out = tmp_path / "out"
    arguments = [
        "--triton",
        demo_settings.triton,
        "--repository",
        str(demo_settings.repository),
        "--port",
        "0",
    ]
    with out.open("w") as stdout, open("/dev/full", "w") as full:
        process = subprocess.Popen(
            [COMMAND, "serve", *arguments, "--processes", str(workers)], stdout=stdout, stderr=full
        )
    try:
        eventually(lambda: "answers at" in out.read_text(), "it answers")
        address = out.read_text().split()[3]
        assert [embed(address) for _ in range(5)] == [1] * 5
        process.terminate()
        assert process.wait(PATIENCE_S) == 0
    finally:
        process.kill()
        process.wait()


def test_an_image_id_of_one_worker_is_good_at_all(serve: Callable[..., Served]) -> None:
    served = serve("--processes", "2")
    served.wait_for_workers(2)
    ids = set()

    def encode(client: Client) -> None:
        ids.add(client.encode_image(PHOTO).image_id)

    ask_each(served, encode)
    (image_id,) = ids

    def segment(client: Client) -> None:
        assert client.segment(ImageHandle(image_id, 64, 64), boxes=[[5, 5, 40, 40]])

    ask_each(served, segment)
    # One that takes the place of another has the same secret.
    os.kill(served.workers[0], signal.SIGKILL)
    served.wait_for_workers(3)
    ask_each(served, encode)
    assert ids == {image_id}


@WORKERS
def test_calls_in_flight_finish_after_sigterm(
    serve: Callable[..., Served], demo_triton: EmbeddedTriton, workers: int
) -> None:
    served = serve("--processes", str(workers), "--grace-s", "100", "--http-port", "0")
    address = served.address
    url = served.url
    served.wait_for_workers(workers if workers > 1 else 0)
    eventually(lambda: served.health() == SERVING, "ready")
    with ThreadPoolExecutor(4) as pool:
        with held(demo_triton):
            embedding = [pool.submit(embed, address) for _ in range(2)]
            embedding += [pool.submit(embed_over_http, url) for _ in range(2)]
            eventually(lambda: served.metric("visiongate_calls_in_flight") == 4, "calls in flight")
            served.process.send_signal(signal.SIGTERM)
            eventually(lambda: served.log.count("stopping: calls in flight") == workers, "it stops")
            # Not at once: gRPC may still cancel calls that come while it closes.
            eventually(lambda: refusal(address) == "UNAVAILABLE", "no new calls")
            assert served.process.poll() is None
        assert [future.result(PATIENCE_S) for future in embedding] == [1] * 4
    assert served.process.wait(PATIENCE_S) == 0


@WORKERS
def test_a_second_signal_ends_calls_at_once(
    serve: Callable[..., Served], demo_triton: EmbeddedTriton, workers: int
) -> None:
    served = serve("--processes", str(workers), "--grace-s", "100000")
    address = served.address
    served.wait_for_workers(workers if workers > 1 else 0)
    with ThreadPoolExecutor(1) as pool, held(demo_triton):
        embedding = pool.submit(embed, address)
        eventually(lambda: served.metric("visiongate_calls_in_flight") == 1, "a call in flight")
        served.process.send_signal(signal.SIGINT)
        served.wait_for_log("stopping: calls in flight")
        served.process.send_signal(signal.SIGINT)
        assert served.process.wait(PATIENCE_S) == 0
        assert embedding.exception(PATIENCE_S) is not None


def test_drain(serve: Callable[..., Served]) -> None:
    served = serve("--drain-s", "100000")
    address = served.address
    eventually(lambda: served.health() == SERVING, "ready")
    assert served.http("/readyz")[0] == 200
    served.process.send_signal(signal.SIGTERM)
    eventually(lambda: served.health() == NOT_SERVING, "load balancers are told")
    assert served.http("/readyz")[0] == 503
    assert served.http("/readyz/TextService")[0] == 503
    assert served.http("/livez")[0] == 200
    call(address)  # until they have looked away
    served.process.send_signal(signal.SIGTERM)
    assert served.process.wait(PATIENCE_S) == 0


def test_workers_do_not_outlive_their_parent(serve: Callable[..., Served]) -> None:
    served = serve("--processes", "2")
    served.wait_for_log(" answers: process id")
    workers = served.workers
    assert len(workers) == 2
    served.process.kill()
    served.process.wait(PATIENCE_S)
    for worker in workers:
        eventually(lambda worker=worker: not is_running(worker), f"worker {worker} ends")  # type: ignore[misc]


@WORKERS
def test_sigterm_ends_the_wait_for_triton(serve: Callable[..., Served], workers: int) -> None:
    served = serve("--triton", "127.0.0.1:9", "--processes", str(workers))
    eventually(lambda: served.log.count("waiting: no Triton answers at 127.0.0.1:9") == workers, "it says so")
    assert served.stop() == 128 + signal.SIGTERM
    assert "Traceback" not in served.log


@WORKERS
def test_a_required_service_that_there_is_not_is_one_sentence(
    serve: Callable[..., Served], workers: int
) -> None:
    served = serve("--required-services", "TextService,Texts", "--processes", str(workers))
    assert served.process.wait(PATIENCE_S) == 1
    assert re.search(r"error: required_services: there is no service 'Texts'; there are .*GazeS", served.log)
    assert "Traceback" not in served.log


def test_workers_that_cannot_start_are_one_sentence(serve: Callable[..., Served]) -> None:
    served = serve("--triton", "127.0.0.1:9", "--triton-wait-s", "0", "--processes", "2")
    assert served.process.wait(PATIENCE_S) == 1
    assert re.search(r"error: no Triton answers at 127\.0\.0\.1:9: ", served.log)
    assert "Traceback" not in served.log
