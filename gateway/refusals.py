"""Calls that are refused because the server is full, or because their caller has its share of it."""

import random
from typing import NoReturn

from gateway import metrics
from gateway.callers import Caller, Portions
from gateway.errors import OverloadedError

# A random pause each: callers that are refused together should not come back together.
_MIN_RETRY_S, _MAX_RETRY_S = 0.5, 1.5


def refuse(message: str, reason: str) -> NoReturn:
    """Raise OverloadedError, and count it under `reason`."""
    metrics.REFUSALS.labels(reason).inc()
    raise OverloadedError(message, reason, retry_s=random.uniform(_MIN_RETRY_S, _MAX_RETRY_S))  # noqa: S311


def check_share(portions: Portions, caller: Caller, more: int, what: str) -> None:
    """Raise OverloadedError if a caller would have over its share with so many more."""
    if not portions.has_share(caller, more):
        refuse(
            f"{caller.words} has {portions.taken_by(caller)} of the server's {portions.amount} {what}, and "
            f"the limit of one caller is {portions.most_for(caller)}",
            "caller",
        )
