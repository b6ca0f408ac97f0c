"""Errors name the arguments of the tools, and say what to do."""

import grpc
import pytest

from visiongate import InvalidArgumentError, OverloadedError, UnavailableError
from visiongate.mcp.errors import RETRY_S, in_words


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ("images[0].encoded: is empty", "image.encoded: is empty"),
        ("image.encoded: is empty", "image.encoded: is empty"),
        ("candidates[12].image.encoded: is empty", "images[12].encoded: is empty"),
        ("subject.image.encoded: is empty", "image.encoded: is empty"),
        ("subject.text: is empty", "text: is empty"),
        ("query.phrases.values[0]: is empty", "phrases.values[0]: is empty"),
        ("labels[0]: is like images[0]", "labels[0]: is like images[0]"),
    ],
)
def test_paths_become_arguments(message: str, words: str) -> None:
    assert in_words(InvalidArgumentError(grpc.StatusCode.INVALID_ARGUMENT, message)) == words


@pytest.mark.parametrize(("retry_s", "wait_s"), [(0.2, 1), (2.0, 2), (None, RETRY_S)])
def test_a_full_server_is_asked_again_in_whole_seconds(retry_s: float | None, wait_s: int) -> None:
    error = OverloadedError(grpc.StatusCode.RESOURCE_EXHAUSTED, "there is no room", retry_s=retry_s)
    assert in_words(error) == f"there is no room. Call this tool again in {wait_s} s."


def test_advice_is_a_sentence_of_its_own() -> None:
    for message in ("nothing answers", "nothing answers."):
        words = in_words(UnavailableError(grpc.StatusCode.UNAVAILABLE, message))
        assert words.startswith("nothing answers. Call this tool again")
