"""The log on standard error: text for people, or one JSON object a line for programs."""

import json
import logging
import time
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from gateway.call import current
from gateway.settings import Settings
from gateway.settings_sources import shown

logger = logging.getLogger(__name__)


def configure(settings: Settings) -> None:
    """Set up the log of the process."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if settings.log_format == "json" else TextFormatter())
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    # Other packages log warnings alone: on lower levels httpx logs whole URLs, and Pillow data from images.
    logging.basicConfig(level=max(level, logging.WARNING), handlers=[handler], force=True)
    logging.getLogger("gateway").setLevel(level)
    logging.getLogger("grpc._cython.cygrpc").addFilter(is_fault)
    logging.captureWarnings(True)
    # No line says them, and each record looks for them.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False


def tell_start(settings: Settings) -> None:
    """Log the version, and the settings that are not as by default."""
    defaults = Settings()
    changed = {
        name: shown(getattr(settings, name))
        for name in Settings.model_fields
        if getattr(settings, name) != getattr(defaults, name)
    }
    logger.info("visiongate %s starts", version("visiongate-server"), extra={"fields": changed})


def is_fault(record: logging.LogRecord) -> bool:
    """Return whether a record of gRPC's server is news: that a call or the server is gone is none."""
    error = record.exc_info[1] if record.exc_info else None
    return type(error).__name__ not in ("ExecuteBatchError", "_ServerStoppedError")


class TextFormatter(logging.Formatter):
    """The message, then `name=value` for every field that is not empty."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")
        # The latest second, written.
        self._second, self._written = -1, ""

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802
        second = int(record.created)
        if second != self._second:
            self._second, self._written = (
                second,
                time.strftime(self.default_time_format, time.localtime(second)),
            )
        return f"{self._written},{int(record.msecs):03d}"

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        fields = (f"{name}={value}" for name, value in _fields(record).items())
        return " ".join([super().formatMessage(record), *fields])


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time (RFC 3339, UTC), level, logger, message, the fields, exception."""

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line = {
            "time": time.replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_fields(record),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    """Return the fields of `extra={"fields": ...}`, and the call's request id, which its caller can quote.

    Fields without a value are left out.
    """
    call = current()
    fields = {"request_id": call.request_id} if call is not None else {}
    fields |= getattr(record, "fields", {})
    return {name: value for name, value in fields.items() if value != ""}
