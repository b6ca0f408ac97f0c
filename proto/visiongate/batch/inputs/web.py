"""Image files at https:// addresses, read by this machine."""

import http.client
import time
import urllib.error
import urllib.parse
import urllib.request

from visiongate.batch.inputs.places import checked
from visiongate.operations.image import MAX_FILE_BYTES
from visiongate.operations.image_file import MEBIBYTE

SCHEMES = ("https", "http")
# Of a connection, and of each wait for the next bytes.
_SILENCE_S = 30
# Of the whole file: a server that sends a byte now and then holds up nothing for longer.
_WHOLE_S = 120
# What statuses say of the file. Others are of the server: it may answer later.
_KINDS = {401: PermissionError, 403: PermissionError, 404: FileNotFoundError, 410: FileNotFoundError}
_CHUNK_BYTES = 256 * 1024


def read_web(address: str) -> bytes:
    """Return the bytes of a file, at most MAX_FILE_BYTES. Raise OSError or ValueError, a sentence."""
    end = time.monotonic() + _WHOLE_S
    # What is quoted already stays so.
    quoted = urllib.parse.quote(address, safe="%/:=&?~#+!$,;'@()*[]", errors="replace")
    try:
        request = urllib.request.Request(quoted, headers={"User-Agent": "visiongate"})  # noqa: S310 - see SCHEMES
        with urllib.request.urlopen(request, timeout=_SILENCE_S) as answer:  # noqa: S310
            data = bytearray()
            while len(data) <= MAX_FILE_BYTES and (chunk := answer.read(_CHUNK_BYTES)):
                data += chunk
                if time.monotonic() > end:
                    raise TimeoutError(f"{address} has not sent all of the file in {_WHOLE_S} seconds")
            # The library takes an answer that breaks off for a whole one.
            missing = answer.length if len(data) <= MAX_FILE_BYTES else 0
    except urllib.error.HTTPError as error:
        error.close()
        kind = _KINDS.get(error.code, ConnectionError)
        raise kind(f"{address} answers {error.code} {error.reason}") from error
    except urllib.error.URLError as error:
        raise ConnectionError(f"{address} cannot be reached: {error.reason}") from error
    except TimeoutError as error:
        sentence = f"{address} sends nothing for {_SILENCE_S} seconds"
        raise TimeoutError(sentence if str(error) == "timed out" else str(error)) from error
    except (http.client.HTTPException, OSError, ValueError) as error:
        # ValueError is for a host that is no name.
        raise OSError(f"{address} cannot be read: {error or type(error).__name__}") from error
    if len(data) > MAX_FILE_BYTES:
        raise ValueError(f"{address} has more than {MAX_FILE_BYTES // MEBIBYTE} MiB")
    if missing:
        raise ConnectionError(f"{address} breaks off: {missing} bytes of it are missing")
    return checked(bytes(data), address)
