"""The environment that Triton from pip runs in: a virtual environment and a backend folder.

Both are made once, in the user's cache folder, and moved into place whole: one that is there is complete.
"""

import contextlib
import fcntl
import hashlib
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import venv
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from gateway.cpus import available_cpus
from gateway.embedded import cache_folder, host
from gateway.embedded.error import EmbeddedTritonError
from gateway.settings_sources import CACHE_VARIABLE

Progress = Callable[[str], None]

_HERE = Path(__file__).parent
_BACKEND_FOLDER = _HERE / "backends" / "onnxruntime"
# The Python backend makes a folder in /tmp, whatever TMPDIR says, and leaves it there if it is killed. A
# relative name of the same length puts it into the run's own folder, in which tritonserver runs.
_FIXED_FOLDER, _RELATIVE_FOLDER = b"/tmp/python_env_", b"./././python_env"
# They would make the installer put the packages elsewhere.
_INSTALLER_VARIABLES = ("PIP_PREFIX", "PIP_TARGET")


@dataclass(frozen=True, slots=True)
class Packages:
    """The pinned packages of an environment: their lock file, how large they are, and whether they can do it.

    check: Python code that fails if they cannot.
    """

    lock: Path
    size: str
    check: str


FOR_CPU = Packages(
    _HERE / "requirements.lock", "300 MB", "import numpy, onnxruntime; assert numpy.__version__ < '2'"
)
FOR_GPU = Packages(
    _HERE / "requirements-gpu.lock",
    "2.3 GB",
    f"{FOR_CPU.check}; assert 'CUDAExecutionProvider' in onnxruntime.get_available_providers()",
)


def environment_path(packages: Packages = FOR_CPU) -> Path:
    """Return where the environment of these pinned packages and this Python is, or will be."""
    key = _digest(packages.lock.read_bytes(), sys.version.encode(), sys.base_prefix.encode())
    return cache_folder.cache_folder() / f"triton-{key}"


def ensure_environment(progress: Progress, packages: Packages = FOR_CPU) -> Path:
    """Return the virtual environment that holds Triton and ONNX Runtime. Make it if it does not exist."""
    host.check_host()
    environment = environment_path(packages)
    cache = environment.parent
    if not cache_folder.is_plain(cache):
        raise EmbeddedTritonError(
            f"Triton cannot run from {cache}: set {CACHE_VARIABLE} to a path without spaces and quotes."
        )
    if not environment.is_dir():
        with cache_folder.write_errors_explained():
            cache.mkdir(parents=True, exist_ok=True)
            cache_folder.check_executable(cache)
            with _locked(environment.with_suffix(".lock"), progress):
                if not environment.is_dir():
                    _make_environment(environment, packages, progress)
    cache_folder.check_executable(cache)
    return environment


def ensure_backends(environment: Path) -> Path:
    """Return the folder for Triton's --backend-directory, with the current onnxruntime backend in it."""
    modules = sorted(_BACKEND_FOLDER.glob("*.py"))
    contents = [part for path in modules for part in (path.name.encode(), path.read_bytes())]
    key = _digest(environment.name.encode(), _RELATIVE_FOLDER, *contents)
    backends = environment.parent / f"backends-{key}"
    if backends.is_dir():
        return backends
    triton = triton_folder(environment)
    with cache_folder.made_whole(backends) as partial:
        # Copies: Triton refuses a backend whose library is a symbolic link to somewhere else.
        shutil.copytree(triton / "backends" / "python", partial / "python")
        library = partial / "python" / "libtriton_python.so"
        library.write_bytes(library.read_bytes().replace(_FIXED_FOLDER, _RELATIVE_FOLDER))
        stub = triton / "python_backend_stubs" / host.PYTHON / "triton_python_backend_stub"
        shutil.copy2(stub, partial / "python")
        (partial / "onnxruntime").mkdir()
        for path in modules:
            shutil.copy2(path, partial / "onnxruntime")
    return backends


def triton_folder(environment: Path) -> Path:
    """Return the folder of Triton in the wheel: bin, backends, caches, python_backend_stubs."""
    return _site_packages(environment) / "pytriton" / "tritonserver"


