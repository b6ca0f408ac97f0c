"""NVIDIA Triton from pip, run as a child process: for laptops, tests and CPU hosts."""

from gateway.embedded.environment import EmbeddedTritonError
from gateway.embedded.runtime import EmbeddedTriton

__all__ = ["EmbeddedTriton", "EmbeddedTritonError"]
