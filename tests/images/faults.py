"""What the gateway's container says where something is wrong with what it was given. Run by `make images`."""

import asyncio
import os
import signal
import socket
from collections.abc import Mapping
from pathlib import Path

import pytest

from export.demo import show
from gateway.embedded import EmbeddedTriton
from images.build import GATEWAY
from images.container import Mount, running
from images.front import GRPC, Run, look, wait_for, wait_until_ready
from visiongate import AsyncClient

KEYS = {"VISIONGATE_API_KEYS": "/etc/visiongate/keys/keys.toml"}
PICTURE = show.scene(0).image


def ends_with(run: Run, *mounts: Mount, environment: Mapping[str, str], code: int = 1) -> str:
    """Run a container that must end by itself, and return its log."""
    with run(*mounts, environment=environment) as container:
        assert container.wait() == code
        return container.log()


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    """The folder of the keys' file."""
    tmp_path.chmod(0o755)
    return tmp_path


def test_a_broken_file_of_keys_ends_it(run: Run, keys: Path) -> None:
    (keys / "keys.toml").write_text("not [toml")
    log = ends_with(run, Mount(keys, "/etc/visiongate/keys"), environment=KEYS)
    assert KEYS["VISIONGATE_API_KEYS"] in log
    assert "Traceback" not in log


def test_a_file_of_keys_that_its_user_may_not_read_ends_it(run: Run, keys: Path) -> None:
    (keys / "keys.toml").write_text("")
    (keys / "keys.toml").chmod(0o600)
    log = ends_with(run, Mount(keys, "/etc/visiongate/keys"), environment=KEYS)
    assert KEYS["VISIONGATE_API_KEYS"] in log
    assert "Permission denied" in log
    assert "Traceback" not in log


def test_broken_certificates_end_it(run: Run, keys: Path) -> None:
    for name in ("tls.crt", "tls.key"):
        (keys / name).write_text("no certificate")
    files = {
        "VISIONGATE_TLS_CERTIFICATE": "/etc/visiongate/tls/tls.crt",
        "VISIONGATE_TLS_KEY": "/etc/visiongate/tls/tls.key",
    }
    log = ends_with(run, Mount(keys, "/etc/visiongate/tls"), environment=files)
    assert "/etc/visiongate/tls/tls.crt" in log
    assert "Traceback" not in log


@pytest.mark.parametrize("port", [50051, 8080, 9090])
def test_a_port_that_is_taken_ends_it(run: Run, port: int) -> None:
    with socket.create_server(("0.0.0.0", port)):
        log = ends_with(run, environment={})
    assert f"cannot listen on 0.0.0.0:{port}: the port is in use" in log


def test_a_variable_that_is_no_setting_ends_it(run: Run) -> None:
    log = ends_with(run, environment={"VISIONGATE_MAX_IMAGE": "8"})
    assert "VISIONGATE_MAX_IMAGE is not a setting: did you mean VISIONGATE_MAX_IMAGES?" in log


def test_before_triton_answers_it_is_alive_and_not_ready(run: Run) -> None:
    with run(environment={"VISIONGATE_TRITON": "127.0.0.1:8011"}) as container:
        wait_for(container, lambda: "no Triton answers at 127.0.0.1:8011" in container.log(), "waiting")
        assert look("/livez")[0] == 200
        assert look("/readyz")[0] == 503


def test_a_triton_without_any_model_ends_it(run: Run, models: Path) -> None:
    # As from an empty volume.
    with EmbeddedTriton(models, model_control="explicit", grpc_port=8011):
        log = ends_with(run, environment={"VISIONGATE_TRITON": "127.0.0.1:8011"})
    assert "Triton has loaded none of the models that visiongate serves" in log


def test_with_an_empty_volume_it_says_which_files_it_lacks(tmp_path: Path, triton: EmbeddedTriton) -> None:
    tmp_path.chmod(0o755)
    needs_text = {"VISIONGATE_REQUIRED_SERVICES": "DetectionService"}
    with running(GATEWAY, Mount(tmp_path, "/models"), environment=needs_text) as container:
        missing = "There is no file /models/grounding_dino/tokenizer.json"
        wait_for(container, lambda: missing in container.log(), "missing it")
        status, words = look("/readyz")
        assert status == 503
        assert "DetectionService" in words


async def test_with_a_full_disk_it_serves_and_stops_as_ever(run: Run) -> None:
    # One page, and a file that has it.
    filling = ["sh", "-c", "head -c 100000 /dev/zero > /tmp/full; exec visiongate serve"]
    with run(command=filling, tmp_size="4k") as container:
        await asyncio.to_thread(wait_until_ready, container)
        async with AsyncClient(GRPC) as client:
            assert await client.detect(PICTURE, ["red circle"])
        assert "No space left on device" in container.log()
        container.stop()
        assert await asyncio.to_thread(container.wait) == 0


async def test_a_worker_that_dies_is_replaced_and_buried(run: Run) -> None:
    with run(environment={"VISIONGATE_PROCESSES": "2"}) as container:
        await asyncio.to_thread(wait_until_ready, container)
        before = container.children()
        os.kill(before[0], signal.SIGKILL)
        await asyncio.to_thread(
            wait_for,
            container,
            lambda: len(container.children()) == len(before) and before[0] not in container.children(),
            "replaced",
        )
        container.stop()
        assert await asyncio.to_thread(container.wait) == 0
