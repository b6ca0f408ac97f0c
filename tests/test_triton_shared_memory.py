"""Tensors in shared memory: where they lie, when their room is free again, and what is left behind."""

import errno
import gc
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from gateway.triton_shared_memory import FOLDER, SharedTensors, is_left

PAGE = 4096


@pytest.fixture
def shared() -> Iterator[SharedTensors]:
    made = SharedTensors(10 * PAGE - 1)
    made.readers.add("triton:8001")
    yield made
    made.close()
    assert is_left(made.name)


def view(pages: int = 1, number: int = 7) -> dict[str, NDArray[Any]]:
    return {
        "embedding": np.full((1, pages, PAGE // 4), number, np.float32),
        "size": np.array([[number, -1]], np.int32),
    }


def test_tensors_lie_in_the_file_as_they_were(shared: SharedTensors) -> None:
    placed = shared.put(view())
    for name, tensor in view().items():
        np.testing.assert_array_equal(placed[name], tensor)
        assert placed[name].dtype == tensor.dtype
        assert not placed[name].flags.writeable
        offset = shared.offset(placed[name])
        assert offset is not None
        with (FOLDER / shared.name).open("rb") as file:
            file.seek(offset)
            assert file.read(tensor.nbytes) == tensor.tobytes()
    assert shared.offset(view()["size"]) is None
    assert shared.offset(placed["embedding"][..., ::2]) is None
    assert (FOLDER / shared.name).stat().st_mode & 0o77 == 0


def test_nothing_is_put_where_nobody_reads(shared: SharedTensors) -> None:
    shared.readers.clear()
    assert shared.offset(shared.put(view())["embedding"]) is None


def test_room_is_free_once_nobody_has_the_tensors(shared: SharedTensors) -> None:
    kept = [shared.put(view(number=number)) for number in range(5)]
    assert all(shared.offset(each["embedding"]) is not None for each in kept)
    unplaced = shared.put(view())
    assert shared.offset(unplaced["embedding"]) is None
    # A part of a tensor is enough to keep all.
    part = kept[1]["size"][0, :1]
    del kept[1], kept[2]  # the second, and what was the fourth
    assert shared.offset(shared.put(view(number=9))["embedding"]) is not None
    again = shared.put(view(number=9))
    assert shared.offset(again["embedding"]) == 6 * PAGE
    assert part[0] == 1
    del part
    assert [int(each["size"][0, 0]) for each in kept] == [0, 2, 4]
    # Rooms side by side become one.
    kept.clear()
    del again
    large = shared.put(view(9))
    assert shared.offset(large["embedding"]) == 0


def test_full_memory_is_no_error_and_told_once(
    shared: SharedTensors, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", full)
        for _ in range(20):
            placed = shared.put(view())
            assert shared.offset(placed["embedding"]) is None
            np.testing.assert_array_equal(placed["embedding"], view()["embedding"])
    assert len(caplog.records) == 1
    assert "is full: tensors are sent to Triton" in caplog.text
    assert shared.offset(shared.put(view())["embedding"]) == 0


def test_half_of_the_memory_is_left_to_triton(
    shared: SharedTensors, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its own processes exchange tensors there, and fail without."""
    kept = shared.put(view())
    whole = SimpleNamespace(f_blocks=100, f_bavail=52, f_frsize=PAGE)
    monkeypatch.setattr(os, "fstatvfs", lambda _: whole)
    more = shared.put(view())
    assert shared.offset(more["embedding"]) is not None
    whole.f_bavail = 50
    assert shared.offset(shared.put(view())["embedding"]) is None
    assert "half of it is left to Triton" in caplog.text
    # What was in use has its memory already.
    del kept
    assert shared.offset(shared.put(view())["embedding"]) == 0


def test_tensors_outlive_the_file(shared: SharedTensors) -> None:
    placed = shared.put(view())
    shared.close()
    assert is_left(shared.name)
    np.testing.assert_array_equal(placed["embedding"], view()["embedding"])
    shared.close()


def test_many_threads_share_it(shared: SharedTensors) -> None:
    wrong = []

    def work(number: int) -> None:
        for turn in range(300):
            placed = shared.put(view(number=1000 * number + turn))
            if not (placed["embedding"] == 1000 * number + turn).all():
                wrong.append(turn)

    threads = [threading.Thread(target=work, args=[number]) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    gc.collect()
    assert shared.offset(shared.put(view(9))["embedding"]) == 0


HOLDER = """
from gateway.triton_shared_memory import SharedTensors
shared = SharedTensors(4096)
print(shared.name, flush=True)
input()
"""


def test_what_a_killed_process_left_is_removed_by_the_next() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        name = holder.stdout.readline().strip()
        SharedTensors(PAGE).close()
        assert (FOLDER / name).exists()
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    assert not is_left(name)
    SharedTensors(PAGE).close()
    assert is_left(name)
    assert not is_left("somebody_elses")


def test_no_shared_memory_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.triton_shared_memory.FOLDER", tmp_path / "missing")
    with pytest.raises(FileNotFoundError):
        SharedTensors(PAGE)
