"""The environment Triton runs in: a virtual environment of its own and a backend directory.

Both lie in the user's cache, are made once, and are moved into place whole: what is there is complete.
"""

import contextlib
import ctypes.util
import fcntl
import hashlib
import importlib.util
import os
import platform
import shlex
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import venv
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import platformdirs

from gateway.embedded.error import EmbeddedTritonError
from gateway.settings_sources import CACHE_VARIABLE

Progress = Callable[[str], None]

_HERE = Path(__file__).parent
_LOCK_FILE = _HERE / "requirements.lock"
_BACKEND_FILE = _HERE / "backends" / "onnxruntime" / "model.py"
_PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
# The last NumPy before 2 has wheels up to Python 3.12; ONNX Runtime's begin at 3.11.
_PYTHONS = ("3.11", "3.12")
_GLIBC = (2, 35)
_INSTEAD = "run NVIDIA's Triton container and `visiongate serve --triton HOST:PORT` instead"
_ELSEWHERE = (
    f"set {CACHE_VARIABLE} to a folder that can be written, that programs can be run from, and that has "
    "500 MB free"
)
# They would send the packages elsewhere than into the environment being made.
_INSTALLER_VARIABLES = ("PIP_PREFIX", "PIP_TARGET")


def cache_directory() -> Path:
    """Where the environment is kept: VISIONGATE_CACHE_DIR, or the user's cache directory."""
    override = os.environ.get(CACHE_VARIABLE)
    if override:
        return Path(override).absolute()
    try:
        return platformdirs.user_cache_path("visiongate")
    except RuntimeError as error:  # no HOME, and no entry in the system's list of users
        raise EmbeddedTritonError(
            f"This user has no home folder for Triton's environment: {_ELSEWHERE}."
        ) from error


def environment_path() -> Path:
    """Return where the environment of these pins and this Python is, or will be."""
    key = _digest(_LOCK_FILE.read_bytes(), sys.version.encode(), sys.base_prefix.encode())
    return cache_directory() / f"triton-{key}"


def ensure_environment(progress: Progress) -> Path:
    """Return the virtual environment that holds Triton and ONNX Runtime, made if it is not there yet."""
    check_platform()
    environment = environment_path()
    cache = environment.parent
    if not is_plain(cache):
        raise EmbeddedTritonError(
            f"Triton cannot run from {cache}: set {CACHE_VARIABLE} to a path without spaces and quotes."
        )
    if not environment.is_dir():
        with _writing(cache):
            cache.mkdir(parents=True, exist_ok=True)
            _check_executable(cache)
            with _locked(environment.with_suffix(".lock"), progress):
                if not environment.is_dir():
                    _make_environment(environment, progress)
    _check_executable(cache)
    return environment


def ensure_backends(environment: Path) -> Path:
    """Return the directory for Triton's --backend-directory, with the current onnxruntime backend in it."""
    key = _digest(environment.name.encode(), _BACKEND_FILE.read_bytes())
    backends = environment.parent / f"backends-{key}"
    if backends.is_dir():
        return backends
    triton = triton_directory(environment)
    with made_whole(backends) as partial:
        # Copies: Triton refuses a backend whose library is a symbolic link to somewhere else.
        shutil.copytree(triton / "backends" / "python", partial / "python")
        stub = triton / "python_backend_stubs" / _PYTHON / "triton_python_backend_stub"
        shutil.copy2(stub, partial / "python")
        (partial / "onnxruntime").mkdir()
        shutil.copy2(_BACKEND_FILE, partial / "onnxruntime")
    return backends


