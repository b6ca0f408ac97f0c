"""Runs a command over a folder as its users do: a process, whose server is one of the tests'."""

import asyncio
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from visiongate import AsyncClient

COMMAND = str(Path(sys.executable).parent / "visiongate")
# No proxy of the machine that the tests run on.
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}


@dataclass(frozen=True)
class Done:
    """How a process has ended, and what it has said."""

    code: int
    stdout: str
    stderr: str


async def run_command(client: AsyncClient, *arguments: str, cwd: Path) -> Done:
    """Run `visiongate` in the folder `cwd`, where its cache is too, with the server of `client`."""
    process = await asyncio.create_subprocess_exec(
        COMMAND,
        *arguments,
        cwd=cwd,
        env={
            **ENVIRONMENT,
            "VISIONGATE_SERVER": client.address,
            "XDG_CACHE_HOME": str(cwd / "cache"),
            "COLUMNS": "200",
            "NO_COLOR": "1",
        },
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    stdout, stderr = await process.communicate()
    assert process.returncode is not None
    return Done(process.returncode, stdout.decode(), stderr.decode())
