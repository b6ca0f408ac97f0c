"""A Chromium for tests of pages: the machine's own, or one that is downloaded once."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from playwright.async_api import Browser, BrowserType, Error

from npm import downloaded

# Of the npm package @sparticuz/chromium, for machines whose own package manager is out of reach.
_VERSION = "147.0.0"
_UNPACK_S = 120
# What few machines without a desktop have, such as NSS. They come with it.
_LIBRARIES = "al2023/lib"
_FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
)


async def launch(kind: BrowserType, *flags: str) -> Browser:
    """Start a headless Chromium; skip the test where none is to be had."""
    arguments = [*_FLAGS, *flags]
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if found := shutil.which(name):
            return await kind.launch(executable_path=found, args=arguments)
    folder = _downloaded()
    environment: dict[str, str | float | bool] = {**os.environ, "LD_LIBRARY_PATH": str(folder / _LIBRARIES)}
    try:
        return await kind.launch(executable_path=folder / "chromium", args=arguments, env=environment)
    except Error as error:
        pytest.skip(f"no Chromium: there is none on the PATH, and that of npm does not start here: {error}")


def _downloaded() -> Path:
    return downloaded("Chromium", "@sparticuz/chromium", _VERSION, _unpack)


def _unpack(folder: Path) -> None:
    script = "import('@sparticuz/chromium').then(({ default: it }) => it.executablePath())"
    subprocess.run(
        ("node", "--eval", script),
        cwd=folder,
        # It unpacks itself into the temporary directory, and on such a host its libraries, too.
        env={**os.environ, "TMPDIR": str(folder), "AWS_EXECUTION_ENV": "AWS_Lambda_nodejs22.x"},
        capture_output=True,
        text=True,
        check=True,
        timeout=_UNPACK_S,
    )
