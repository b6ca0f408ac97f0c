"""Attention as one operator of ONNX Runtime's own, in the graphs that it runs.

The exporters' plain graphs write the scores of all pairs to memory several times. `MultiHeadAttention` of the
domain com.microsoft never does.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_IS_FUSED = ContextVar("attention_is_fused", default=False)


@contextmanager
def fused() -> Iterator[None]:
    """Let the graphs that are exported meanwhile have attention as one operator."""
    token = _IS_FUSED.set(True)
    try:
        yield
    finally:
        _IS_FUSED.reset(token)


def is_fused() -> bool:
    """Return whether a graph that is exported now may have ONNX Runtime's own operators."""
    return _IS_FUSED.get()
