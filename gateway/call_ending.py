"""How the work of a call ends: what its log line and its caller are told of an error."""

import asyncio
import logging
from contextlib import AbstractContextManager
from types import TracebackType

from gateway.call import Call
from gateway.call_context import Context
from gateway.call_rules import CallRules
from gateway.errors import StatusError, end_of, forget_frames, unexpected

logger = logging.getLogger(__name__)


class ending(AbstractContextManager["ending"]):  # noqa: N801 - it reads as the function that it could be
    """Catch the errors of a call's work for good: `error` is what its caller is to be told.

    A `StatusError` is told as it is, and anything unexpected as INTERNAL without its text. Cancellation goes
    on: gRPC cancels at the caller's deadline, and when it hangs up.

    A class and no generator, as all that every call passes.
    """

    __slots__ = ("_call", "_context", "_rules", "error")

    def __init__(self, call: Call, context: Context, rules: CallRules) -> None:
        self._call = call
        self._context = context
        self._rules = rules
        self.error: StatusError | None = None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        call = self._call
        match error:
            case asyncio.CancelledError():
                if call.end.fault == "none":
                    remaining = self._context.time_remaining()
                    call.end = end_of(
                        error,
                        is_late=remaining is not None and remaining <= 0,
                        is_stopped=self._rules.is_cut_off,
                    )
            case StatusError():
                call.end = end_of(error)
                self.error = error
            case Exception():
                # The text may name paths or other callers' data: it goes to the log alone.
                logger.error("%s failed", call.method, exc_info=error)
                call.end = end_of(error)
                self.error = unexpected(call.end)
            case _:
                return False
        forget_frames(error)
        return self.error is not None
