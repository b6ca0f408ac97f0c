"""Optional packages: a check that they are installed, and the command that installs them."""

from collections.abc import Mapping, Sequence
from importlib.util import find_spec

from gateway.places import checkout

# The modules of each extra that exporting needs, by their names in import statements.
MODULES: Mapping[str, Sequence[str]] = {
    "export": (
        "cv2",
        "doctr",
        "huggingface_hub",
        "matplotlib",
        "onnx",
        "onnxruntime",
        "onnxscript",
        "open_clip",
        "rich",
        "safetensors",
        "timm",
        "tokenizers",
        "torch",
        "torchvision",
        "transformers",
        "typer",
    ),
    "onnx": ("onnx", "onnxruntime", "yaml"),
    "ocr": ("onnx", "onnxruntime", "rapidocr", "yaml"),
}
# The commands in a checkout, which has its own environment and pinned versions.
_IN_A_CHECKOUT = {"export": "make exporter", "onnx": "make onnx", "ocr": "make ocr"}


class MissingPackagesError(ValueError):
    """Packages of an extra are missing. The message is one sentence with the command that installs them."""


def install_hint(extra: str) -> str:
    """Return the command that installs an extra."""
    if checkout() is not None and extra in _IN_A_CHECKOUT:
        return _IN_A_CHECKOUT[extra]
    return f"pip install 'visiongate-server[{extra}]'"


def require(extra: str, what: str) -> None:
    """Raise MissingPackagesError, which begins with `what`, if a package of the extra is not installed.

    No package is imported, which would take seconds.
    """
    missing = [name for name in MODULES[extra] if find_spec(name) is None]
    if missing:
        raise MissingPackagesError(
            f"{what} needs more packages ({', '.join(missing)}): {install_hint(extra)}"
        )
