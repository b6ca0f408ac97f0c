"""NVIDIA Triton from pip, run as a child process: for laptops, tests and CPU hosts."""

from gateway.embedded.error import EmbeddedTritonError
from gateway.embedded.runtime import EmbeddedTriton
from gateway.settings import Settings

__all__ = ["EmbeddedTriton", "EmbeddedTritonError", "in_front_of"]

# It has loaded its models, and is on this machine.
_LONGEST_WAIT_S = 60


def in_front_of(triton: EmbeddedTriton, settings: Settings) -> Settings:
    """Return the settings for a gateway of this Triton, which does not wait for ever for its first answer."""
    longest = min(settings.triton_wait_s, _LONGEST_WAIT_S)
    return settings.model_copy(update={"triton": triton.grpc_address, "triton_wait_s": longest})
