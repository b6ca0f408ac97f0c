"""Files that may be replaced while the server runs."""

from pathlib import Path


class FileWatch:
    """Tells when one of several files has changed, by their state alone: no file is opened."""

    def __init__(self, *paths: Path) -> None:
        self._paths = paths
        self._state = self._read_state()

    def has_changed(self) -> bool:
        """Tell if a file was written, replaced or removed since the last call, or since the start."""
        before, self._state = self._state, self._read_state()
        return self._state != before

    def _read_state(self) -> list[tuple[int, int, int] | None]:
        return [_state(path) for path in self._paths]


def _state(path: Path) -> tuple[int, int, int] | None:
    try:
        # Of the file that a link points to: Kubernetes replaces a mounted secret by changing a link.
        stat = path.stat()
    except OSError:
        return None
    # Not the modification time: a file moved into place may be older than the one before, and a file that
    # becomes readable is not modified.
    return stat.st_ctime_ns, stat.st_size, stat.st_ino
