"""Optional packages: whether they are here, and how to install them where they are not."""

from collections.abc import Mapping, Sequence
from importlib.util import find_spec

from gateway.places import checkout

# An extra's modules by the names they are imported by.
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
}
# How a checkout installs them, in its own environment and with its pinned versions.
_IN_A_CHECKOUT = {"export": "make exporter"}


class MissingPackagesError(ValueError):
    """An optional part is not installed; the message is one sentence with the command that does it."""


def install_hint(extra: str) -> str:
    """The command that installs an extra."""
    if checkout() is not None and extra in _IN_A_CHECKOUT:
        return _IN_A_CHECKOUT[extra]
    return f"pip install 'visiongate-server[{extra}]'"


def require(extra: str, what: str) -> None:
    """Raise MissingPackagesError where a package of the extra, which `what` needs, is not installed.

    Nothing is imported: that takes seconds.
    """
    missing = [name for name in MODULES[extra] if find_spec(name) is None]
    if missing:
        raise MissingPackagesError(
            f"{what} needs more packages ({', '.join(missing)}): {install_hint(extra)}"
        )
