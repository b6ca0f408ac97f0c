"""Measures the server on a GPU: `visiongate up --gpu` with drawn weights, and callers beside it."""

import io
import os
import shutil
import subprocess
import sys
import time
import venv
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from bench.gpu import run_graphs, timing
from bench.gpu.plan import MODELS, SERVED
from gateway.bench import photos, servers
from gateway.bench.generator_process import GeneratorError, GeneratorProcess
from gateway.bench.load import Load
from visiongate.command_error import CommandError
from visiongate.operations import Operation, detection, embedding, segmentation

CALLERS = (8, 32, 1)
# Grounding DINO's largest canvas, and a usual photo.
SIZE = 1333, 800
PHRASES = ["a cat", "a red car", "a person on a bicycle"]
Asked = Callable[[bytes], Operation[Any]]


@dataclass(frozen=True)
class Task:
    """What callers ask for. models: those that an answer needs, in turn."""

    title: str
    models: Sequence[str]
    ask: Asked


def _raw(photo: bytes) -> Operation[Any]:
    with Image.open(io.BytesIO(photo)) as picture:
        pixels = np.asarray(picture.convert("RGB").resize((224, 224)))
    # No two alike: the comment that tells files apart is lost.
    pixels = pixels.copy()
    pixels.flat[:8] = np.frombuffer(photo[6:14], np.uint8)
    return embedding.embed_images([pixels])


TASKS = (
    Task("CLIP, JPEG", ["clip_image"], lambda photo: embedding.embed_images([photo])),
    Task("CLIP, raw 224x224", ["clip_image"], _raw),
    Task("SAM, encode", ["sam_encoder"], segmentation.encode_image),
    Task("Grounding DINO, 800x1333", ["grounding_dino"], lambda photo: detection.detect(photo, PHRASES)),
    Task(
        "words to masks",
        ["grounding_dino", "sam_encoder", "sam_decoder"],
        # Drawn weights are sure of nothing: without a least score, there are always so many objects.
        lambda photo: segmentation.segment_phrases(
            photo, PHRASES, min_score=1e-6, min_token_score=1e-6, max_detections=10
        ),
    ),
)


def run(graphs: Path, results: Path, *, device: str, wheels: Path, limit_s: float, seconds: float) -> None:
    """Measure the tasks whose models are there, in turns of callers, adding to `results`."""
    end = time.monotonic() + limit_s
    folder = results.parent / "served"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    present = [name for name in MODELS if (graphs / name / f"{SERVED}.onnx").is_file()]
    tasks = [task for task in TASKS if set(task.models) <= set(present)]
    try:
        place(graphs, present, folder / "repository")
        if device == "cuda" and wheels.is_dir():
            make_environment(wheels)
        with (
            started(folder, device, max(end - time.monotonic(), 1)) as address,
            GeneratorProcess() as generator,
        ):
            for task, callers in _turns(tasks):
                if time.monotonic() > end - seconds:
                    timing.add(
                        results,
                        kind="skipped",
                        task=f"{task.title}, {callers} callers",
                        why="the time was over",
                    )
                    continue
                _measure(task, callers, address, generator, folder, results, seconds)
    except (CommandError, OSError, subprocess.CalledProcessError) as error:
        for task in tasks:
            timing.add(results, kind="failed", task=task.title, why=" ".join(str(error).split())[-600:])


def _turns(tasks: Sequence[Task]) -> Iterator[tuple[Task, int]]:
    for callers in CALLERS:
        for task in tasks:
            yield task, callers


def _measure(
    task: Task,
    callers: int,
    address: str,
    generator: GeneratorProcess,
    folder: Path,
    results: Path,
    seconds: float,
) -> None:
    random = np.random.default_rng(0)
    noise = Image.fromarray(random.integers(0, 256, (SIZE[1] // 8, SIZE[0] // 8, 3), np.uint8))
    files = photos.groups([photos.jpeg(noise, SIZE)], 1, 2 * callers)
    operations = [task.ask(file) for (file,) in files]
    calls = [[[(each.method, each.request.SerializeToString())]] for each in operations]
    load = Load("grpc", address, 1, calls).write(folder, "load")
    try:
        generator.once(load)
        generator.round(load, callers, min(1.0, seconds))
        done = generator.round(load, callers, seconds)
    except GeneratorError as error:
        timing.add(results, kind="failed", task=f"{task.title}, {callers} callers", why=str(error)[:300])
        return
    timing.add(
        results,
        kind="served",
        task=task.title,
        models=list(task.models),
        callers=callers,
        items_a_second=done.items_a_second,
        p50_ms=1e3 * done.p50_s if done.items else 0.0,
        p99_ms=1e3 * done.p99_s if done.items else 0.0,
        errors=done.errors,
    )


def place(graphs: Path, models: Sequence[str], repository: Path) -> None:
    """Write a repository of the graphs with drawn weights, and of the files that were packed beside them."""
    for name in models:
        (repository / name / "1").mkdir(parents=True)
        (repository / name / "1" / "model.onnx").write_bytes(run_graphs.content(graphs, name, SERVED))
        shutil.copytree(graphs / name / "repository", repository / name, dirs_exist_ok=True)


@contextmanager
def started(folder: Path, device: str, wait_s: float) -> Iterator[str]:
    """Lend the address of a server without caches. Raises CommandError if none starts."""
    port = servers.free_port()
    command = [
        *(*servers.VISIONGATE, "up", "--repository", str((folder / "repository").absolute())),
        *("--host", "127.0.0.1", "--port", str(port), *(["--gpu"] if device == "cuda" else [])),
    ]
    log = folder / "up.log"
    with servers.running(
        "visiongate up",
        command,
        port,
        log,
        servers.NO_CACHES,
        lambda _: "answers at" in log.read_text(errors="replace"),
        wait_s,
    ) as server:
        yield server.address


def make_environment(wheels: Path) -> None:
    """Make Triton's environment of the wheels that were carried, and of the host's libraries of CUDA.

    `visiongate up --gpu` would install them, which takes a network.
    """
    from gateway.embedded import environment

    path = environment.environment_path(environment.FOR_GPU)
    if path.is_dir():
        return
    partial = path.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    venv.create(partial, with_pip=False, symlinks=True)
    (site,) = partial.glob("lib/python*/site-packages")
    wanted = [
        file
        for name in ("onnxruntime_gpu", "nvidia_pytriton", "numpy")
        for file in wheels.glob(f"{name}-*.whl")
    ]
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-index",
            "--no-deps",
            "--target",
            site,
            *wanted,
        ],
        check=True,
        env=_without_host(os.environ),
    )
    import nvidia

    for library in Path(next(iter(nvidia.__path__))).iterdir():
        (site / "nvidia").mkdir(exist_ok=True)
        if not (site / "nvidia" / library.name).exists():
            (site / "nvidia" / library.name).symlink_to(library)
    partial.rename(path)


def _without_host(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name != "PYTHONPATH"}
