"""API keys: the file of their hashes, and the name of the caller who sends a key.

A key is 32 random bytes. Nobody can guess it, so one round of SHA-256 without a salt is enough: slow hashes
and salts protect passwords, which people choose. A key is looked up by its hash. The time that takes says
nothing useful: whoever learned of a hash in the file could not make a key that has it.
"""

import fcntl
import hashlib
import logging
import os
import re
import secrets
import tempfile
import time
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gateway import metrics
from gateway.errors import UnauthenticatedError
from gateway.file_watch import FileWatch

logger = logging.getLogger(__name__)

# Scanners for leaked secrets find keys by this prefix.
PREFIX = "vg_"
KEY_BYTES = 32
# A longer text, in characters, is not hashed: a caller without a key must not cost much.
MAX_KEY_LENGTH = 256
# Names become labels of metrics and words of log lines.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
HEADER = "# API keys of visiongate, written by `visiongate keys`: a caller's name, and the hash of its key.\n"


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A caller's name, and the hash of its key."""

    name: str
    sha256: bytes
    created: datetime

    @classmethod
    def generate(cls, name: str) -> tuple["ApiKey", str]:
        """Return a new key and its text, which is not stored anywhere. Raise ValueError for a bad name."""
        if not NAME.fullmatch(name):
            raise ValueError(
                f"{name!r} is not a name for a key: it must be at most 64 letters, digits, '.', '_' and '-', "
                "and begin with a letter or a digit"
            )
        text = PREFIX + secrets.token_urlsafe(KEY_BYTES)
        return cls(name, _sha256(text), datetime.now(UTC).replace(microsecond=0)), text


class ApiKeys:
    """The gateway's authenticator: names callers by the keys of a file, which may change at any time.

    If the file breaks or disappears, the last good keys stay in force, and the log says so. Raises ValueError
    if the file is bad at the start.
    """

    def __init__(self, path: Path, check_every_s: float = 1) -> None:
        self._path = path
        self._check_every_s = check_every_s
        # Before the file is read: a change meanwhile is then seen at the next check.
        self._watch = FileWatch(path)
        self._names = _names_by_hash(path)
        self._checked_at_s = time.monotonic()
        if not self._names:
            logger.warning("%s has no API keys: every call will be refused", path)

    def __len__(self) -> int:
        """Return how many names there are."""
        return len(self._names)

    def authenticate(self, metadata: Mapping[str, str]) -> str:
        """Return the name of the key in `x-api-key: KEY` or `authorization: Bearer KEY`.

        `x-api-key` goes first: `authorization` may be for a proxy on the way. Raises UnauthenticatedError.
        """
        self._reload_if_changed()
        key = metadata.get("x-api-key", "")
        if not key:
            scheme, _, rest = metadata.get("authorization", "").partition(" ")
            key = rest.strip() if scheme.lower() == "bearer" else ""
        if not key:
            metrics.REFUSALS.labels("key_missing").inc()
            raise UnauthenticatedError(
                "no API key: send one as 'authorization: Bearer KEY' or 'x-api-key: KEY'", "KEY_MISSING"
            )
        caller = self._names.get(_sha256(key)) if len(key) <= MAX_KEY_LENGTH else None
        if caller is None:
            metrics.REFUSALS.labels("key_unknown").inc()
            raise UnauthenticatedError("the API key is not valid", "KEY_UNKNOWN")
        return caller

    def _reload_if_changed(self) -> None:
        now = time.monotonic()
        if now - self._checked_at_s < self._check_every_s:
            return
        self._checked_at_s = now
        if not self._watch.has_changed():
            return
        try:
            self._names = _names_by_hash(self._path)
        except ValueError as error:
            metrics.RELOADS.labels("keys", "failed").inc()
            logger.error("%s; the previous API keys stay in force", error)
        else:
            metrics.RELOADS.labels("keys", "ok").inc()
            logger.info("%s has changed: %d API keys", self._path, len(self._names))


def read_keys(path: Path) -> tuple[ApiKey, ...]:
    """Read the keys of a file; raise ValueError if it cannot be read or is not a file of keys."""
    try:
        text = path.read_text(encoding="utf-8")
        tables = tomllib.loads(text)
    except OSError as error:
        raise ValueError(f"cannot read the API keys in {path}: {error.strerror}") from error
    except ValueError as error:
        raise ValueError(f"{path} is not a file of API keys: {error}") from error
    if not text:
        # The file is probably being written: a file without keys still has its first line.
        raise ValueError(f"{path} is not a file of API keys: it is empty")
    return tuple(_parse(path, name, table) for name, table in tables.items())


@contextmanager
def changing(path: Path) -> Iterator[list[ApiKey]]:
    """Lend the list of a file's keys, empty if there is no file, and write the changed list at the end.

    One process at a time: a second one waits. Raises ValueError if the file cannot be read or written.
    """
    path = path.resolve()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise ValueError(f"cannot write the API keys in {path}: {error.strerror}") from error
    try:
        # The folder is locked, since each change replaces the file.
        fcntl.flock(folder, fcntl.LOCK_EX)
        keys = list(read_keys(path)) if path.exists() else []
        yield keys
        try:
            write_keys(path, keys)
        except OSError as error:
            raise ValueError(f"cannot write the API keys in {path}: {error.strerror}") from error
    finally:
        os.close(folder)


def write_keys(path: Path, keys: Iterable[ApiKey]) -> None:
    """Replace the file in one step, so that no reader sees half of it. Only its owner may read it."""
    # A temporary file has the mode 0600 from its creation.
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    temporary = Path(name)
    try:
        with open(handle, "w", encoding="utf-8") as file:
            file.write("\n".join([HEADER, *map(_format, keys)]))
            file.flush()
            os.fsync(file.fileno())
        if os.geteuid() == 0 and path.exists():
            # Otherwise a key that root adds would lock out the gateway, which runs as another user.
            owner = path.stat()
            os.chown(temporary, owner.st_uid, owner.st_gid)
        temporary.replace(path)
    except BaseException:
        temporary.unlink()
        raise


def _format(key: ApiKey) -> str:
    return f'["{key.name}"]\ncreated = {key.created.isoformat()}\nsha256 = "{key.sha256.hex()}"\n'


def _parse(path: Path, name: str, table: Any) -> ApiKey:
    if isinstance(table, dict) and "salt" in table:
        raise ValueError(
            f"{path} has keys with salts, which are not read any more: move the file away, and make the keys "
            "anew with `visiongate keys add`"
        )
    try:
        key = ApiKey(name, bytes.fromhex(table["sha256"]), table["created"])
        valid = (
            NAME.fullmatch(name)
            and len(key.sha256) == hashlib.sha256().digest_size
            and isinstance(key.created, datetime)
        )
    except (KeyError, TypeError, ValueError):
        valid = False
    if not valid:
        raise ValueError(
            f"{path} is not a file of API keys: {name!r} is not a name with created and sha256 below it"
        )
    return key


def _names_by_hash(path: Path) -> dict[bytes, str]:
    keys = read_keys(path)
    metrics.know("caller", [key.name for key in keys])
    return {key.sha256: key.name for key in keys}


def _sha256(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
