"""The command `visiongate bench`."""

import contextlib
import importlib.util
import json
import math
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from visiongate.address import is_local
from visiongate.command_error import CommandError
from visiongate.commands.common import note, say, table

if TYPE_CHECKING:
    from gateway.bench.run import Measured, Target
    from gateway.bench.tasks import Subject

app = typer.Typer(rich_markup_mode="markdown")

TASKS = "embed-images", "embed-texts", "detect", "click", "words", "read", "gaze"
_SCENE = Path(__file__).parents[1] / "bench" / "scene.jpg"
_PHRASES = "red circle", "blue square", "yellow star"
# In the middle of the scene's star.
_POINT = 0.52, 0.36


@app.command(
    epilog="What the columns mean: *of Triton* is the rate over that of the same tensors sent straight to "
    "Triton, so 1 is a gateway that costs nothing; *of the models* is the rate over that of ONNX Runtime in "
    "one process, a thread for each core. Above 1: Triton joined requests of several calls. CPU is of all "
    "processes, where they are on this machine; that of *client* is of the load generator, which sends ready "
    "bytes. Nothing else should run meanwhile; trust ratios more than rates."
)
def bench(
    server: Annotated[
        str,
        typer.Option(
            metavar="HOST:PORT",
            help="A running gateway to load, without TLS and keys, with the caches that it has. "
            "Else one is started.",
        ),
    ] = "",
    triton: Annotated[
        str,
        typer.Option(
            metavar="HOST:PORT",
            help="The Triton of --server: for its CPU, and with --repository for the ratios.",
        ),
    ] = "",
    repository: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="The model repository to serve, or that --server has. Else the demo models."
        ),
    ] = None,
    task: Annotated[
        list[str] | None, typer.Option(metavar="TASK", help=f"{', '.join(TASKS)}; again for more. All.")
    ] = None,
    items: Annotated[
        str, typer.Option(help="Images or texts in a call, where a task takes many: numbers with commas.")
    ] = "1,16",
    in_flight: Annotated[
        int, typer.Option(help="Images or texts at a time; at least two calls are.", min=1, max=1000)
    ] = 16,
    rounds: Annotated[int, typer.Option(help="By turns; medians are shown.", min=1)] = 5,
    seconds: Annotated[float, typer.Option(help="Of a round.", min=0.05)] = 1,
    image: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="JPEG to send; again for more. Else a drawn scene."),
    ] = None,
    phrase: Annotated[list[str] | None, typer.Option(help="What to look for; again for more.")] = None,
    caches: Annotated[
        bool,
        typer.Option(
            "--caches", help="Leave the caches of the started gateway on: few images, again and again."
        ),
    ] = False,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write everything that was measured.")
    ] = None,
    picture: Annotated[Path | None, typer.Option(metavar="FILE.png", help="Draw the ratios as bars.")] = None,
) -> None:
    """Measure how fast the server is on this machine: rates, latencies, and whose CPU time it takes.

    Without --server it starts Triton and a gateway, each a process of its own, with all caches off, and stops
    them at the end. A load generator, again a process of its own, keeps calls in flight. Takes four minutes.

    ```
    visiongate bench
    visiongate bench --repository models --task embed-images --items 1,16,64 --in-flight 32
    visiongate bench --server 127.0.0.1:50051 --triton 127.0.0.1:8001 --repository models
    ```
    """
    from gateway.bench import run  # noqa: PLC0415
    from gateway.bench.machine import machine  # noqa: PLC0415
    from gateway.bench.tasks import tasks  # noqa: PLC0415

    # What was started is stopped then, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    wanted = tasks(checked_tasks(task), _subject(image, phrase), checked_items(items), in_flight)
    if triton and not server:
        raise CommandError("--triton says which Triton --server has: give --server too, or leave it out")
    with tempfile.TemporaryDirectory(prefix="visiongate-bench-") as name:
        folder = Path(name)
        with (
            _running(server, triton) if server else _started(repository, folder, caches) as (
                gateway,
                its_triton,
                files,
            )
        ):
            at = repository if server else files
            plan = run.Plan(rounds, seconds)
            measured = run.measure(wanted, gateway, its_triton, at, plan, folder, note)
    here = machine()
    say(f"{here}; {in_flight} items in flight; medians of {rounds} rounds of {seconds:g} s")
    _show(measured)
    if json_file:
        entries = {
            "machine": here.as_dict(),
            "in_flight": in_flight,
            "tasks": [one.as_dict() for one in measured],
        }
        json_file.write_text(json.dumps(entries, indent=1))
    if picture:
        _draw(measured, str(here), picture)


