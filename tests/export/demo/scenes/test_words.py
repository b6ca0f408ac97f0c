import numpy as np
import pytest

from export.demo import scenes
from export.demo.scenes import word, words


def test_words_are_of_the_alphabet_and_vary() -> None:
    random = np.random.default_rng(0)
    texts = [word(random) for _ in range(500)]
    assert set("".join(texts)) <= set(scenes.ALPHABET)
    assert len(set(texts)) > 400
    assert {text.isupper() for text in texts if text.isalpha()} == {True, False}
    assert any(text.isdigit() for text in texts)


def test_own_font_needs_no_other_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(words, "find_spec", lambda _name: None)
    words.font.cache_clear()
    assert words.font(words.PILLOW_FONT, 20).getbbox("A")[2] > 5
    with pytest.raises(ModuleNotFoundError, match="matplotlib"):
        words.font("DejaVu Serif", 20)
    words.font.cache_clear()
