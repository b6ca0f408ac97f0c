"""Where the inputs of a job come from."""

from visiongate.batch.inputs.endings import KINDS
from visiongate.batch.inputs.opening import open_source

__all__ = ["KINDS", "open_source"]