def checked_tasks(names: Sequence[str] | None) -> Sequence[str]:
    """Return the tasks' names, or all; raise CommandError for one that there is not."""
    if unknown := [name for name in names or () if name not in TASKS]:
        raise CommandError(f"--task is {unknown[0]!r}: choose among {', '.join(TASKS)}")
    return names or TASKS


def checked_items(text: str) -> list[int]:
    """Return the numbers that are written there; raise CommandError for other words."""
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if not numbers or min(numbers) < 1 or max(numbers) > 256:
        raise CommandError(f"--items is {text!r}: give numbers of 1 to 256 with commas between, such as 1,16")
    return numbers


def _subject(files: Sequence[Path] | None, phrases: Sequence[str] | None) -> "Subject":
    from gateway.bench.photos import START  # noqa: PLC0415
    from gateway.bench.tasks import Subject  # noqa: PLC0415

    photos = [file.read_bytes() for file in files or [_SCENE]]
    for file, photo in zip(files or [_SCENE], photos, strict=True):
        if not photo.startswith(START):
            raise CommandError(f"{file} is no JPEG")
    return Subject(photos, phrases or _PHRASES, _POINT)


@contextlib.contextmanager
def _started(repository: Path | None, folder: Path, caches: bool) -> "Iterator[tuple[Target, Target, Path]]":
    from gateway.bench import servers  # noqa: PLC0415
    from gateway.bench.run import Target  # noqa: PLC0415

    files = repository or _demo_repository()
    environment = {} if caches else servers.NO_CACHES
    with (
        servers.triton(files, folder) as triton,
        servers.gateway(triton.address, files, folder, environment) as gateway,
    ):
        yield (
            Target(gateway.address, {"gateway": [gateway.pid], "Triton": [triton.pid]}),
            Target(triton.address, {"Triton": [triton.pid]}),
            files,
        )


@contextlib.contextmanager
def _running(server: str, triton: str) -> "Iterator[tuple[Target, Target | None, None]]":
    from gateway.bench.run import Target  # noqa: PLC0415

    its = _listeners(triton) if triton else set()
    processes = {"gateway": _listeners(server), "Triton": its}
    yield Target(server, processes), Target(triton, {"Triton": its}) if triton else None, None


def _listeners(address: str) -> set[int]:
    """Return the processes that listen there, if that is on this machine. Raises CommandError."""
    from gateway.bench import cpu  # noqa: PLC0415

    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise CommandError(f"the address is {address!r}: give HOST:PORT, such as 127.0.0.1:50051")
    return cpu.listeners(int(port)) if is_local(host) else set()


def _demo_repository() -> Path:
    # The gateway must not import the exporter: the package is only located.
    package = importlib.util.find_spec("export")
    for folder in package.submodule_search_locations or () if package else ():
        repository = Path(folder, "demo", "repository")
        if repository.is_dir():
            return repository
    raise CommandError("the demo models are missing: give --repository")


def _show(measured: "Sequence[Measured]") -> None:
    from gateway.bench.run import GATEWAY, MODELS, TRITON  # noqa: PLC0415

    rows = []
    for one in measured:
        through = one.summaries[GATEWAY]
        rows.append(
            [
                one.task.title,
                str(one.task.items),
                *(_number(one.ratios.get(way), 2) for way in (TRITON, MODELS)),
                f"{through.items_a_second:.1f}",
                *(_number(value * 1e3, 1) for value in (through.p50_s, through.p95_s, through.p99_s)),
                str(through.errors),
                *(
                    _number(through.cpu_s_an_item.get(whose, math.nan) * 1e3, 2)
                    for whose in ("client", "gateway", "Triton")
                ),
            ]
        )
        if through.first_error:
            note(f"{one.task.title}, {one.task.items} a call: {through.first_error}")
    columns = (
        "task",
        "a call",
        "of Triton",
        "of the models",
        "items/s",
        "p50 ms",
        "p95 ms",
        "p99 ms",
        "errors",
    )
    cpu = "CPU ms an item: client", "gateway", "Triton"
    table([*columns, *cpu], rows)


def _number(value: float | None, digits: int) -> str:
    return "" if value is None or math.isnan(value) else f"{value:.{digits}f}"


def _draw(measured: "Sequence[Measured]", foot: str, file: Path) -> None:
    from gateway.bench.chart import Bar, draw  # noqa: PLC0415

    bars = [
        (
            f"{one.task.title}, {one.task.items} a call",
            [Bar(way, summary.items_a_second) for way, summary in one.summaries.items()],
        )
        for one in measured
    ]
    draw("Items a second: the gateway, and what it is in front of", bars, foot).save(file)
