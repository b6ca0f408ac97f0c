"""Batch jobs while everything around them is killed, and how much memory they take.

    PYTHONPATH=tests python -m soak.batch [kills] [memory] [--kills N] [--rows N]

kills: `visiongate batch`, the gateway and Triton are killed by turns at random moments, and the job is run
again until it is done. Exits with 1 where a row differs from that of an undisturbed run.

memory: many rows of 100 distinct images, from a folder and from a table. Exits with 1 where the memory in the
last quarter is over MAX_GROWTH of that in the second one.
"""

import argparse
import contextlib
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from export.demo.serving import REPOSITORY
from soak.goals import finish
from soak.service import COMMAND, free_port
from soak.stream import picture
from visiongate import Client

KILLS, IMAGES, ROWS_PER_FILE = 10, 1500, 50
ROWS, DISTINCT, MAX_GROWTH = 200_000, 100, 1.05
BROKEN_EVERY = 20
LATEST_KILL_S = 1.0
START_S = 120.0
BATCH, GATEWAY, TRITON = VICTIMS = "batch", "gateway", "Triton"


class Up:
    """`visiongate up` at a port of its own, started again when it was killed."""

    def __init__(self) -> None:
        self.address = f"127.0.0.1:{free_port()}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        port = self.address.rpartition(":")[2]
        self._process = subprocess.Popen(
            [COMMAND, "up", "--repository", str(REPOSITORY), "--port", port],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def wait(self) -> None:
        deadline = time.monotonic() + START_S
        with Client(self.address) as client:
            while True:
                with contextlib.suppress(Exception):
                    client.list_models()
                    return
                if time.monotonic() > deadline:
                    sys.exit("visiongate up does not answer")

    def kill_gateway(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        self.start()

    def kill_triton(self) -> bool:
        """Kill Triton, which `up` starts again. Return False if it is not there just now."""
        assert self._process is not None
        tritons = [
            each
            for child in children(self._process.pid)
            for each in children(child)
            if b"tritonserver" in command_line(each)
        ]
        for each in tritons:
            with contextlib.suppress(ProcessLookupError):
                os.kill(each, signal.SIGKILL)
        return bool(tritons)

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait()


def children(pid: int) -> list[int]:
    with contextlib.suppress(OSError):
        return [
            int(child)
            for path in Path(f"/proc/{pid}/task").glob("*/children")
            for child in path.read_text().split()
        ]
    return []


def command_line(pid: int) -> bytes:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


def start_batch(address: str, photos: Path, out: Path, *more: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [COMMAND, "batch", "embed", str(photos), "--out", str(out), "--server", address, *more],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def run_batch(address: str, photos: Path, out: Path, *more: str) -> None:
    process = start_batch(address, photos, out, *more)
    _, said = process.communicate()
    if process.returncode:
        sys.exit(f"batch ended with {process.returncode}: {said.decode()}")


def rows(out: Path) -> list[dict[str, Any]]:
    files = sorted(out.glob("part-*.parquet"))
    every: list[dict[str, Any]] = (
        pa.concat_tables(map(parquet.read_table, files)).drop(["elapsed_ms"]).to_pylist()
    )
    return every


def difference(found: Path, expected: Path) -> str:
    """Return in what two outputs differ, empty if in nothing."""
    one, other = rows(found), rows(expected)
    if [row["id"] for row in one] != [row["id"] for row in other]:
        return f"{len(one)} rows, {len(other)} expected, or other ids"
    for a, b in zip(one, other, strict=True):
        vector, expected_vector = a.pop("embedding"), b.pop("embedding")
        if a != b:
            return f"{a}, expected {b}"
        # Requests of other sizes round otherwise.
        if vector is not None and not np.allclose(vector, expected_vector, atol=1e-4):
            return f"the embedding of {a['id']}"
    return ""


def kill_at_random(up: Up, photos: Path, folder: Path, kills: int, seed: int) -> dict[str, bool]:
    rng = random.Random(seed)
    slow = ("--rows-per-file", str(ROWS_PER_FILE), "--batch-size", "1", "--window", "1")
    run_batch(up.address, photos, folder / "undisturbed", *slow)
    done = dict.fromkeys(VICTIMS, 0)
    rounds, differences = 0, list[str]()
    victims: list[str] = []
    while sum(done.values()) < kills:
        out = folder / f"out-{rounds}"
        rounds += 1
        process = start_batch(up.address, photos, out, *slow)
        files = 0
        while (code := process.poll()) != 0:
            if code is not None:
                said = process.communicate()[1].decode()
                if code != -signal.SIGKILL and "UNAVAILABLE" not in said:
                    sys.exit(f"batch ended with {code}: {said}")
                # It was killed, or found no server when it began.
                process = start_batch(up.address, photos, out, *slow)
            if sum(done.values()) >= kills:
                process.wait(600)
                continue
            if len(list(out.glob("part-*"))) <= files:
                # Each kill is at some moment of work, and not of waiting for what was killed last.
                time.sleep(0.02)
                continue
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(rng.uniform(0, LATEST_KILL_S))
                continue
            if not victims:
                victims = rng.sample(VICTIMS, len(VICTIMS))
            victim = victims.pop()
            if victim == BATCH:
                process.kill()
            elif victim == GATEWAY:
                up.kill_gateway()
            elif not up.kill_triton():
                continue
            done[victim] += 1
            files = len(list(out.glob("part-*")))
            print(f"killed {victim}: {files} files were there", flush=True)
        found = difference(out, folder / "undisturbed")
        print(f"round {rounds}: {found or 'the rows of the undisturbed run'}; kills: {done}", flush=True)
        differences.append(found)
        left = [
            path.name for path in out.iterdir() if not re.fullmatch(r"part-.*|_job.*|_summary.*", path.name)
        ]
        if left:
            differences.append(f"left behind: {left}")
    return {"the rows of an undisturbed run": not any(differences)}


def make_photos(folder: Path, count: int) -> None:
    folder.mkdir()
    for number in range(count):
        data = picture(number)
        broken = data[:50] if number % BROKEN_EVERY == 7 else data
        (folder / f"{number:06d}.jpg").write_bytes(broken)


def make_links(folder: Path, count: int) -> None:
    """A folder of so many names of few files, no more than a thousand in each of its folders."""
    originals = folder / "originals"
    originals.mkdir(parents=True)
    for number in range(DISTINCT):
        (originals / f"{number}.jpg").write_bytes(picture(number))
    for number in range(count - DISTINCT):
        place = folder / f"{number // 1000:06d}"
        place.mkdir(exist_ok=True)
        os.link(originals / f"{number % DISTINCT}.jpg", place / f"{number:06d}.jpg")


def make_table(path: Path, count: int) -> None:
    pictures = [picture(number) for number in range(DISTINCT)]
    schema = pa.schema([("image", pa.binary())])
    with parquet.ParquetWriter(path, schema, use_dictionary=True) as writer:
        for first in range(0, count, 1000):
            images = [pictures[number % DISTINCT] for number in range(first, min(first + 1000, count))]
            writer.write_table(pa.table({"image": images}, schema=schema))


def resident_mb(pid: int) -> float:
    with contextlib.suppress(OSError):
        found = re.findall(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
        return int(found[0]) / 1024 if found else 0.0
    return 0.0


def memory_of(address: str, inputs: Path, out: Path, count: int) -> float:
    """Return the most memory in the last quarter of a job as a multiple of that in the second."""
    start = time.monotonic()
    process = start_batch(address, inputs, out)
    most = [0.0] * 4
    while process.poll() is None:
        done = 1000 * len(list(out.glob("part-*"))) if out.is_dir() else 0
        quarter = min(4 * done // count, 3)
        most[quarter] = max(most[quarter], resident_mb(process.pid))
        time.sleep(0.25)
    if process.returncode:
        sys.exit(f"batch ended with {process.returncode}: {process.communicate()[1].decode()}")
    print(f"{count} rows of {inputs.name} in {time.monotonic() - start:.0f} s, MB by quarter: "
          f"{[round(each, 1) for each in most]}", flush=True)  # fmt: skip
    return most[3] / most[1]


def measure_memory(up: Up, folder: Path, count: int) -> dict[str, bool]:
    make_links(folder / "links", count)
    make_table(folder / "table.parquet", count)
    return {
        f"{name}: at most {MAX_GROWTH} times the memory": memory_of(
            up.address, folder / name, folder / f"out of {name}", count
        )
        <= MAX_GROWTH
        for name in ("links", "table.parquet")
    }


@contextlib.contextmanager
def serving() -> Iterator[Up]:
    up = Up()
    up.start()
    try:
        up.wait()
        yield up
    finally:
        up.stop()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", default=["kills", "memory"], metavar="PART")
    parser.add_argument("--kills", type=int, default=KILLS)
    parser.add_argument("--images", type=int, default=IMAGES)
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--seed", type=int, default=random.randrange(1000))
    arguments = parser.parse_args()
    goals: dict[str, bool] = {}
    with tempfile.TemporaryDirectory() as name, serving() as up:
        folder = Path(name)
        if "kills" in arguments.parts:
            print(f"seed {arguments.seed}")
            make_photos(folder / "photos", arguments.images)
            goals |= kill_at_random(up, folder / "photos", folder, arguments.kills, arguments.seed)
        if "memory" in arguments.parts:
            goals |= measure_memory(up, folder, arguments.rows)
    finish(goals)


if __name__ == "__main__":
    main()
