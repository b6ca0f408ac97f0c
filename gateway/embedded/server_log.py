"""The output of tritonserver: forwarded line by line, with the last lines kept to explain a failure."""

import json
import re
import threading
from collections import deque
from collections.abc import Callable, Iterable
from typing import IO

_MAX_LINES = 1000
_MAX_EXPLAINING_LINES = 20
# E1124 01:50:23.149956 6767 model_lifecycle.cc:642] "failed to load 'toy' version 1: …\n…"
_LOGGED = re.compile(r'(?P<level>[A-Z])\d{4} \S+ \d+ \S+\] "?(?P<message>.*)')
# Lines that tritonserver writes before it has a log, and when it gives up.
_PLAIN_ERROR = re.compile(r"error: .*|Bad option.*|Invalid option.*|.*: unrecognized option .*")
_LOADING = re.compile(r"loading: (\S+):\d+")
_LOADED = re.compile(r"(?:successfully loaded|failed to load) '(\S+)'")
# Begins what our backend tells the operator: the constant MARK there.
_FOR_OPERATOR = "[placement] "
# tritonserver writes it on every host without a GPU.
_HARMLESS = "CudaDriverHelper has not been initialized."


class ServerLog:
    """Reads a server's output in its own thread until the last process that writes to it has ended."""

    def __init__(self, stream: IO[str], forward: Callable[[str], None] | None) -> None:
        self._lines: deque[str] = deque(maxlen=_MAX_LINES)
        self._forward = forward
        self._stream = stream
        self._thread = threading.Thread(target=self._read, name="triton-log", daemon=True)
        self._thread.start()

    def close(self, timeout_s: float) -> None:
        """Wait for the end of the output, which comes when the server has ended."""
        self._thread.join(timeout_s)

    def lines(self) -> list[str]:
        """Return the last lines."""
        return list(self._lines)

    def has(self, text: str) -> bool:
        """Tell whether one of the last lines contains the text."""
        return any(text in line for line in list(self._lines))

    def _read(self) -> None:
        with self._stream as stream:
            for raw in stream:
                line = raw.rstrip("\n")
                self._lines.append(line)
                if self._forward is not None:
                    try:
                        self._forward(line)
                    except Exception:
                        # Whatever fails in the receiver: a pipe that nobody reads would stop the server.
                        self._forward = None


def explanation(lines: Iterable[str]) -> str:
    """Return the lines that say why the server failed: its errors, or the last lines if there are none."""
    lines = [line for line in lines if line.strip()]
    return "\n".join((_errors(lines) or lines)[-_MAX_EXPLAINING_LINES:])


def last_words(lines: Iterable[str]) -> str:
    """Return the last error among the last lines, or the last line if there is none, in one line."""
    lines = [line for line in lines if line.strip()][-_MAX_EXPLAINING_LINES:]
    words = _errors(lines)[-1:] or [_message(line) for line in lines[-1:]]
    return " ".join(" ".join(words).split())


def still_loading(lines: Iterable[str]) -> list[str]:
    """Return the models that the server has begun to load, or to warm up, and is not done with."""
    loading: dict[str, None] = {}  # in order
    for message in map(_message, lines):
        if begun := _LOADING.match(message):
            loading[begun[1]] = None
        elif done := _LOADED.match(message):
            loading.pop(done[1], None)
    return list(loading)


def for_operator(lines: Iterable[str]) -> list[str]:
    """Return what the models' processes say to the operator, each sentence once: which work is on the CPU."""
    messages = {_message(line): None for line in lines if _FOR_OPERATOR in line}
    return [message.removeprefix(_FOR_OPERATOR) for message in messages]


def _errors(lines: Iterable[str]) -> list[str]:
    """Return the errors among the lines, readable, each once."""
    messages: dict[str, None] = {}  # in order
    for line in lines:
        logged = _LOGGED.fullmatch(line)
        if _PLAIN_ERROR.fullmatch(line) or (logged and logged["level"] == "E"):
            messages[_message(line)] = None
    return [
        message
        for message in messages
        # "failed to load" says the same, with the model's name.
        if message != _HARMLESS and not message.startswith("ERROR: Failed to create instance")
    ]


def _message(line: str) -> str:
    """Return what a line of the log says, without when and where."""
    logged = _LOGGED.fullmatch(line)
    return _readable(logged["message"]) if logged else line


def _readable(message: str) -> str:
    """Undo the log's quoting, and drop the Python traceback after the error's own words."""
    try:
        text = str(json.loads(f'"{message}'))
    except ValueError:
        text = message.removesuffix('"')
    return text.split("\n\nAt:\n")[0].strip()
