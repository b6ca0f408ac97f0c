"""How gateways live and die, as real processes: on one port together, and alone."""

import contextlib
import os
import re
import signal
import stat
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
from prometheus_client.mmap_dict import MmapedDict
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

    def calls_of(self, worker: int) -> float:
        """The calls that one of the workers has ended, as it notes for its parent."""
        total = 0.0
        for file in self.temporary.glob(f"*/counter_{worker}.db"):
            for key, value, *_ in MmapedDict.read_all_values_from_file(str(file)):  # type: ignore[no-untyped-call]
                total += value if '"visiongate_calls_total"' in key else 0
        return total

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


def test_workers_share_a_port_and_are_replaced(serve: Callable[..., Served]) -> None:
    served = serve("--processes", "2")
    address = served.address
    served.wait_for_workers(2)
    first, second = served.workers
    calls = 0

    def all_have_answered() -> bool:
        nonlocal calls
        call(address)
        calls += 1
        return all(served.calls_of(worker) for worker in served.workers)

    eventually(all_have_answered, "each connection is one worker's, whichever the kernel picks")
    assert served.metric("visiongate_calls_total") == calls
    assert served.http("/readyz")[0] == 200
    assert served.http("/readyz/TextService") == (200, "visiongate.v1.TextService ready\n")
    assert served.http("/readyz/NoService")[0] == 404

    os.kill(first, signal.SIGKILL)
    served.wait_for_log(f"process id {first} was ended by SIGKILL; a new one starts")
    for _ in range(5):
        call(address)
        calls += 1
    assert served.http("/readyz")[0] == 200
    served.wait_for_workers(3)
    assert len(served.workers) == 2
    assert second in served.workers
    assert first not in served.workers
    eventually(all_have_answered, "the new one answers too")
    # Those of the dead one are still counted.
    assert served.metric("visiongate_calls_total") == calls
    assert served.stop() == 0
    assert not list(served.temporary.iterdir())
    assert "Traceback" not in served.log


def test_an_image_id_of_one_worker_is_good_at_all(serve: Callable[..., Served]) -> None:
    served = serve("--processes", "2")
    address = served.address
    served.wait_for_workers(2)
    ids = set()

    def encode() -> bool:
        """Until each worker has the image. Each connection is one worker's."""
        with Client(address, timeout=PATIENCE_S) as client:
            ids.add(client.encode_image(PHOTO).image_id)
        return all(served.calls_of(worker) for worker in served.workers)

    eventually(encode, "both workers have the image")
    (image_id,) = ids
    before = {worker: served.calls_of(worker) for worker in served.workers}

    def segment() -> bool:
        with Client(address, timeout=PATIENCE_S) as client:
            assert client.segment(ImageHandle(image_id, 64, 64), boxes=[[5, 5, 40, 40]])
        return all(served.calls_of(worker) > before[worker] for worker in before)

    eventually(segment, "both workers know the id")
    # One that takes the place of another has the same secret, even if the file of it was cleaned away.
    (secret,) = served.temporary.glob("*/image_id_secret")
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    secret.unlink()
    first, second = served.workers
    os.kill(first, signal.SIGKILL)
    served.wait_for_workers(3)
    (new,) = set(served.workers) - {second}

    def encode_anew() -> bool:
        with Client(address, timeout=PATIENCE_S) as client:
            ids.add(client.encode_image(PHOTO).image_id)
        return served.calls_of(new) > 0

    eventually(encode_anew, "the new worker has the image")
    assert ids == {image_id}


@pytest.mark.parametrize("workers", [1, 2])
def test_calls_in_flight_finish_after_sigterm(
    serve: Callable[..., Served], demo_triton: EmbeddedTriton, workers: int
) -> None:
    served = serve("--processes", str(workers), "--grace-s", "100")
    address = served.address
    served.wait_for_workers(workers if workers > 1 else 0)
    eventually(lambda: served.health() == SERVING, "ready")
    with ThreadPoolExecutor(4) as pool:
        with held(demo_triton):
            embedding = [pool.submit(embed, address) for _ in range(4)]
            eventually(lambda: served.metric("visiongate_calls_in_flight") == 4, "calls in flight")
            served.process.send_signal(signal.SIGTERM)
            eventually(lambda: served.log.count("stopping: calls in flight") == workers, "it stops")
            # Not at once: gRPC may still cancel calls that come while it closes.
            eventually(lambda: refusal(address) == "UNAVAILABLE", "no new calls")
            assert served.process.poll() is None
        assert [future.result(PATIENCE_S) for future in embedding] == [1] * 4
    assert served.process.wait(PATIENCE_S) == 0
    assert not list(served.temporary.iterdir())


@pytest.mark.parametrize("workers", [1, 2])
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


@pytest.mark.parametrize("workers", [1, 2])
def test_sigterm_ends_the_wait_for_triton(serve: Callable[..., Served], workers: int) -> None:
    served = serve("--triton", "127.0.0.1:9", "--processes", str(workers))
    eventually(lambda: served.log.count("waiting: no Triton answers at 127.0.0.1:9") == workers, "it says so")
    assert served.stop() == 128 + signal.SIGTERM
    assert "Traceback" not in served.log


@pytest.mark.parametrize("workers", [1, 2])
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
