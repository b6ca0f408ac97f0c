import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import onnx
import pytest
import tritonclient.grpc

from gateway.embedded import EmbeddedTriton, EmbeddedTritonError, listening, runs
from gateway.ports import ListenError

PLACES = Path("/dev/shm"), Path(tempfile.gettempdir())


def processes(group: int) -> set[int]:
    """Return the processes of a process group, but for those dead and not yet reaped."""
    pids = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            pid, rest = stat.read_text().split(" ", 1)
        except OSError:
            continue
        state, _, process_group = rest.rsplit(")", 1)[1].split()[:3]
        if int(process_group) == group and state != "Z":
            pids.add(int(pid))
    return pids


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])


def left_of(owner: int) -> list[Path]:
    """Return the shared memory and the temporary folders of a process's runs."""
    return [path for place in PLACES for path in place.glob(f"visiongate_{owner}_*")]


def eventually(condition: Callable[[], object], timeout_s: float = 15) -> bool:
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


@pytest.fixture
def repository(tmp_path: Path, add_model: Any, graphs: dict[str, onnx.ModelProto]) -> Path:
    add_model(tmp_path / "repository", "fixed", graphs["fixed_sum"], "instance_group [{ count: 1 }]")
    return tmp_path / "repository"


@pytest.fixture
def killed_later(repository: Path) -> Any:
    """A process that has started a Triton and waits: (its process, the server's process group)."""
    script = (
        "import sys, time\nfrom pathlib import Path\nfrom gateway.embedded import EmbeddedTriton\n"
        "triton = EmbeddedTriton(Path(sys.argv[1]))\ntriton.start()\n"
        "print(triton.pid, flush=True)\ntime.sleep(300)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(repository)], stdout=subprocess.PIPE, text=True
    ) as owner:
        assert owner.stdout is not None
        yield owner, int(owner.stdout.readline())
        owner.kill()


def test_everything_is_served_on_loopback_and_logged(server: Any) -> None:
    assert server.client.is_server_ready()
    for address, path in ((server.triton.http_address, "v2"), (server.triton.metrics_address, "metrics")):
        assert address.startswith("127.0.0.1:")
        with urllib.request.urlopen(f"http://{address}/{path}") as response:
            assert response.status == 200
    assert server.triton.poll() is None
    # GPUs are for those who ask for them.
    assert b"CUDA_VISIBLE_DEVICES=" in Path(f"/proc/{server.triton.pid}/environ").read_bytes().split(b"\0")
    assert any("successfully loaded 'scale'" in line for line in server.log)


@pytest.mark.parametrize(("host", "reached_at"), [("::1", "::1"), ("0.0.0.0", "127.0.0.1")])
def test_it_listens_on_the_host_and_again_after_its_death(tmp_path: Path, host: str, reached_at: str) -> None:
    if host == "::1" and not has_ipv6():
        pytest.skip("this machine has no ::1")
    with EmbeddedTriton(tmp_path, host=host, model_control="explicit") as triton:
        addresses = triton.grpc_address, triton.http_address, triton.metrics_address
        assert triton.is_on_loopback == (host == "::1")
        for life in range(2):
            for address in addresses[1:]:
                # Metrics are there a moment after the rest.
                port = int(address.rpartition(":")[2])
                assert eventually(partial(can_connect, reached_at, port))
            client = tritonclient.grpc.InferenceServerClient(triton.grpc_address)
            assert client.is_server_ready()
            client.close()
            if not life:
                os.kill(triton.pid, signal.SIGKILL)
                triton.wait(10)
                asyncio.run(triton.restart())
                assert (triton.grpc_address, triton.http_address, triton.metrics_address) == addresses


def can_connect(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), 5).close()
    except OSError:
        return False
    return True


def has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


def test_stop_leaves_nothing_and_start_works_again(repository: Path) -> None:
    triton = EmbeddedTriton(repository)
    with triton:
        group = triton.pid
        assert len(processes(group)) == 2
        assert {path.parent for path in left_of(os.getpid())} == set(PLACES)
        # The folder that the Python backend makes, and leaves where it is killed.
        assert triton._run is not None
        assert list(triton._run.folder.glob("python_env*"))
        with pytest.raises(EmbeddedTritonError, match="already started"):
            triton.start()
    assert not processes(group)
    assert not [path for path in left_of(os.getpid()) if triton._run.name in path.name]
    triton.stop()
    with pytest.raises(EmbeddedTritonError, match="not started"):
        triton.poll()

    # In a thread that ends: the server is to live on after it.
    starter = threading.Thread(target=triton.start)
    starter.start()
    starter.join()
    time.sleep(1)
    assert triton.poll() is None

    # And once more, with the server dying by itself.
    group = triton.pid
    os.kill(group, signal.SIGKILL)
    assert triton.wait(10) == 128 + signal.SIGKILL
    assert not processes(group)
    triton.stop()


def test_a_dead_model_process_ends_the_server_and_is_named(repository: Path) -> None:
    """Triton itself would go on to call the model ready, and fail every request."""
    with EmbeddedTriton(repository) as triton:
        (model_process,) = processes(triton.pid) - {triton.pid}
        os.kill(model_process, signal.SIGKILL)
        assert triton.wait(10) == 128 + signal.SIGKILL
        assert f"process {model_process}, which ran a model, died" in triton.explanation()


