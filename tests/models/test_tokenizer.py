import re
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from gateway.models.tokenizer import TextTooLongError, load_tokenizer, token_id


def save(folder: Path) -> Tokenizer:
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0, "a": 1, "cat": 2}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    return tokenizer


def test_tokens_have_ids(tmp_path: Path) -> None:
    save(tmp_path)
    tokenizer = load_tokenizer(tmp_path, ("a", "cat"))
    assert tokenizer.encode("a cat").ids == [1, 2]
    assert token_id(tokenizer, "cat") == 2
    with pytest.raises(ValueError, match=r"^The model's tokenizer\.json has no token dog\.$"):
        token_id(tokenizer, "dog")


def test_settings_of_a_used_tokenizer_are_undone(tmp_path: Path) -> None:
    used = save(tmp_path)
    used.enable_truncation(3)
    used.enable_padding(length=20)
    used.save(str(tmp_path / "tokenizer.json"))
    assert load_tokenizer(tmp_path, ()).encode("a cat a cat").ids == [1, 2, 1, 2]


def test_missing_and_damaged_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    with pytest.raises(ValueError, match=rf"^There is no file {re.escape(str(path))}\.$"):
        load_tokenizer(tmp_path, ())
    path.write_text("{}")
    with pytest.raises(ValueError, match=rf"^{re.escape(str(path))} cannot be read\.$"):
        load_tokenizer(tmp_path, ())


def test_needed_tokens_are_there(tmp_path: Path) -> None:
    save(tmp_path)
    with pytest.raises(ValueError, match=r"has no token <end_of_text>"):
        load_tokenizer(tmp_path, ("cat", "<end_of_text>"))


def test_a_text_that_is_too_long_says_by_how_much() -> None:
    error = TextTooLongError(78, 77, counted="start and end")
    assert str(error) == "has 78 tokens, start and end counted; the limit is 77"
    assert (error.token_count, error.max_tokens) == (78, 77)
