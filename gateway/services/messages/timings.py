"""The times that a call has measured."""

from gateway import call
from visiongate.v1 import timings_pb2


def timings_message(wanted: bool) -> timings_pb2.Timings | None:
    """Return the current call's times in milliseconds, if the request wants them."""
    current = call.current()
    if not wanted or current is None:
        return None
    seconds = current.stage_seconds
    return timings_pb2.Timings(**{f"{stage}_ms": seconds.get(stage, 0.0) * 1e3 for stage in call.STAGES})