def test_nothing_outlives_a_killed_parent(killed_later: tuple[subprocess.Popen[str], int]) -> None:
    owner, group = killed_later
    assert len(processes(group)) == 2
    assert left_of(owner.pid)
    owner.kill()
    assert eventually(lambda: not processes(group))
    assert eventually(lambda: not left_of(owner.pid))


def test_nothing_outlives_a_killed_parent_and_supervisor(
    killed_later: tuple[subprocess.Popen[str], int],
) -> None:
    owner, group = killed_later
    runs.sweep()
    assert left_of(owner.pid), "a living run was swept"
    os.kill(parent(group), signal.SIGKILL)
    owner.kill()
    assert eventually(lambda: not processes(group))
    assert left_of(owner.pid)
    runs.sweep()  # what every start does first
    assert not left_of(owner.pid)


def test_a_port_in_use_is_named(repository: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ListenError, match=f"127.0.0.1:{port}: the port is in use.*--http-port"):
            EmbeddedTriton(repository, http_port=port).start()


def test_an_address_of_another_machine_is_named(repository: Path) -> None:
    with pytest.raises(ListenError, match=r"192\.0\.2\.1:0: this machine does not have the address"):
        EmbeddedTriton(repository, host="192.0.2.1").start()


def test_a_port_taken_in_between_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filled = listening._filled
    with socket.create_server(("127.0.0.1", 0)) as taken:
        # The first is the check before the start.
        answers = [(0, 0, 0), (taken.getsockname()[1], 0, 0), (0, 0, 0)]
        monkeypatch.setattr(listening, "_filled", lambda ip, _: filled(ip, answers.pop(0)))
        with EmbeddedTriton(tmp_path, model_control="explicit") as triton:
            assert not triton.grpc_address.endswith(f":{taken.getsockname()[1]}")
    assert not answers


def test_explicit_model_control_starts_without_models(tmp_path: Path) -> None:
    with EmbeddedTriton(tmp_path, model_control="explicit") as triton:
        assert triton.poll() is None


WARMUP = """
    max_batch_size: 4
    input [{ name: 'index' data_type: TYPE_INT64 dims: [ 1 ] }]
    output [{ name: 'row' data_type: TYPE_FP32 dims: [ 1 ] }]
    instance_group [{ count: 1 }]
    optimization { execution_accelerators { gpu_execution_accelerator: [{ name: 'tensorrt' }] } }
    model_warmup [{
      name: 'usual' batch_size: 2
      inputs { key: 'index' value { data_type: TYPE_INT64 dims: [ 1 ] input_data_file: 'index' } }
    }]
"""


def test_it_is_ready_once_the_models_are_warm(
    tmp_path: Path, add_model: Any, graphs: dict[str, onnx.ModelProto]
) -> None:
    """On the CPU accelerators of GPUs are ignored, as by the native backend."""
    lookup = add_model(tmp_path, "lookup", graphs["table_lookup"], WARMUP).parents[1]
    (lookup / "configs").mkdir()
    (lookup / "configs" / "other.pbtxt").write_text("backend: 'other'")
    (lookup / "warmup").mkdir()
    index = lookup / "warmup" / "index"
    index.write_bytes(bytes(2 * 8))
    log: list[str] = []
    with EmbeddedTriton(tmp_path, log=log.append, extra_arguments=["--log-verbose=1"]):
        assert sum("instance lookup_0_0 is running warmup sample 'usual'" in line for line in log) == 1

    index.write_bytes(bytes([99]) + bytes(15))  # a row that the table does not have
    with pytest.raises(EmbeddedTritonError) as caught:
        EmbeddedTriton(tmp_path).start()
    assert re.search(r"\nmodel 'lookup' failed to warm up: .* idx=99 must be within", str(caught.value))


def test_arguments_that_triton_refuses(repository: Path) -> None:
    with pytest.raises(EmbeddedTritonError, match="no-such-argument"):
        EmbeddedTriton(repository, extra_arguments=["--no-such-argument=1"]).start()


def test_what_can_be_served_is_served_and_the_rest_named(
    tmp_path: Path, add_model: Any, graphs: dict[str, onnx.ModelProto]
) -> None:
    repository = tmp_path / "repository"
    for name in ("whole", "half", "newer"):
        add_model(repository, name, graphs["fixed_sum"], "instance_group [{ count: 1 }]")
    (repository / "half" / "1" / "model.onnx").unlink()
    (repository / "newer" / "2").mkdir()
    (repository / "whole" / "notes").mkdir()
    for folder in (".git", "empty", "template"):
        (repository / folder).mkdir()
    (repository / "template" / "config.pbtxt").write_text('backend: "onnxruntime"')
    (repository / "README.md").write_text("what is here")
    messages: list[str] = []
    for _ in range(2):  # again, with what the first time left in the cache
        with EmbeddedTriton(repository, progress=messages.append) as triton:
            client = tritonclient.grpc.InferenceServerClient(triton.grpc_address)
            index = {model.name: model.version for model in client.get_model_repository_index().models}
            client.close()
        assert index == {"whole": "1", "newer": "1"}
    assert set(messages) == {
        "not served: empty, template: no version folder; half: version 1 has no model.onnx; "
        "newer: version 2 has no model.onnx"
    }
