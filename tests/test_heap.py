import asyncio
import ctypes
import platform
import subprocess
import sys
import threading
from types import SimpleNamespace

import pytest

from gateway import heap


async def test_memory_is_given_back_again_and_again_and_not_in_the_event_loop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: list[tuple[int, int]] = []
    enough = asyncio.Event()
    loop = asyncio.get_running_loop()

    def malloc_trim(pad: int) -> None:
        calls.append((pad, threading.get_ident()))
        if len(calls) == 3:
            loop.call_soon_threadsafe(enough.set)

    monkeypatch.setattr(ctypes, "CDLL", lambda name: SimpleNamespace(malloc_trim=malloc_trim))
    monkeypatch.setattr(heap, "TRIM_EVERY_S", 0.001)
    task = asyncio.create_task(heap.keep_trimmed())
    async with asyncio.timeout(10):
        await enough.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert {pad for pad, _ in calls} == {0}
    assert threading.get_ident() not in {thread for _, thread in calls}


async def test_a_c_library_that_cannot_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: SimpleNamespace())
    async with asyncio.timeout(10):
        await heap.keep_trimmed()


# Threads that allocate at the same time, and how many arenas they make: glibc has one for the main thread,
# and puts the others at multiples of 64 MiB.
THREADS = """
import ctypes, threading
from gateway.heap import limit_arenas
{limit}
together = threading.Barrier(8)
def work():
    together.wait()
    kept.append(ctypes.CDLL(None).malloc(1000))
    together.wait()
kept, threads = [], [threading.Thread(target=work) for _ in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
areas = [line.split() for line in open("/proc/self/maps")]
starts = [int(area[0].split("-")[0], 16) for area in areas if len(area) == 5 and area[1] == "rw-p"]
print(sum(start % (64 << 20) == 0 for start in starts))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have no arenas")
def test_threads_share_a_few_arenas() -> None:
    def arenas(limit: str) -> int:
        command = [sys.executable, "-c", THREADS.format(limit=limit)]
        return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    assert arenas("") > heap.ARENAS
    assert arenas("limit_arenas()") == heap.ARENAS - 1
