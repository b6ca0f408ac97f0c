import io

from gateway.embedded.server_log import ServerLog, explanation, last_words, still_loading

LOG = [
    'E1124 01:50:21.173396 6767 server.cc:241] "CudaDriverHelper has not been initialized."',
    'I1124 01:50:21.175457 6767 model_lifecycle.cc:472] "loading: toy:1"',
    r'E1124 01:50:23.149755 6767 backend_model.cc:692] "ERROR: Failed to create instance: bad \"x\"\n"',
    r"""E1124 01:50:23.149956 6 m.cc:642] "failed to load 'toy': bad \"x\"\n\nAt:\n  m.py(1)" """.strip(),
    "| toy   | 1       | UNAVAILABLE |",
    "",
    "error: creating server: Internal - failed to load all models",
]


def test_errors_are_shown_once_and_readable() -> None:
    assert explanation(LOG) == (
        "failed to load 'toy': bad \"x\"\nerror: creating server: Internal - failed to load all models"
    )


def test_without_errors_the_last_lines_are_shown() -> None:
    assert explanation(["one", "", "two"]) == "one\ntwo"
    assert explanation(map(str, range(100))).splitlines()[0] == "80"


def test_last_words_are_one_line() -> None:
    assert last_words(LOG) == "error: creating server: Internal - failed to load all models"
    assert last_words(LOG[:5]) == "failed to load 'toy': bad \"x\""
    assert last_words(["one", "two  three"]) == "two three"
    assert last_words([LOG[3], *["later"] * 20]) == "later"
    assert last_words(LOG[:2]) == "loading: toy:1"
    assert last_words([]) == ""


def test_a_failing_receiver_does_not_stop_the_reading() -> None:
    received = []

    def receive(line: str) -> None:
        received.append(line)
        raise ValueError

    log = ServerLog(io.StringIO("one\ntwo\n"), receive)
    log.close(timeout_s=5)
    assert received == ["one"]
    assert log.lines() == ["one", "two"]
    assert log.has("tw")
    assert not log.has("three")


def test_models_are_loading_until_they_are_loaded_or_have_failed() -> None:
    line = "I1124 01:50:21.175457 6767 model_lifecycle.cc:472] "
    lines = [line + f'"loading: {name}:1"' for name in ("clip_text", "gaze", "toy")]
    assert still_loading([*lines, LOG[3]]) == ["clip_text", "gaze"]
    assert still_loading([*lines, LOG[3], line + "\"successfully loaded 'clip_text'\""]) == ["gaze"]
    assert still_loading(LOG[:1]) == []
