"""The peers' environments, each below build/peers, with these versions and what they ask for."""

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

FOLDER = Path(__file__).parents[3] / "build" / "peers"

# LitServe 0.2.19 does not start with Starlette 1: it needs the last one before.
PINS = {
    "fastapi": (
        "fastapi==0.165.0",
        "starlette==1.10.0",
        "uvicorn==0.54.0",
        "uvloop==0.23.0",
        "httptools==0.9.0",
        "python-multipart==0.0.34",
    ),
    "litserve": (
        "litserve==0.2.19",
        "starlette==0.52.1",
        "fastapi==0.163.2",
        "uvicorn==0.54.0",
        "uvloop==0.23.0",
        "httptools==0.9.0",
    ),
    "rayserve": ("ray[serve]==2.60.0",),
}
NAMES = {"fastapi": "FastAPI", "litserve": "LitServe", "rayserve": "Ray Serve"}


def python(peer: str) -> Path:
    """Return the Python of a peer's environment, which is made now if it is not there as pinned.

    The packages that compute are those of this Python's own environment. Raises CalledProcessError.
    """
    alike = (f"{name}=={version(name)}" for name in ("onnxruntime", "pillow", "numpy"))
    pins = [*PINS[peer], *alike]
    folder = FOLDER / peer
    mark, interpreter = folder / "installed", folder / "bin" / "python"
    if mark.is_file() and mark.read_text() == "\n".join(pins):
        return interpreter
    uv = Path(sys.executable).with_name("uv")
    subprocess.run([uv, "venv", "--quiet", "--clear", "--python", sys.executable, folder], check=True)
    subprocess.run([uv, "pip", "install", "--quiet", "--python", interpreter, *pins], check=True)
    mark.write_text("\n".join(pins))
    return interpreter


if __name__ == "__main__":
    for name in PINS:
        print(python(name))