@contextmanager
def made_whole(folder: Path) -> Iterator[Path]:
    """Inside, make a folder of the cache that then moves to its place, whole.

    Of several processes that make it at once the first is right, as all make the same.
    """
    with _writing(cache_directory()):
        folder.parent.mkdir(exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", dir=folder.parent))
        try:
            yield partial
            try:
                partial.rename(folder)
            except OSError:
                if not folder.is_dir():
                    raise
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def is_plain(path: Path) -> bool:
    """Tell whether a shell reads the path as it is: Triton hands paths to one and quotes nothing."""
    return shlex.quote(str(path)) == str(path)


def triton_directory(environment: Path) -> Path:
    """Return the folder of the wheel's Triton: bin, backends, caches, python_backend_stubs."""
    return _site_packages(environment) / "pytriton" / "tritonserver"


def process_environment(environment: Path) -> dict[str, str]:
    """Return the environment variables that tritonserver and its Python processes need."""
    libraries = [_site_packages(environment) / "nvidia_pytriton.libs"]
    libpython = _libpython_directory()
    if libpython is not None:
        libraries.append(libpython)
    inherited = os.environ.get("LD_LIBRARY_PATH")
    return {
        **os.environ,
        "LD_LIBRARY_PATH": os.pathsep.join([*map(str, libraries), *([inherited] if inherited else [])]),
        # The only way to say which packages the embedded interpreter sees: it ignores PYTHONPATH and
        # PYTHONHOME, and takes the virtual environment of the first python3 on PATH.
        "PATH": f"{environment / 'bin'}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        # NumPy there only carries tensors; a thread pool for linear algebra in each process is waste.
        "OPENBLAS_NUM_THREADS": os.environ.get("OPENBLAS_NUM_THREADS", "1"),
    }


def check_platform() -> None:
    """Raise an error that says what to do instead where the wheel's binaries cannot run."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        raise EmbeddedTritonError(
            f"Triton from pip runs on x86-64 Linux only, not on {platform.machine()} {platform.system()}: "
            f"{_INSTEAD}."
        )
    glibc = _glibc_version()
    if glibc is None or glibc < _GLIBC:
        found = "no glibc" if glibc is None else f"glibc {glibc[0]}.{glibc[1]}"
        raise EmbeddedTritonError(
            f"Triton from pip needs glibc {_GLIBC[0]}.{_GLIBC[1]} or newer and this system has {found}: "
            f"{_INSTEAD}."
        )
    if _PYTHON not in _PYTHONS or sys.implementation.name != "cpython":
        raise EmbeddedTritonError(
            f"Triton from pip runs on CPython {' and '.join(_PYTHONS)}, not on "
            f"{platform.python_implementation()} {_PYTHON}: use one of those, or {_INSTEAD}."
        )
    _libpython_directory()


def _glibc_version() -> tuple[int, int] | None:
    try:
        name, version = (os.confstr("CS_GNU_LIBC_VERSION") or "").split()
        major, minor = version.split(".")[:2]
    except (ValueError, OSError):  # musl knows no such name
        return None
    return (int(major), int(minor)) if name == "glibc" else None


def _libpython_directory() -> Path | None:
    """Return the folder of Python's shared library, None where the loader finds it without help."""
    library = f"libpython{_PYTHON}.so.1.0"
    for directory in (sysconfig.get_config_var("LIBDIR"), f"{sys.base_prefix}/lib"):
        if directory and Path(directory, library).exists():
            return Path(directory)
    if ctypes.util.find_library(f"python{_PYTHON}"):
        return None
    raise EmbeddedTritonError(
        f"Triton's Python backend needs {library}, which this Python was built without: install the system's "
        f"libpython{_PYTHON} package, use a Python with a shared library (uv's have one), or {_INSTEAD}."
    )


@contextmanager
def _writing(cache: Path) -> Iterator[None]:
    """Say what to do where something cannot be written there."""
    try:
        yield
    except OSError as error:
        raise EmbeddedTritonError(
            f"Triton's environment cannot be kept in {cache} ({error.strerror or error}): {_ELSEWHERE}."
        ) from error


def _check_executable(cache: Path) -> None:
    if os.statvfs(cache).f_flag & os.ST_NOEXEC:
        raise EmbeddedTritonError(f"Programs cannot be run from {cache} (mounted noexec): {_ELSEWHERE}.")


def _make_environment(environment: Path, progress: Progress) -> None:
    # Only the holder of the lock is here, so a partial one is what a killed process left.
    partial = environment.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    progress(f"Preparing Triton's environment in {environment} (once; 300 MB)")
    try:
        venv.create(partial, symlinks=True)
        python = partial / "bin" / "python3"
        _run(_installer(python), cwd=partial, what="installing Triton's environment")
        _run(
            [str(python), "-c", "import numpy, onnxruntime; assert numpy.__version__ < '2'"],
            cwd=partial,
            what="checking Triton's environment",
        )
        if not (triton_directory(partial) / "bin" / "tritonserver").is_file():
            raise EmbeddedTritonError("installing Triton's environment failed: tritonserver is not in it")
        partial.rename(environment)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    progress("Triton's environment is ready")


def _installer(python: Path) -> list[str]:
    """Return the command that installs the pinned packages into the environment of `python`."""
    packages = ["--no-deps", "--only-binary", ":all:", "--requirement", str(_LOCK_FILE)]
    uv = shutil.which("uv")
    if uv is not None and subprocess.run([uv, "--version"], capture_output=True, check=False).returncode != 0:
        uv = None  # a version manager's shim, and nothing behind it
    if uv is not None or importlib.util.find_spec("uv"):
        command = [uv] if uv is not None else [sys.executable, "-m", "uv"]
        return [*command, "pip", "install", "--python", str(python), "--compile-bytecode", *packages]
    if importlib.util.find_spec("pip"):
        return [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-user", *packages]
    raise EmbeddedTritonError(f"Installing Triton needs uv or pip: install one of them, or {_INSTEAD}.")


def _run(command: list[str], *, cwd: Path, what: str) -> None:
    # In the new environment's folder, so that no project's settings (constraints, overrides) have a say.
    variables = {name: value for name, value in os.environ.items() if name not in _INSTALLER_VARIABLES}
    # A group of its own, since pip works in a child, which must not outlive this process's interruption.
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
        advice = f"\nThe disk is full: {_ELSEWHERE}." if "No space left" in output else ""
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
    return environment / "lib" / f"python{_PYTHON}" / "site-packages"


def _digest(*parts: bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()[:16]
