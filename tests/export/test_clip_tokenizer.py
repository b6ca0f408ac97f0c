import gzip
from collections.abc import Callable
from pathlib import Path

import pytest
from open_clip.tokenizer import SimpleTokenizer

from export import clip_tokenizer
from export.errors import ExportError


def test_every_token_has_open_clips_id() -> None:
    tokenizer = clip_tokenizer.from_vocabulary(clip_tokenizer.own_vocabulary())
    assert tokenizer.get_vocab() == SimpleTokenizer().encoder


def test_the_vocabulary_is_openais(data: Callable[[str], Path]) -> None:
    published = clip_tokenizer.from_vocabulary(data("clip/bpe_simple_vocab_16e6.txt.gz"))
    assert published.to_str() == clip_tokenizer.from_vocabulary(clip_tokenizer.own_vocabulary()).to_str()


def test_it_cuts_texts_into_words() -> None:
    tokenizer = clip_tokenizer.from_vocabulary(clip_tokenizer.own_vocabulary())
    tokens = tokenizer.encode("the dog's 12 astronauts!", add_special_tokens=False).tokens
    assert tokens == ["the</w>", "dog</w>", "'s</w>", "1</w>", "2</w>", "astronauts</w>", "!</w>"]


def test_other_files(tmp_path: Path) -> None:
    path = tmp_path / "merges.txt.gz"
    with pytest.raises(ExportError, match="Cannot read the vocabulary"):
        clip_tokenizer.from_vocabulary(path)
    path.write_text("not compressed")
    with pytest.raises(ExportError, match="Cannot read the vocabulary"):
        clip_tokenizer.from_vocabulary(path)
    path.write_bytes(gzip.compress(b"version\na b\nc d\n"))
    with pytest.raises(ExportError, match="is not CLIP's vocabulary: it needs 48894 merges"):
        clip_tokenizer.from_vocabulary(path)
