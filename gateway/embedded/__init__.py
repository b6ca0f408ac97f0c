"""NVIDIA Triton from pip, run as a child process: for laptops, tests and single hosts."""

from gateway.embedded.error import EmbeddedTritonError
from gateway.embedded.keeper import keep_running
from gateway.embedded.runtime import EmbeddedTriton
from gateway.settings import Settings

__all__ = ["EmbeddedTriton", "EmbeddedTritonError", "in_front_of", "keep_running"]

# Enough: this Triton has loaded its models, and is on this machine.
_MAX_WAIT_S = 60


def in_front_of(triton: EmbeddedTriton, settings: Settings) -> Settings:
    """Return the settings of a gateway for this Triton, with a limit on the wait for its first answer."""
    wait_s = min(settings.triton_wait_s, _MAX_WAIT_S)
    return settings.model_copy(update={"triton": triton.grpc_address, "triton_wait_s": wait_s})
