"""Makes the bundles for an offline host: ONNX Runtime for its GPU, graphs without weights, the server."""

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from bench.gpu import prune
from bench.gpu.bundles import LIMIT_BYTES, Archive, slim_wheel, write

PYTHON = "3.12"
RUNTIME = "onnxruntime-gpu==1.31.1"
# What Triton's environment has, beside the runtime.
TRITON = ("nvidia-pytriton==0.7.0", "numpy==1.26.4")
# pip takes these names literally: a wheel for an older C library needs its own.
_PLATFORMS = [
    *(f"manylinux_2_{minor}_x86_64" for minor in (39, 35, 34, 31, 28, 27, 26, 24, 17, 12, 5)),
    "manylinux2014_x86_64",
    "manylinux2010_x86_64",
    "manylinux1_x86_64",
]
_CUDA_LIBRARY = "libonnxruntime_providers_cuda.so"
_HERE = Path(__file__).parent
_CHECKOUT = Path(__file__).parents[3]

Tell = Callable[[str], None]


def pack(
    to: Path,
    models: Sequence[str],
    *,
    architecture: int,
    is_pruned: bool,
    drop_lone: bool,
    host_has: Sequence[str],
    with_server: bool,
    tell: Tell,
) -> None:
    """Write the bundles for the graphs in `to/graphs`; say their sizes."""
    runtime = _runtime(to, architecture if is_pruned else None, drop_lone, tell)
    files = {
        f"graphs/{file.relative_to(to / 'graphs')}": file
        for name in models
        for file in (to / "graphs" / name).rglob("*")
        if file.is_file()
    }
    code = {f"host/bench/gpu/{file.name}": file for file in _HERE.glob("*.py")}
    archives = [
        Archive("runtime", {f"wheels/{runtime.name}": runtime}, [runtime.name]),
        Archive("graphs", {**files, **code}),
    ]
    if with_server:
        archives += [_triton(to), _server(to, host_has)]
    for bundle, size in write(archives, to):
        held = ", ".join(sorted(file.name for file in bundle.glob("*.tar.xz*")))
        tell(f"{bundle}: {size / 2**20:.1f} MiB of {LIMIT_BYTES / 2**20:.0f}: {held}")


def download(requirements: Sequence[str], to: Path) -> list[Path]:
    """Return the wheels for the host's Python; only those that are not there are downloaded.

    Raises CalledProcessError if there is none for its platform.
    """
    to.mkdir(parents=True, exist_ok=True)
    platforms = [word for platform in _PLATFORMS for word in ("--platform", platform)]
    starts = {each: each.replace("-", "_").replace("==", "-").lower() + "-" for each in requirements}
    if missing := [each for each, start in starts.items() if not _starting(start, to)]:
        subprocess.run(
            [
                *(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"),
                *("--python-version", PYTHON, "--implementation", "cp", *platforms),
                *("--dest", str(to), *missing),
            ],
            check=True,
        )
    return [wheel for start in starts.values() for wheel in _starting(start, to)]


def _starting(start: str, folder: Path) -> list[Path]:
    return [file for file in folder.glob("*.whl") if file.name.lower().startswith(start)]


def _runtime(to: Path, architecture: int | None, drop_lone: bool, tell: Tell) -> Path:
    """Return ONNX Runtime's wheel with what Python needs, for one architecture or, of None, for all."""
    (wheel,) = download([RUNTIME], to / "wheels")

    def keep(name: str) -> bool:
        # Python has its own copy of the library for C, and the exporter's tools are not needed there.
        return not name.startswith(("onnxruntime/transformers/", "onnxruntime/quantization/")) and not (
            "/libonnxruntime.so" in name or "providers_tensorrt" in name
        )

    def change(name: str, content: bytes) -> bytes:
        if architecture is None or not name.endswith(_CUDA_LIBRARY):
            return content
        library = bytearray(content)
        sizes = prune.prune(library, architecture, drop_lone)
        tell(f"{_CUDA_LIBRARY}: {sizes['kept'] / 1e6:.0f} MB of code kept, {sizes['zeroed'] / 1e6:.0f} not")
        return bytes(library)

    return slim_wheel(wheel, to / "slim", keep, change)


def _triton(to: Path) -> Archive:
    pytriton, numpy = download(TRITON, to / "wheels")

    def keep(name: str) -> bool:
        # Python's own library is in it for the stub of 3.13 alone.
        is_stub_of_others = "python_backend_stubs/" in name and f"/{PYTHON}/" not in name
        return not is_stub_of_others and "/libpython3" not in name

    slim = slim_wheel(pytriton, to / "slim", keep)
    return Archive("triton", {f"wheels/{file.name}": file for file in (slim, numpy)})


def _server(to: Path, host_has: Sequence[str]) -> Archive:
    """Return the gateway, its client, and the packages that it needs and the host does not have."""
    uv = Path(sys.executable).with_name("uv")
    own = to / "own"
    for folder in ("proto", "."):
        subprocess.run(
            [uv, "build", "--quiet", "--wheel", "--out-dir", own, folder], check=True, cwd=_CHECKOUT
        )
    pinned = subprocess.run(
        [
            *(uv, "pip", "compile", "--quiet", "--no-header", "--no-annotate", "--python-version", PYTHON),
            *("--constraint", "requirements.lock", "--no-emit-package", "visiongate", "pyproject.toml"),
        ],
        check=True,
        cwd=_CHECKOUT,
        capture_output=True,
        text=True,
    ).stdout.split()
    missing = [pin for pin in pinned if "==" in pin and pin.partition("==")[0] not in host_has]
    # The demo models are larger than everything else.
    slim = [
        slim_wheel(wheel, to / "slim", lambda name: not name.startswith("export/demo/"))
        for wheel in own.glob("*.whl")
    ]
    wheels = [*slim, *download(missing, to / "wheels")]
    return Archive("server", {f"wheels/{file.name}": file for file in wheels}, [file.name for file in wheels])
