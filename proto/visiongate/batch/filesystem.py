"""Files on this machine and in buckets, by one interface."""

import functools
import os
import re
from typing import Any

import fsspec
from fsspec.implementations.arrow import ArrowFSWrapper
from pyarrow import fs

# At least two letters: a single one is a Windows drive.
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://([^/]*)/?(.*)", re.DOTALL)
# pyarrow speaks to these itself: users need no package more, nor two versions of one.
_OF_ARROW = ("s3", "gs", "gcs")
_RETRY_S = 30


def is_url(text: str) -> bool:
    """Return whether a text is an address, such as s3://bucket/folder, and not a path of this machine."""
    return _URL.match(text) is not None


def scheme_of(text: str) -> str:
    """Return the scheme of an address in lower case, such as "s3"; "" for a path of this machine."""
    match = _URL.match(text)
    return match[1].lower() if match else ""


def open_filesystem(text: str) -> tuple[Any, str]:
    """Return the fsspec file system of a path or an address, and its path there.

    Credentials and regions are where those of each kind usually are: for s3:// in AWS's variables and files
    (an own server is named by AWS_ENDPOINT_URL, with http:// or https://), for gs:// in Google's. Files that
    this opens are to be kept in a variable as long as they are read: pyarrow closes them with the wrapper.

    Raises ValueError for an address that names no bucket or a kind that is not known here.
    """
    match = _URL.match(text)
    if match is None:
        return fsspec.filesystem("file"), text
    scheme, host, path = match[1].lower(), match[2], match[3]
    if scheme not in _OF_ARROW:
        try:
            return fsspec.core.url_to_fs(text)  # type: ignore[no-any-return]
        except (ValueError, ImportError) as error:
            raise ValueError(f"{text}: {scheme}:// cannot be opened here: {error}") from error
    if not host:
        raise ValueError(f"{text} names no bucket: give {scheme}://BUCKET/FOLDER")
    if "@" in host:
        raise ValueError(
            f"{scheme}://{host.rpartition('@')[2]}: credentials are not written into an address, which "
            "outputs repeat; give them as the cloud's variables or files"
        )
    try:
        # Kept for these settings: opening a bucket may ask where it is.
        filesystem, bucket = _bucket(scheme, host, _settings())
    except (OSError, ValueError) as error:
        raise ValueError(f"{text} cannot be opened: {error}") from error
    return filesystem, f"{bucket}/{path}".rstrip("/")


def protocols(filesystem: Any) -> set[str]:
    """Return the schemes of an fsspec file system; that of this machine's files is "file"."""
    names = filesystem.protocol
    return {names} if isinstance(names, str) else set(names)


def _settings() -> frozenset[tuple[str, str]]:
    return frozenset(item for item in os.environ.items() if item[0].startswith(("AWS_", "GOOGLE_")))


@functools.lru_cache(maxsize=32)
def _bucket(scheme: str, host: str, settings: frozenset[tuple[str, str]]) -> tuple[Any, str]:
    # The bucket alone: a key may hold what an address may not, such as spaces, `#` and the `?` of a glob.
    # Google's library would try for 15 minutes to find a bucket.
    options = "" if scheme == "s3" else f"?retry_limit_seconds={_RETRY_S}"
    found, bucket = fs.FileSystem.from_uri(f"{scheme}://{host}{options}")
    # Without the cache of fsspec, whose key is this object's address in memory.
    return ArrowFSWrapper(found, skip_instance_cache=True), bucket
