"""Who is faster: visiongate, a bare loop, FastAPI, LitServe and Ray Serve, with one CLIP on this machine.

    PYTHONPATH=tests python -m bench.peers.compare [--full DIR] [--json FILE] [--picture FILE.png]

The same ONNX file, Pillow's preprocessing, the same number of threads, no caches, JPEG files of 640 x 480
pixels that all differ. One load generator in a process of its own sends ready bytes to all. Each server gets
the number of calls in flight that is best for it. Then they are measured by turns; a ratio is the median of
the ratios of each turn. Takes seven minutes with --full DIR, which has a repository with a full ViT-B/32:

    visiongate export clip --weights random --out DIR
"""

import argparse
import contextlib
import http.client
import json
import os
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bench.peers import environments
from bench.peers.clip_preprocessing import join
from export.demo.serving import REPOSITORY
from export.demo.show import scene
from gateway.bench import servers
from gateway.bench.chart import Bar, draw
from gateway.bench.cpu import Split
from gateway.bench.generator_process import GeneratorError, GeneratorProcess
from gateway.bench.load import Load
from gateway.bench.machine import machine
from gateway.bench.photos import groups, jpeg
from gateway.bench.rounds import Round, Summary
from visiongate.command_error import CommandError
from visiongate.commands.common import note, say, table
from visiongate.operations import embedding

HERE = Path(__file__).parent
OURS, BARE = "visiongate", "bare loop"
THREADS = len(os.sched_getaffinity(0))
BOUNDARY = "peers"
MIN_COSINE = 0.9999
PEER_START_S = 240


@dataclass(frozen=True)
class Case:
    """images: in a call. goals: the least ratios of ours to others that the project wants.

    in_flight: the numbers of calls that are tried, for each server; the best is taken.
    """

    name: str
    key: str
    images: int
    size: tuple[int, int]
    goals: dict[str, float] = field(default_factory=dict)
    seconds: float = 1.0
    in_flight: Sequence[int] = (8, 16, 32)


TOY = (
    Case(
        "toy CLIP, one image a call",
        "toy-1",
        1,
        (640, 480),
        {BARE: 0.88, "FastAPI": 0.85, "LitServe": 1.5, "Ray Serve": 1.5},
    ),
    Case(
        "toy CLIP, 16 images a call",
        "toy-16",
        16,
        (640, 480),
        {BARE: 0.88, "FastAPI": 1.2, "LitServe": 1.2, "Ray Serve": 1.2},
        in_flight=(2, 4, 8),
    ),
    Case("toy CLIP, one photo of 12 megapixels a call", "toy-12mp", 1, (4000, 3000)),
)
PEERS_FULL = {"FastAPI": 1.0, "LitServe": 1.0, "Ray Serve": 1.0}
FULL = (
    Case("ViT-B/32, one image a call", "full-1", 1, (640, 480), PEERS_FULL, 1.5, (8, 16)),
    Case("ViT-B/32, 16 images a call", "full-16", 16, (640, 480), PEERS_FULL, 1.5, (2, 4)),
)


@dataclass
class Contender:
    """A server, or the bare loop: its load for each case, and what it gave."""

    name: str
    generator: GeneratorProcess
    split: Split
    loads: dict[str, Path]
    in_flight: dict[str, int] = field(default_factory=dict)
    rounds: dict[str, list[Round]] = field(default_factory=dict)
    cpu_s: dict[str, list[dict[str, float]]] = field(default_factory=dict)

    def summary(self, case: Case) -> Summary:
        return Summary.of(self.rounds[case.key], self.cpu_s[case.key])


@dataclass(frozen=True)
class Model:
    """The image tower of a repository."""

    repository: Path

    @property
    def file(self) -> Path:
        return self.repository / "clip_image" / "1" / "model.onnx"

    @property
    def size(self) -> int:
        text = (self.repository / "clip_image" / "config.pbtxt").read_text().split('key: "image_size"')[1]
        return int(text.split('"')[1])


def form(photos: Sequence[bytes]) -> bytes:
    """Return multipart/form-data with a file for each photo."""
    head = f'--{BOUNDARY}\r\ncontent-disposition: form-data; name="images"; filename="a.jpg"\r\n\r\n'.encode()
    return b"".join(head + photo + b"\r\n" for photo in photos) + f"--{BOUNDARY}--\r\n".encode()


