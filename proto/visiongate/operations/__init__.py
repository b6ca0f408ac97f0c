"""The client's methods, one module for each task: arguments to a request, a response to results."""

from visiongate.operations.operation import Operation

__all__ = ["Operation"]
