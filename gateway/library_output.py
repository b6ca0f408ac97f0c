"""What C libraries write to standard error becomes a few records of our log.

libtiff and others write a line for each oddity of a caller's file, past Python and past the log: as many as
the caller likes, and no JSON. There is no other hook for them than the file descriptor.
"""

import contextlib
import faulthandler
import logging
import os
import sys
import threading
import time
from collections.abc import Iterator
from typing import TextIO

logger = logging.getLogger(__name__)

# Of a minute, lines are logged up to this number and this length; the others are counted.
LINES_A_MINUTE = 10
MAX_LINE = 300
_MINUTE_S = 60.0


@contextlib.contextmanager
def logged() -> Iterator[None]:
    """Inside, what is written to file descriptor 2 is logged as warnings, a few a minute.

    Python's own writers, `sys.stderr` and the log's handlers, go on to write where they did. Child processes
    that should do so too are to be given `stderr=sys.stderr`.
    """
    python_stderr = sys.stderr
    python_stderr.flush()
    # The original, under another number.
    with os.fdopen(os.dup(2), "w", buffering=1, errors="backslashreplace") as original:
        read_end, write_end = os.pipe()
        # A library may write while it holds the interpreter's lock, without which the reader cannot empty the
        # pipe: when it is full, a write has to fail, not to wait.
        os.set_blocking(write_end, False)
        os.dup2(write_end, 2)
        os.close(write_end)
        reader = threading.Thread(target=_read, args=(read_end,), name="library output", daemon=True)
        reader.start()
        _redirect(python_stderr, original)
        # The pipe's last lines are lost where the process crashes; the stacks of its threads are not.
        had_faulthandler = faulthandler.is_enabled()
        faulthandler.enable(original)
        try:
            yield
        finally:
            # With the last writer gone the reader ends, unless a child process still has the pipe.
            os.dup2(original.fileno(), 2)
            reader.join(timeout=1)
            _redirect(original, python_stderr)
            faulthandler.disable()
            if had_faulthandler:
                faulthandler.enable(2)


def _redirect(before: TextIO, after: TextIO) -> None:
    """To another stream: what Python prints, and the log."""
    sys.stderr = after
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.StreamHandler) and handler.stream is before:
            handler.setStream(after)


def _read(pipe: int) -> None:
    limiter = _Limiter()
    with os.fdopen(pipe, "rb", buffering=0) as file:
        rest = b""
        while part := file.read(1 << 16):
            # What has no end of line is no longer than a line may be.
            *lines, rest = (rest + part).split(b"\n")
            rest = rest[: 4 * MAX_LINE]
            for line in lines:
                limiter.log(line)
        limiter.log(rest)
        limiter.tell_left_out()


class _Limiter:
    """Logs the first lines of each minute, and with the first of a later one how many more there were."""

    def __init__(self) -> None:
        self._start = -_MINUTE_S
        self._logged = self._left_out = 0

    def log(self, line: bytes) -> None:
        # No escape sequences of terminals, and whatever the bytes are.
        text = "".join(c if c.isprintable() else " " for c in line.decode(errors="backslashreplace")).strip()
        if not text:
            return
        now = time.monotonic()
        if now - self._start >= _MINUTE_S:
            self.tell_left_out()
            self._start, self._logged = now, 0
        if self._logged < LINES_A_MINUTE:
            self._logged += 1
            logger.warning("a library says: %s", text if len(text) <= MAX_LINE else f"{text[:MAX_LINE]}…")
        else:
            self._left_out += 1

    def tell_left_out(self) -> None:
        if self._left_out:
            logger.warning("libraries said %d lines more, which are left out", self._left_out)
            self._left_out = 0
