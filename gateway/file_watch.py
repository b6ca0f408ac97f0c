"""Files that may be replaced while the server runs."""

from pathlib import Path


class FileWatch:
    """Tells when one of some files has changed, by their state alone: no file is opened."""

    def __init__(self, *paths: Path) -> None:
        self._paths = paths
        self._state = self._look()

    def has_changed(self) -> bool:
        """Whether a file was written, replaced or removed since this was last asked, or since the start."""
        before, self._state = self._state, self._look()
        return self._state != before

    def _look(self) -> list[tuple[int, int, int] | None]:
        return [_state(path) for path in self._paths]


def _state(path: Path) -> tuple[int, int, int] | None:
    try:
        # Of what a link points to: Kubernetes replaces a mounted secret by turning a link.
        stat = path.stat()
    except OSError:
        return None
    # Not the time of writing: a file moved into place may be older than the one before, and one that became
    # readable has not been written.
    return stat.st_ctime_ns, stat.st_size, stat.st_ino
