"""Coming again to a server that was full."""

import time

import grpc

from visiongate.errors import VisiongateError

LONGEST_PAUSE_S = 10.0


class Attempts:
    """Of one call, which may take `timeout` seconds in all."""

    def __init__(self, timeout: float, wait_when_full: bool) -> None:
        self._end = time.monotonic() + timeout
        self._wait_when_full = wait_when_full
        self._factor = 1

    @property
    def left_s(self) -> float:
        """Seconds that the next attempt may take."""
        return self._end - time.monotonic()

    def pause_s(self, failure: grpc.RpcError) -> float:
        """Seconds to wait before the next attempt; raises VisiongateError where there is none.

        The server says the least, to each caller another; RetryInfo asks for more each time.
        """
        error = VisiongateError.from_rpc(failure)
        if error.retry_s is None or not self._wait_when_full:
            raise error from None
        pause = max(error.retry_s, min(error.retry_s * self._factor, LONGEST_PAUSE_S))
        if pause >= self.left_s:
            raise error from None
        self._factor *= 2
        return pause
