import asyncio
import logging
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnx
import pytest
import tritonclient.grpc

from gateway.embedded import EmbeddedTriton, EmbeddedTritonError, keep_running, keeper
from gateway.embedded.listening import Listening
from gateway.ports import ListenError


@pytest.fixture
def repository(tmp_path: Path, add_model: Any, graphs: dict[str, onnx.ModelProto]) -> Path:
    add_model(tmp_path / "repository", "fixed", graphs["fixed_sum"], "instance_group [{ count: 1 }]")
    return tmp_path / "repository"


@pytest.fixture
def triton(repository: Path) -> Iterator[EmbeddedTriton]:
    with EmbeddedTriton(repository) as triton:
        yield triton


class Mortal:
    """In place of a Triton: it lives for as long as it is told, each time."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, lives_s: list[float], fault: Exception | None = None
    ) -> None:
        self._lives_s = lives_s
        self._fault = fault
        self._now = 1000.0
        self.pauses_s: list[float] = []
        monkeypatch.setattr(keeper, "time", SimpleNamespace(monotonic=lambda: self._now))
        monkeypatch.setattr(keeper, "asyncio", SimpleNamespace(sleep=self._sleep))

    async def _sleep(self, seconds: float) -> None:
        self.pauses_s.append(seconds)

    async def death(self) -> str:
        if not self._lives_s:
            await asyncio.Event().wait()
        self._now += self._lives_s.pop(0)
        return "Triton was ended by SIGKILL; its last words: none"

    async def restart(self) -> None:
        if self._fault:
            raise self._fault


async def keep(mortal: Mortal) -> None:
    await keep_running(mortal)  # type: ignore[arg-type]


async def test_gives_up_after_quick_deaths_in_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    mortal = Mortal(monkeypatch, [1, 59, 0, 30, 2])
    with pytest.raises(EmbeddedTritonError, match=r"died 5 times in a row\. Triton was ended by SIGKILL"):
        await keep(mortal)
    assert mortal.pauses_s == [0.5, 1, 2, 4]


async def test_a_long_life_begins_the_count_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    mortal = Mortal(monkeypatch, [1, 1, 1, 1, 60, 1, 1, 1, 1, 1])
    with pytest.raises(EmbeddedTritonError, match="5 times in a row"):
        await keep(mortal)
    assert mortal.pauses_s == [0.5, 1, 2, 4, 0.5, 0.5, 1, 2, 4]


@pytest.mark.parametrize(
    "fault",
    [
        EmbeddedTritonError("Triton did not start (exit status 1):\nno\nmodels"),
        ListenError("127.0.0.1", 8001, "--grpc-port", OSError(98, "Address already in use")),
        OSError(12, "Cannot allocate memory"),
    ],
)
async def test_a_start_that_fails_is_a_quick_death(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, fault: Exception
) -> None:
    mortal = Mortal(monkeypatch, [3600], fault)
    with pytest.raises(EmbeddedTritonError, match=re.escape(str(fault))):
        await keep(mortal)
    assert mortal.pauses_s == [0.5, 0.5, 1, 2, 4]
    said = [record.getMessage() for record in caplog.records]
    assert said[0] == "Triton was ended by SIGKILL; its last words: none; it starts anew in 0.5 seconds"
    assert said[-1] == " ".join(str(fault).split()) + "; it starts anew in 4 seconds"


async def test_a_killed_triton_answers_again_at_its_address(
    triton: EmbeddedTriton, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    address, killed = triton.grpc_address, triton.pid
    keeping = asyncio.create_task(keep_running(triton))
    os.kill(killed, signal.SIGKILL)
    async with asyncio.timeout(60):
        while "Triton runs again" not in caplog.messages:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    assert triton.grpc_address == address
    assert triton.pid != killed
    client = tritonclient.grpc.InferenceServerClient(address)
    assert client.is_model_ready("fixed")
    client.close()
    assert re.fullmatch(
        r"Triton was ended by SIGKILL; its last words: \S.*; it starts anew in 0\.5 seconds",
        caplog.messages[0],
    )
    keeping.cancel()
    await asyncio.gather(keeping, return_exceptions=True)
    assert triton.poll() is None, "a Triton that runs is its owner's"


async def test_a_start_that_is_cancelled_leaves_no_process(
    triton: EmbeddedTriton, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.kill(triton.pid, signal.SIGKILL)
    await triton.death()
    monkeypatch.setattr(Listening, "is_ready", lambda *_: False)
    restarting = asyncio.create_task(triton.restart())
    async with asyncio.timeout(60):
        while True:
            await asyncio.sleep(0.05)
            try:
                if triton.poll() is None:
                    break
            except EmbeddedTritonError:  # not started yet
                continue
    group = triton.pid
    restarting.cancel()
    async with asyncio.timeout(60):
        await asyncio.gather(restarting, return_exceptions=True)
    assert restarting.cancelled()
    with pytest.raises(ProcessLookupError):
        os.killpg(group, 0)


async def test_a_broken_repository_ends_it_with_the_reason(
    triton: EmbeddedTriton, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "FIRST_PAUSE_S", 0.01)
    (repository / "fixed" / "1" / "model.onnx").write_bytes(b"nonsense")
    os.kill(triton.pid, signal.SIGKILL)
    with pytest.raises(EmbeddedTritonError, match=r"(?s)5 times in a row.*failed to load 'fixed'.*Protobuf"):
        await keep_running(triton)