def photos_of(case: Case) -> list[list[bytes]]:
    """Return the photos of each call. More calls than are in flight: no two at a time share a photo."""
    picture = Image.fromarray(scene(0).image)
    count = 24 if case.size[0] > 1000 else 48 if case.images == 1 else 12
    return groups([jpeg(picture, case.size)], case.images, count)


@contextlib.contextmanager
def contenders(
    model: Model, cases: Sequence[Case], options: argparse.Namespace, folder: Path
) -> Iterator[tuple[list[Contender], dict[str, str]]]:
    """Lend all that start, and why the others do not."""
    photos = {case.key: photos_of(case) for case in cases}
    ready: list[Contender] = []
    missing: dict[str, str] = {}
    with contextlib.ExitStack() as stack:
        generator = stack.enter_context(GeneratorProcess())
        # Ray Serve first: it gives up if it has to wait for a processor.
        for peer in sorted(options.peers, reverse=True):
            name = environments.NAMES[peer]
            try:
                server = stack.enter_context(_peer(peer, model, options, folder))
            except (CommandError, OSError, ValueError, RuntimeError) as error:
                missing[name] = " ".join(str(error).split())[-300:]
                note(f"{name} is left out: {missing[name]}")
                continue
            loads = {
                case.key: _http_load(peer, server.address, case, photos[case.key], options).write(
                    folder, f"{peer}-{case.key}"
                )
                for case in cases
            }
            ready.insert(0, Contender(name, generator, Split({"server": [server.pid]}), loads))
        repository = folder / "repository"
        repository.mkdir()
        for tower in ("clip_image", "clip_text"):
            (repository / tower).symlink_to(model.repository / tower)
        triton = stack.enter_context(servers.triton(repository, folder))
        bare = stack.enter_context(GeneratorProcess((sys.executable, "-m", "bench.peers.bare")))
        settings = {"size": model.size, "scaled": options.scaled_peers}
        loads = {
            case.key: Load(
                "bare",
                triton.address,
                case.images,
                [[[("photo", photo) for photo in call]] for call in photos[case.key]],
                settings,
            ).write(folder, f"bare-{case.key}")
            for case in cases
        }
        ready.insert(0, Contender(BARE, bare, Split({"triton": [triton.pid]}), loads))
        gateway = stack.enter_context(servers.gateway(triton.address, repository, folder))
        loads = {
            case.key: Load(
                "grpc", gateway.address, case.images, [[[_message(call)]] for call in photos[case.key]]
            ).write(folder, f"ours-{case.key}")
            for case in cases
        }
        split = Split({"gateway": [gateway.pid], "triton": [triton.pid]})
        ready.insert(0, Contender(OURS, generator, split, loads))
        yield ready, missing


def _message(photos: Sequence[bytes]) -> tuple[str, bytes]:
    operation = embedding.embed_images(photos)
    return operation.method, operation.request.SerializeToString()


@contextlib.contextmanager
def _peer(peer: str, model: Model, options: argparse.Namespace, folder: Path) -> Iterator[servers.Server]:
    """Lend a peer's server. One that gives up is started a second time."""
    port = servers.free_port()
    command = [
        *(str(environments.python(peer)), str(HERE / f"{peer}_server.py")),
        *("--port", str(port), "--model", str(model.file), "--size", str(model.size)),
        *("--threads", str(THREADS), *(["--scaled"] if options.scaled_peers else [])),
    ]
    photo = jpeg(Image.new("RGB", (64, 64)), (64, 64))

    def answers(address: str) -> bool:
        connection = http.client.HTTPConnection(address, timeout=20)
        try:
            connection.request("POST", "/framed", join([photo]), {"content-type": "application/octet-stream"})
            return connection.getresponse().status == http.client.OK
        except OSError:
            return False
        finally:
            connection.close()

    with contextlib.ExitStack() as stack:
        arguments = peer, command, port, folder / f"{peer}.log", {"PYTHONPATH": ""}, answers, PEER_START_S
        try:
            server = stack.enter_context(servers.running(*arguments))
        except CommandError:
            server = stack.enter_context(servers.running(*arguments))
        yield server


