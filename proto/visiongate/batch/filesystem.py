"""Files on this machine and in buckets, by one interface."""

import re
from typing import Any

import fsspec
from fsspec.implementations.arrow import ArrowFSWrapper
from pyarrow import fs

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
# pyarrow speaks to these itself: users need no package more, nor two versions of one.
_OF_ARROW = ("s3://", "gs://", "gcs://")


def is_url(text: str) -> bool:
    """Return whether a text is an address, such as s3://bucket/folder, and not a path of this machine."""
    return _URL.match(text) is not None


def open_filesystem(text: str) -> tuple[Any, str]:
    """Return the fsspec file system of a path or an address, and its path there.

    Credentials and regions are where those of each kind usually are: for s3:// in AWS's variables and files
    (an own server is named by AWS_ENDPOINT_URL), for gs:// in Google's.
    """
    if text.startswith(_OF_ARROW):
        found, path = fs.FileSystem.from_uri(text)
        return ArrowFSWrapper(found), path
    if not is_url(text):
        return fsspec.filesystem("file"), text
    filesystem, path = fsspec.core.url_to_fs(text)
    return filesystem, path
