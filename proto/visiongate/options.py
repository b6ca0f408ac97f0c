"""The options of calls: how long they may take, and what is sent beside the request."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real

Metadata = tuple[tuple[str, str | bytes], ...]

REQUEST_ID = "x-request-id"
TRACEPARENT = "traceparent"

# What the server accepts as the name of a call in its log.
_REQUEST_ID = re.compile(r"[!-~]{1,128}")
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_KEY = re.compile(r"[0-9a-z_.-]+")
_TEXT = re.compile(r"[ -~]*")
_OPTION_OF = {"authorization": "api_key", REQUEST_ID: "request_id", TRACEPARENT: "traceparent"}
_OF_GRPC = frozenset({"content-type", "te", "user-agent", "host"})

# gRPC's deadlines are dates, and a call without a limit has none. From this on, 30 years, there is no limit.
_NEVER_S = 1e9


@dataclass(frozen=True, slots=True)
class CallOptions:
    """The options of a client's calls. `timeout_s` is infinite if there is no limit."""

    timeout_s: float
    wait: bool
    request_id: str = ""
    metadata: Metadata = ()


def checked_seconds(name: str, value: float | None) -> float:
    """Return seconds: infinity for None, and for more than gRPC can count. Raise ValueError for nonsense."""
    if value is None:
        return math.inf
    # A bool is a number in Python, and comparisons with NaN are false.
    if isinstance(value, bool) or not isinstance(value, Real) or not value > 0:
        raise ValueError(f"{name} is {value!r}: give seconds above 0, or None for no limit")
    return math.inf if value >= _NEVER_S else float(value)


def checked_request_id(value: str) -> str:
    if not isinstance(value, str) or not _REQUEST_ID.fullmatch(value):
        raise ValueError(f"request_id is {value!r}: give 1 to 128 visible ASCII characters without blanks")
    return value


def checked_traceparent(value: str) -> str:
    if not isinstance(value, str) or not _TRACEPARENT.fullmatch(value):
        raise ValueError(
            f"traceparent is {value!r}: give version, trace id, parent id and flags in lower-case "
            "hexadecimal digits, such as 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
        )
    return value


def checked_metadata(metadata: Mapping[str, str | bytes]) -> Metadata:
    """Return pairs as gRPC takes them. Its own exception would quote all, and the API key is one of them."""
    if not isinstance(metadata, Mapping):
        raise ValueError(f"metadata is a dict, not {type(metadata).__name__}")
    for key, value in metadata.items():
        if not isinstance(key, str) or not _KEY.fullmatch(key):
            raise ValueError(f"metadata key {key!r}: give lower-case letters, digits and any of _ . -")
        if key in _OPTION_OF:
            raise ValueError(f"metadata key {key!r}: use the option {_OPTION_OF[key]}")
        if key in _OF_GRPC or key.startswith("grpc-"):
            raise ValueError(f"metadata key {key!r}: gRPC keeps it for itself")
        if key.endswith("-bin"):
            if not isinstance(value, bytes):
                raise ValueError(f"metadata value of {key!r}: keys that end in -bin take bytes")
        elif not isinstance(value, str) or not _TEXT.fullmatch(value):
            raise ValueError(f"metadata value of {key!r}: give a string of printable ASCII characters")
    return tuple(metadata.items())
