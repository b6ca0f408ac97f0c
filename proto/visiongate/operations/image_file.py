"""The bytes of image files: of paths, addresses, bytes and open files."""

import base64
import binascii
import io
import os
import re
import urllib.parse
import urllib.request
from pathlib import Path
from typing import IO

MEBIBYTE = 1 << 20
# The size of message that the server takes by default, less some room for all that is not the image.
MAX_BYTES = 63 * MEBIBYTE
_USUAL_BYTES = MEBIBYTE

_SCHEME = re.compile(r"data(?=:)|file(?=:)|[a-z][a-z0-9+.-]+(?=://)", re.IGNORECASE)

FileLike = str | os.PathLike[str] | bytes | bytearray | memoryview | IO[bytes]


def read(file: FileLike, name: str) -> bytes:
    """Read the bytes of a file. Error messages call it `name`.

    Raises OSError for a file that cannot be read, ValueError for addresses other than file: and data:, for an
    empty file and for one of more than MAX_BYTES, TypeError for a file that is not open for bytes.
    """
    match file:
        case bytes() | bytearray() | memoryview():
            data = bytes(file)
        case str() if (scheme := _SCHEME.match(file)) is not None:
            data = _read_uri(file, scheme[0].lower(), name)
        case str() | os.PathLike():
            data = _read_path(file, name)
        case _:
            data = _read_open(file, name)
    check_length(len(data), name)
    return data


def check_length(length: int, name: str) -> None:
    if length > MAX_BYTES:
        raise ValueError(
            f"{name} has more than {MAX_BYTES // MEBIBYTE} MiB, too much for a message to the server: "
            "make it smaller, or save it as JPEG or WebP"
        )


def read_some(file: IO[bytes]) -> bytes:
    """Return what an open file has, which may not be bytes; of a larger one MAX_BYTES + 1 bytes."""
    # Python makes room for all that it is asked for, which takes longer than reading a usual photo.
    data = file.read(_USUAL_BYTES)
    if not isinstance(data, bytes) or len(data) < _USUAL_BYTES:
        return data
    return data + file.read(MAX_BYTES + 1 - len(data))


def kind_of(value: object) -> str:
    kind = type(value)
    return kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"


def _read_uri(uri: str, scheme: str, name: str) -> bytes:
    if scheme == "file":
        parts = urllib.parse.urlsplit(uri)
        if parts.netloc.lower() not in ("", "localhost"):
            raise ValueError(f"{name}: {_short(uri)} is on another machine; file:///path is on this one")
        return _read_path(urllib.request.url2pathname(parts.path), name)
    if scheme == "data":
        return _read_data_uri(uri, name)
    advice = "give a path, an https:// address, or the file's bytes"
    if scheme == "http":
        advice = "the server fetches https:// only; give another address, or the file's bytes"
    raise ValueError(f"{name}: {_short(uri)} starts with {scheme}://, which is not supported: {advice}")


def _read_data_uri(uri: str, name: str) -> bytes:
    head, _, text = uri.partition(",")
    data = urllib.parse.unquote_to_bytes(text)
    if head.lower().endswith(";base64"):
        try:
            data = base64.b64decode(data, validate=True)
        except binascii.Error as error:
            raise ValueError(f"{name}: {_short(uri)} is not base64 after its comma") from error
    if not data:
        raise ValueError(f"{name}: {_short(uri)} has no data after a comma")
    return data


def _read_path(path: str | os.PathLike[str], name: str) -> bytes:
    if not os.fspath(path):
        raise ValueError(f"{name}: the path is empty")
    try:
        with open(path, "rb") as file:
            data = read_some(file)
    except FileNotFoundError as error:
        folder = "" if Path(path).is_absolute() else f" in {Path.cwd()}"
        raise FileNotFoundError(f"{name}: there is no file {_short(path)}{folder}") from error
    except IsADirectoryError as error:
        raise IsADirectoryError(f"{name}: {_short(path)} is a folder; give its files one by one") from error
    except OSError as error:
        # A name that is too long is often a file's contents, such as its base64.
        reason = str(error.strerror).lower()
        raise type(error)(f"{name}: the file {_short(path)} cannot be read: {reason}") from error
    except ValueError as error:
        raise ValueError(f"{name}: {_short(path)}: {error}") from error
    if not data:
        raise ValueError(f"{name}: the file {_short(path)} is empty")
    return data


def _read_open(file: IO[bytes], name: str) -> bytes:
    data = None if isinstance(file, io.TextIOBase) else read_some(file)
    if not isinstance(data, bytes | bytearray | memoryview):
        raise TypeError(
            f"{name}: {kind_of(file)} does not give bytes when it is read: open files with open(path, 'rb'), "
            "and instead of an asynchronous file give what `await file.read()` returns"
        )
    if not data:
        raise ValueError(f"{name}: there is nothing to read: the file is empty, or was read before")
    return bytes(data)


def _short(text: str | os.PathLike[str]) -> str:
    text = repr(os.fspath(text))
    return text if len(text) <= 200 else f"{text[:100]}…{text[-50:]}"
