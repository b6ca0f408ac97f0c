"""Lines that C libraries write to standard error become records of our log, a few a minute.

libtiff and others write a line for each fault of a caller's file. These lines bypass Python and the log, are
not JSON, and are as many as the caller likes. The file descriptor is the only way to catch them.
"""

import contextlib
import faulthandler
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator
from typing import TextIO

from gateway.line_limiter import LineLimiter

logger = logging.getLogger(__name__)

# Lines beyond this number a minute are only counted. Longer lines, in characters, are cut.
MAX_LINES_A_MINUTE = 10
MAX_LINE_LENGTH = 300
_MINUTE_S = 60.0

Explain = Callable[[str], str | None]


@contextlib.contextmanager
def logged(explain: Explain = lambda line: None) -> Iterator[None]:
    """Log what is written to file descriptor 2 inside, as warnings, a few a minute.

    `explain` sees every line. For one that it knows it returns a better sentence, empty if it says nothing.

    Python's own writers, `sys.stderr` and the log's handlers, write to the original standard error as before.
    A child process does so only if it is started with `stderr=sys.stderr`.
    """
    python_stderr = sys.stderr
    with contextlib.suppress(OSError):
        python_stderr.flush()
    # The original standard error, under another number.
    with _closing(os.fdopen(os.dup(2), "w", buffering=1, errors="backslashreplace")) as original:
        read_end, write_end = os.pipe()
        # A library may write while it holds Python's lock, without which the reader cannot empty the pipe: a
        # write to a full pipe must fail, not wait.
        os.set_blocking(write_end, False)
        os.dup2(write_end, 2)
        os.close(write_end)
        reader = threading.Thread(target=_read, args=(read_end, explain), name="library output", daemon=True)
        reader.start()
        _redirect(python_stderr, original)
        # If the process crashes, the last lines in the pipe are lost. The stacks of its threads are not.
        had_faulthandler = faulthandler.is_enabled()
        faulthandler.enable(original)
        try:
            yield
        finally:
            # The reader ends with the last writer, unless a child process still has the pipe.
            os.dup2(original.fileno(), 2)
            reader.join(timeout=1)
            _redirect(original, python_stderr)
            faulthandler.disable()
            if had_faulthandler:
                faulthandler.enable(2)


def _redirect(before: TextIO, after: TextIO) -> None:
    """Send what Python prints, and the log, to another stream."""
    sys.stderr = after
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.StreamHandler) and handler.stream is before:
            with contextlib.suppress(OSError):
                handler.flush()
            handler.stream = after


@contextlib.contextmanager
def _closing(stream: TextIO) -> Iterator[TextIO]:
    """Close a stream at the end. If the disk is full, the lines that it has left are lost."""
    try:
        yield stream
    finally:
        with contextlib.suppress(OSError):
            stream.close()


def _read(pipe: int, explain: Explain) -> None:
    limiter = LineLimiter(
        MAX_LINES_A_MINUTE,
        _MINUTE_S,
        lambda count: logger.warning("libraries wrote %d more lines, which are omitted", count),
    )

    def log(line: bytes) -> None:
        # The bytes may be anything, such as a terminal's escape sequences.
        text = "".join(c if c.isprintable() else " " for c in line.decode(errors="backslashreplace")).strip()
        if text:
            sentence = explain(text)
            if sentence != "" and limiter.admit():
                logger.warning("%s", sentence or f"a library says: {_cut(text)}")

    with os.fdopen(pipe, "rb", buffering=0) as file:
        rest = b""
        while part := file.read(1 << 16):
            *lines, rest = (rest + part).split(b"\n")
            # A line without an end must not grow; a character has at most 4 bytes.
            rest = rest[: 4 * MAX_LINE_LENGTH]
            for line in lines:
                log(line)
        log(rest)
        limiter.flush()


def _cut(line: str) -> str:
    return line if len(line) <= MAX_LINE_LENGTH else f"{line[:MAX_LINE_LENGTH]}…"