CPUS_VARIABLE = "TRITON_CPUS"
"""Tells our backend how many processors a container may use."""


def process_environment(environment: Path) -> dict[str, str]:
    """Return the environment variables that tritonserver and its Python processes need."""
    packages = _site_packages(environment)
    # In an environment for GPUs there are libraries of CUDA for ONNX Runtime. Triton's have other names.
    libraries = [packages / "nvidia_pytriton.libs", *sorted(packages.glob("nvidia/*/lib"))]
    libpython = host.libpython_folder()
    if libpython is not None:
        libraries.append(libpython)
    inherited = os.environ.get("LD_LIBRARY_PATH")
    return {
        **os.environ,
        "LD_LIBRARY_PATH": os.pathsep.join([*map(str, libraries), *([inherited] if inherited else [])]),
        # The only way to choose the packages of the embedded interpreter: it ignores PYTHONPATH and
        # PYTHONHOME, and uses the virtual environment of the first python3 on PATH.
        "PATH": f"{environment / 'bin'}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        # NumPy only carries tensors there: a thread pool for linear algebra in each process is a waste.
        "OPENBLAS_NUM_THREADS": os.environ.get("OPENBLAS_NUM_THREADS", "1"),
        # Our backend runs there without this package.
        CPUS_VARIABLE: str(available_cpus()),
    }


def _make_environment(environment: Path, packages: Packages, progress: Progress) -> None:
    # Only the holder of the lock gets here, so a partial environment is left from a process that was killed.
    partial = environment.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    progress(f"Preparing Triton's environment in {environment} (once; {packages.size})")
    try:
        venv.create(partial, symlinks=True)
        python = partial / "bin" / "python3"
        _run(_installer(python, packages), cwd=partial, what="installing Triton's environment")
        _run([str(python), "-c", packages.check], cwd=partial, what="checking Triton's environment")
        if not (triton_folder(partial) / "bin" / "tritonserver").is_file():
            raise EmbeddedTritonError("installing Triton's environment failed: tritonserver is not in it")
        partial.rename(environment)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    progress("Triton's environment is ready")


def _installer(python: Path, packages: Packages = FOR_CPU) -> list[str]:
    """Return the command that installs the pinned packages into the environment of `python`."""
    options = ["--no-deps", "--only-binary", ":all:", "--requirement", str(packages.lock)]
    uv = shutil.which("uv")
    if uv is not None and subprocess.run([uv, "--version"], capture_output=True, check=False).returncode != 0:
        uv = None  # the shim of a version manager that has no uv
    if uv is not None or importlib.util.find_spec("uv"):
        command = [uv] if uv is not None else [sys.executable, "-m", "uv"]
        return [*command, "pip", "install", "--python", str(python), "--compile-bytecode", *options]
    if importlib.util.find_spec("pip"):
        return [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-user", *options]
    raise EmbeddedTritonError(f"Installing Triton needs uv or pip: install one of them, or {host.ADVICE}.")


def _run(command: list[str], *, cwd: Path, what: str) -> None:
    """Run a command in a folder; raise EmbeddedTritonError with the end of its output if it fails."""
    # In the new environment's folder, so that settings of a project (constraints, overrides) do not apply.
    variables = {name: value for name, value in os.environ.items() if name not in _INSTALLER_VARIABLES}
    # In a process group of its own: pip works in a child process, which must end if this one is interrupted.
    with subprocess.Popen(
        command,
        cwd=cwd,
        env=variables,
        text=True,
        errors="replace",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        process_group=0,
    ) as process:
        try:
            output, _ = process.communicate()
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            raise
    if process.returncode != 0:
        tail = "\n".join(output.strip().splitlines()[-15:])
        advice = f"\nThe disk is full: {cache_folder.ADVICE}." if "No space left" in output else ""
        raise EmbeddedTritonError(f"{what} failed:\n{tail}{advice}")


@contextmanager
def _locked(path: Path, progress: Progress) -> Iterator[None]:
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress("Waiting for another process that is preparing Triton's environment")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _site_packages(environment: Path) -> Path:
    return environment / "lib" / f"python{host.PYTHON}" / "site-packages"


def _digest(*parts: bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()[:16]
