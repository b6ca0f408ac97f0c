"""Errors of the hub in one sentence that says what helps."""

import errno
import socket

from export.errors import ExportError, cause, first_line

_LOCAL = "give weights on this machine with --weights PATH (see visiongate export --help)"


def fault(what: str, error: Exception, revision: str | None = None) -> ExportError:
    """Return the error to raise in place of a library's. `what` names what was fetched.

    Libraries wrap one another's errors in sentences of their own, so the whole chain is searched.
    """
    return ExportError(f"Cannot fetch {what}: {_reason(error, revision).rstrip('.')}.")


def _reason(error: Exception, revision: str | None) -> str:
    import httpx
    from huggingface_hub import constants, errors

    offline = f"it is not in the cache, and HF_HUB_OFFLINE keeps us from the hub: unset it, or {_LOCAL}"
    unreachable = f"it cannot be reached: try again, or {_LOCAL}"
    reasons: dict[type[Exception], str] = {
        errors.GatedRepoError: "accept its terms on its page at the hub, then set HF_TOKEN to your token",
        errors.RevisionNotFoundError: f"it has no revision {revision!r}",
        errors.RepositoryNotFoundError: "the hub has no repository of that name, or a private one: "
        "for a private one, set HF_TOKEN to your token",
        errors.OfflineModeIsEnabled: offline,
        # The hub's client raises this whatever kept it from the hub. Those below are docTR's and open_clip's.
        errors.LocalEntryNotFoundError: offline if constants.HF_HUB_OFFLINE else unreachable,
        errors.EntryNotFoundError: "it lacks a file that is needed",
        httpx.TransportError: unreachable,
        socket.gaierror: unreachable,
        ConnectionError: unreachable,
        TimeoutError: unreachable,
    }
    disk = cause(error, OSError, lambda found: found.errno in {errno.ENOSPC, errno.EDQUOT})
    if disk is not None:
        return "the disk of the cache is full: make room, or set HF_HOME to a folder elsewhere"
    return next((reason for kind, reason in reasons.items() if cause(error, kind)), first_line(error))
