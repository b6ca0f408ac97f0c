"""What a container of the gateway answers at its ports, as the image has them by default."""

import time
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import AbstractContextManager

from images.container import Container

Run = Callable[..., AbstractContextManager[Container]]
"""What the fixture `run` is."""

GRPC, HTTP, STATUS = "127.0.0.1:50051", "http://127.0.0.1:8080", "http://127.0.0.1:9090"
PATIENCE_S = 60


def look(path: str) -> tuple[int, str]:
    """Return the status and the text of a page of the port for probes. It is 0 where nobody answers."""
    try:
        with urllib.request.urlopen(f"{STATUS}{path}", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError as error:
        return 0, str(error)


def wait_until_ready(container: Container) -> None:
    wait_for(container, lambda: look("/readyz")[0] == 200, "ready")


def wait_for(container: Container, is_so: Callable[[], bool], what: str) -> None:
    """Wait until something is so while a container runs. Raise AssertionError with its log."""
    end = time.monotonic() + PATIENCE_S
    while not is_so():
        assert container.runner.poll() is None, f"it ended: {container.log()}"
        assert time.monotonic() < end, f"not {what} in {PATIENCE_S} s: {container.log()}"
        time.sleep(0.02)