def _http_load(
    peer: str, address: str, case: Case, photos: Sequence[Sequence[bytes]], options: argparse.Namespace
) -> Load:
    content_type = "application/octet-stream"
    if peer == "fastapi" and case.images == 1:
        calls = [[[("/embed", photo)]] for (photo,) in photos]
    elif peer == "fastapi" and options.form:
        calls = [[[("/form", form(call))]] for call in photos]
        content_type = f"multipart/form-data; boundary={BOUNDARY}"
    else:
        calls = [[[("/framed", join(call))]] for call in photos]
    return Load("http", address, case.images, calls, {"content_type": content_type})


def rows_of(contender: Contender, case: Case) -> NDArray[np.float32]:
    """Return the embeddings of the first call's photos."""
    (answer,) = contender.generator.once(contender.loads[case.key])
    if contender.name == OURS:
        operation = embedding.embed_images([b""])
        rows: NDArray[np.float32] = np.asarray(
            operation.parse(operation.response_type.FromString(answer), "")
        )
        return rows
    return np.frombuffer(answer, np.float32).reshape(case.images, -1)


def measure(case: Case, ready: list[Contender], options: argparse.Namespace) -> dict[str, Any]:
    """Find each one's best number of calls in flight, measure by turns, and return what came out."""
    cosines: dict[str, float] = {}
    ours = rows_of(ready[0], case)
    for contender in ready[1:]:
        cosines[contender.name] = float((ours * rows_of(contender, case)).sum(1).min())
        if cosines[contender.name] < MIN_COSINE:
            note(f"{case.name}: embeddings of {contender.name} differ, cosine {cosines[contender.name]:.5f}")
    seconds = options.seconds * case.seconds
    for contender in ready:
        load = contender.loads[case.key]
        tried = {
            count: contender.generator.round(load, count, seconds * 0.6).items_a_second
            for count in case.in_flight
        }
        contender.in_flight[case.key] = max(tried, key=lambda count: tried[count])
        contender.rounds[case.key], contender.cpu_s[case.key] = [], []
    for turn in range(options.rounds):
        for contender in ready[turn % len(ready) :] + ready[: turn % len(ready)]:
            contender.split.look()
            done = contender.generator.round(
                contender.loads[case.key], contender.in_flight[case.key], seconds
            )
            contender.cpu_s[case.key].append(contender.split.look())
            contender.rounds[case.key].append(done)
    return {
        "case": case.name,
        "key": case.key,
        "goals": case.goals,
        "cosines": cosines,
        "ratios": {each.name: ratio(ready[0], each, case) for each in ready[1:]},
        "contenders": {
            each.name: {**each.summary(case).as_dict(), "calls_in_flight": each.in_flight[case.key]}
            for each in ready
        },
    }


def ratio(ours: Contender, other: Contender, case: Case) -> float:
    """Return the median of the turns' ratios."""
    pairs = zip(ours.rounds[case.key], other.rounds[case.key], strict=True)
    known = [one.items_a_second / two.items_a_second for one, two in pairs if two.items_a_second]
    return statistics.median(known) if known else float("nan")


