"""Clean environments, as users have them."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
UV = str(Path(sys.executable).parent / "uv")
# What the HTTP front shows, and words on it. The last one is the gateway's answer.
PAGES = {
    "/": b"<title>visiongate",
    "/docs": b"DetectObjects",
    "/openapi.json": b'"openapi":"3.1',
    "/v1/models": b'"is_default":true',
}
# Nothing listens there: whatever goes to this machine by way of it fails.
PROXY = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "grpc_proxy"), "http://127.0.0.1:9")


@dataclass(frozen=True)
class Wheels:
    """The built distributions."""

    client: Path
    server: Path


@dataclass(frozen=True)
class Environment:
    """A virtual environment that knows nothing of the checkout, and a working directory outside of it."""

    path: Path
    directory: Path
    extra: Mapping[str, str] = field(default_factory=dict)

    def run(
        self, *command: str, code: int = 0, variables: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run one of its programs and return what it printed; fail on another exit code."""
        done = subprocess.run(
            [self.program(command[0]), *command[1:]],
            cwd=self.directory,
            env=self.variables(variables),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done

    def program(self, name: str) -> str:
        return str(self.path / "bin" / name)

    def variables(self, more: Mapping[str, str] | None = None) -> dict[str, str]:
        own = {name: value for name, value in os.environ.items() if not name.startswith("VISIONGATE_")}
        del own["PYTEST_CURRENT_TEST"]
        return own | {"COLUMNS": "200", "NO_COLOR": "1", **self.extra, **(more or {})}


def uv(*arguments: str | Path) -> None:
    done = subprocess.run([UV, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def make_environment(folder: Path, *packages: str | Path, python: str = sys.executable) -> Environment:
    """Make an environment with these packages, at the versions of the lock."""
    environment = Environment(folder / "environment", folder / "elsewhere")
    environment.directory.mkdir(parents=True)
    uv("venv", "--quiet", "--python", python, environment.path)
    interpreter = environment.program("python")
    constraint = ROOT / "requirements.lock"
    uv("pip", "install", "--quiet", "--python", interpreter, "--constraint", constraint, *packages)
    return environment


def add_exporter(environment: Environment) -> None:
    """Let it import the packages that exporting needs from the tests' own environment: PyTorch is large.

    A folder named by a .pth file is looked at last, and .pth files inside are not read: the checkout, which
    the tests' environment knows by such a file, stays unknown.
    """
    (packages,) = environment.path.glob("lib/python*/site-packages")
    (packages / "exporter.pth").write_text(sysconfig.get_path("purelib") + "\n")


def interpreter(version: str) -> str:
    """Return a Python of this version; skip where there is none that runs."""
    found = [shutil.which(f"python{version}")]
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    found += [str(path) for path in pyenv.glob(f"versions/{version}.*/bin/python")]
    for path in filter(None, found):
        # A version manager's shim may have nothing behind it.
        if subprocess.run([path, "--version"], capture_output=True, check=False).returncode == 0:
            return path
    pytest.skip(f"there is no Python {version} on this machine")


def copy_checkout(folder: Path) -> Path:
    """Copy what a clone of the next commit would hold."""
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    files = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, files.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    return folder


# Without the proxy that the environment names.
DIRECTLY = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@contextlib.contextmanager
def serving(environment: Environment, up: list[str]) -> Iterator[Callable[..., str]]:
    """Serve, with a proxy in the way. Yields a function that asks the server from a folder.

    Whatever was installed: its HTTP front has the page, and what it says of its operations.
    """
    server = subprocess.Popen(
        [environment.program("visiongate"), *up, "--port", "0", "--http-port", "0"],
        cwd=environment.directory,
        env=environment.variables(PROXY),
        stdout=subprocess.PIPE,
        text=True,
    )
    with server:
        assert server.stdout is not None
        address = re.search(r"answers at (\S+) and (\S+)", server.stdout.readline())
        assert address is not None
        variables = PROXY | {"VISIONGATE_SERVER": address[1]}

        def ask(folder: Path, *arguments: str, program: str = "visiongate") -> str:
            here = replace(environment, directory=folder)
            return here.run(program, *arguments, variables=variables).stdout

        try:
            for path, words in PAGES.items():
                with DIRECTLY.open(address[2] + path) as page:
                    assert words in page.read()
            yield ask
        finally:
            server.send_signal(signal.SIGTERM)
        assert server.wait(30) == 0
