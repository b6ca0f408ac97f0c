"""Image ids: the names by which a caller gives an image again, without sending it.

An id is the image's content hash and a tag, which takes the server's secret to make. Each caller has tags of
its own. So nobody can use by its id an image that somebody else sent, nor ask by an id whether it is there.
Inside, images are known by their content hash alone, and callers that send the same file share what is kept
of it: the time of the answer may tell them that somebody sent it before.
"""

import hashlib
import hmac
import secrets
from pathlib import Path

MIN_SECRET_BYTES = 32
_HASH_DIGITS = 2 * hashlib.sha256().digest_size
_TAG_DIGITS = 2 * 16


class ImageIds:
    """Makes and reads ids. Servers with the same secret make the same ids, and read each other's."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def make(self, content_hash: str, caller: str) -> str:
        """Return the id of an image, for a caller of this name. `content_hash` is SHA-256 in hex digits."""
        tag = hmac.digest(self._secret, f"{content_hash} {caller}".encode(), "sha256").hex()
        return content_hash + tag[:_TAG_DIGITS]

    def content_hash(self, image_id: str, caller: str) -> str | None:
        """Return the content hash that an id names, or None if it is not an id of this caller's."""
        content_hash = image_id[:_HASH_DIGITS]
        expected = self.make(content_hash, caller)
        return content_hash if hmac.compare_digest(image_id.encode(), expected.encode()) else None


def secret_of(path: Path | None) -> bytes:
    """Return the secret of a file, as `read_secret` does, or without a file one that nobody else knows."""
    return secrets.token_bytes(MIN_SECRET_BYTES) if path is None else read_secret(path)


def read_secret(path: Path) -> bytes:
    """Return the secret of a file; raise ValueError, a sentence that names the file, if it has none."""
    try:
        secret = path.read_bytes()
    except OSError as error:
        raise ValueError(f"cannot read image_id_secret {path}: {error.strerror}") from error
    if len(secret) < MIN_SECRET_BYTES:
        raise ValueError(
            f"image_id_secret {path} has {len(secret)} bytes, and needs {MIN_SECRET_BYTES} or more: "
            f"head -c {MIN_SECRET_BYTES} /dev/urandom > {path}"
        )
    return secret
