"""Answers that tell an error, whoever made it."""

import contextlib
from collections.abc import Callable, Mapping

from google.rpc import status_pb2

from gateway.call import REQUEST_ID, observe
from gateway.errors import StatusError, end_of, forget_frames
from gateway.http import statuses
from gateway.http.exchange import Answer
from gateway.http.statuses import HttpError

WriteError = Callable[[status_pb2.Status], bytes]
"""Writes an error as the callers of a route expect it, as JSON."""

OTHER = "http"
"""The name of all requests that are for no method of the API, in the log and the metrics."""


def refuse(
    error: Exception,
    request_id: str,
    peer: str,
    headers: Mapping[str, str],
    name: str = OTHER,
    write_error: WriteError = statuses.to_json,
) -> Answer:
    """Return the answer for an error of the front's own. The log and the metrics get to know it as a call's.

    name: of the method that was asked for.
    """
    with contextlib.suppress(type(error)), observe(name, {**headers, REQUEST_ID: request_id}, peer):
        raise error
    forget_frames(error)
    if not isinstance(error, StatusError):
        end = end_of(error)
        error = StatusError(end.code, "internal error: the server's log says more", reason=end.reason)
    status = error.to_message(request_id)
    if isinstance(error, HttpError):
        return _answer(status, error.http_status, error.headers, write_error)
    return tell(status, write_error)


def tell(status: status_pb2.Status, write_error: WriteError = statuses.to_json) -> Answer:
    """Return the answer that tells the gateway's error."""
    return _answer(status, statuses.http_status(status), {}, write_error)


def _answer(
    status: status_pb2.Status, http_status: int, headers: Mapping[str, str], write_error: WriteError
) -> Answer:
    more = statuses.retry_headers(status)
    if http_status == 401:
        more["www-authenticate"] = "Bearer"
    return Answer([write_error(status)], status=http_status, headers={**headers, **more})
