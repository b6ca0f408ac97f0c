"""Log lines: for machines one JSON object each, for people text; with the id of their call."""

import io
import json
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from gateway import logs
from gateway.call import observe
from gateway.settings import Settings

logger = logging.getLogger("gateway.test")
Written = Callable[[], str]


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Settings], Written]]:
    """Configures the log and gives what is written from then on; the test session's is put back."""
    gateway = logging.getLogger("gateway")
    monkeypatch.setattr(logging.root, "handlers", [])

    def configure(settings: Settings) -> Written:
        stream = io.StringIO()
        monkeypatch.setattr("sys.stderr", stream)
        logs.configure(settings)
        return stream.getvalue

    levels = logging.root.level, gateway.level
    yield configure
    logging.root.setLevel(levels[0])
    gateway.setLevel(levels[1])


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_json_is_an_object_a_line(written: Callable[[Settings], Written]) -> None:
    read = written(Settings(log_format="json"))
    logger.info("two\nlines %d\u2028", 1, extra={"fields": {"size": 7, "name": 'quo"te\r\n'}})
    (line,) = lines(read())
    time = line.pop("time")
    assert line == {
        "level": "info",
        "logger": "gateway.test",
        "message": "two\nlines 1\u2028",
        "size": 7,
        "name": 'quo"te\r\n',
    }
    assert time[10] == "T"
    assert time[-1] == "Z"


def test_json_holds_the_stack(written: Callable[[Settings], Written]) -> None:
    read = written(Settings(log_format="json"))
    try:
        raise ValueError("why")
    except ValueError:
        logger.exception("failed")
    (line,) = lines(read())
    assert line["level"] == "error"
    assert line["exception"].startswith("Traceback")
    assert line["exception"].endswith("ValueError: why")


def test_lines_written_during_a_call_have_its_id(written: Callable[[Settings], Written]) -> None:
    read = written(Settings(log_format="json"))
    with observe("/a.Service/Method", {"x-request-id": "abc"}):
        logger.info("inside")
    logger.info("outside")
    inside, call, outside = lines(read())
    assert inside["request_id"] == call["request_id"] == "abc"
    assert "request_id" not in outside


def test_text_is_for_people(written: Callable[[Settings], Written]) -> None:
    read = written(Settings(log_format="text"))
    with observe("/a.Service/Method", {"x-request-id": "abc"}):
        try:
            raise ValueError("why")
        except ValueError:
            logger.exception("failed")
    message, *stack, call = read().splitlines()
    assert message.endswith("ERROR gateway.test: failed request_id=abc")
    assert stack[-1] == "ValueError: why"
    assert "INFO gateway.calls: call ended request_id=abc method=/a.Service/Method code=OK" in call
    assert "caller=" not in call


def test_levels(written: Callable[[Settings], Written]) -> None:
    read = written(Settings(log_level="debug"))
    logger.debug("mine")
    # httpx writes URLs, with the secrets in them, at this level.
    logging.getLogger("httpx").info("theirs")
    logging.getLogger("httpx").warning("their warning")
    assert [line.rpartition(" ")[2] for line in read().splitlines()] == ["mine", "warning"]
    read = written(Settings(log_level="error"))
    logger.warning("mine")
    logging.getLogger("httpx").warning("theirs")
    assert read() == ""


def test_a_caller_that_leaves_during_its_answer_is_no_fault(
    written: Callable[[Settings], Written],
) -> None:
    text = written(Settings())
    log = logging.getLogger("grpc._cython.cygrpc")
    execute_batch_error = type("ExecuteBatchError", (Exception,), {})  # gRPC has it in a C extension
    for error in (execute_batch_error("execute_batch"), ValueError("something else")):
        try:
            raise error
        except Exception:
            log.exception("%s raised", type(error).__name__)
    assert "ExecuteBatchError" not in text()
    assert "something else" in text()