def show(results: Sequence[dict[str, Any]], missing: dict[str, str]) -> None:
    """Print the tables, ratios first, and who wins where."""
    names = [BARE, *environments.NAMES.values()]
    table(
        ["", *(f"over {name}" for name in names), "visiongate, images/s"],
        [
            [
                result["case"],
                *(_ratio_cell(result, name) for name in names),
                f"{result['contenders'][OURS]['items_a_second']:.1f}",
            ]
            for result in results
        ],
    )
    rows = []
    for result in results:
        for name, each in result["contenders"].items():
            cpu = each["cpu_s_an_item"]
            server = sum(seconds for whose, seconds in cpu.items() if whose != "client")
            parts = ", ".join(f"{whose} {seconds * 1e3:.2f}" for whose, seconds in cpu.items())
            rows.append(
                [
                    *(result["case"], name, f"{each['items_a_second']:.1f}", str(each["calls_in_flight"])),
                    *(f"{each[key] * 1e3:.0f}" for key in ("p50_s", "p95_s", "p99_s")),
                    *(str(each["errors"]), f"{server * 1e3:.2f}", parts),
                ]
            )
    columns = "", "", "images/s", "calls in flight", "p50 ms", "p95 ms", "p99 ms", "errors"
    table([*columns, "CPU ms an image, but the client's", "of which"], rows)
    for result in results:
        for name, value in result["ratios"].items():
            if value < 1 and name != BARE:
                say(f"{name} wins: {result['case']}, {1 / value:.2f} times as fast as visiongate.")
        for name, goal in result["goals"].items():
            if name in result["ratios"] and result["ratios"][name] < goal:
                say(f"Missed: {result['case']}, {result['ratios'][name]:.2f} of {name}, wanted {goal}.")
    for name, why in missing.items():
        say(f"{name} did not start: {why}")


def _bar(name: str, each: dict[str, Any], result: dict[str, Any]) -> Bar:
    rate = each["items_a_second"]
    times = f", visiongate {result['ratios'][name]:.2f} times" if name in result["ratios"] else ""
    return Bar(name, rate, f"{rate:.1f}{times}" if rate > 0 else "")


def _markdown(results: Sequence[dict[str, Any]]) -> str:
    """Return the first table as Markdown has it."""
    names = [BARE, *environments.NAMES.values()]
    lines = [
        f"| visiongate's rate over that of | {' | '.join(names)} | images/s |",
        f"|---{'|---' * len(names)}|---|",
    ]
    for result in results:
        cells = " | ".join(_ratio_cell(result, name) for name in names)
        rate = result["contenders"][OURS]["items_a_second"]
        lines.append(f"| {result['case']} | {cells} | {rate:.1f} |")
    return "\n".join(lines)


def _ratio_cell(result: dict[str, Any], name: str) -> str:
    return f"{result['ratios'][name]:.2f}" if name in result["ratios"] else "did not start"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repository", type=Path, default=REPOSITORY, help="of the toy CLIP")
    parser.add_argument("--full", type=Path, help="a repository with a full ViT-B/32")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.5, help="of a round")
    parser.add_argument("--only", help="keys of cases, separated by commas: toy-1,full-16")
    parser.add_argument(
        "--peers",
        type=lambda text: [name for name in text.split(",") if name],
        default=list(environments.PINS),
    )
    parser.add_argument("--form", action="store_true", help="many images to FastAPI as a form, not framed")
    parser.add_argument(
        "--scaled-peers", action="store_true", help="let the peers shrink photos while they decode, too"
    )
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path, help="write the first table there")
    parser.add_argument("--picture", type=Path)
    options = parser.parse_args()
    # What was started is stopped then, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    start = time.monotonic()
    results: list[dict[str, Any]] = []
    missing: dict[str, str] = {}
    for repository, cases in ((options.repository, TOY), (options.full, FULL)):
        wanted = [case for case in cases if not options.only or case.key in options.only.split(",")]
        if repository is None or not wanted:
            continue
        with (
            tempfile.TemporaryDirectory() as folder,
            contenders(Model(repository.resolve()), wanted, options, Path(folder)) as (ready, absent),
        ):
            missing.update(absent)
            for case in wanted:
                note(f"{case.name} …")
                try:
                    results.append(measure(case, ready, options))
                except GeneratorError as error:
                    note(f"{case.name} is left out: {error}")
    here = machine()
    say(f"{here}; {options.rounds} rounds by turns, medians")
    show(results, missing)
    note(f"took {time.monotonic() - start:.0f} s")
    if options.json:
        values = {"machine": here.as_dict(), "results": results, "missing": missing}
        options.json.write_text(json.dumps(values, indent=1))
    if options.markdown:
        options.markdown.write_text(_markdown(results) + "\n")
    if options.picture:
        bars = [
            (
                result["case"],
                [_bar(name, each, result) for name, each in result["contenders"].items()],
            )
            for result in results
        ]
        draw("Images a second: CLIP, JPEG to embedding, no caches", bars, str(here)).save(options.picture)


if __name__ == "__main__":
    main()
