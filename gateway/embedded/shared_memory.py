"""The shared memory through which Triton's processes exchange tensors: whether there is enough."""

import os
from collections.abc import Callable
from pathlib import Path

from gateway.embedded.error import EmbeddedTritonError

FOLDER = Path("/dev/shm")  # noqa: S108 - the kernel's folder, not a temporary file
# In bytes. A process of a model takes 1 MiB before its first request.
_MIN_FREE, _ADVISED_TOTAL = 16 << 20, 256 << 20
_HOW_TO_ENLARGE = "for a container --shm-size=1g, in Kubernetes an emptyDir of medium Memory mounted there"


def check(progress: Callable[[str], None]) -> None:
    """Raise an EmbeddedTritonError that says what to do if there is too little; warn if there is little."""
    try:
        size = os.statvfs(FOLDER)
    except OSError as error:
        raise unusable(error) from error
    total, free = (blocks * size.f_frsize for blocks in (size.f_blocks, size.f_bavail))
    if free < _MIN_FREE:
        raise EmbeddedTritonError(
            f"{FOLDER} has {free >> 20} MiB free, too little for Triton: make it larger ({_HOW_TO_ENLARGE})"
        )
    if total < _ADVISED_TOTAL:
        progress(f"{FOLDER} is under {_ADVISED_TOTAL >> 20} MiB: large batches may fail ({_HOW_TO_ENLARGE})")


def unusable(error: OSError) -> EmbeddedTritonError:
    """Return the error that says what to do if the memory cannot be used."""
    return EmbeddedTritonError(
        f"{FOLDER}, through which Triton's processes exchange tensors, cannot be used ({error.strerror}): "
        f"make it writable ({_HOW_TO_ENLARGE})"
    )
