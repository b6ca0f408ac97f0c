from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer
from transformers import BertTokenizer

from export import bert_tokenizer
from export.errors import ExportError

TEXTS = [
    "a cat. a remote control.",
    "The QUICK Brown-Fox?!",
    "Café crème, naïve façade; Ångström",
    "日本語 text と かな",
    "emoji 🙂 and \u200b zero width, tab\there, line\nbreak",
    "3.14159 + 2,718 = $5.86 & 100%",
    "unaffable antidisestablishmentarianism",
    "[CLS] in [MASK] the [SEP] text [PAD] [UNK]",
    "x" * 150,
    "ﬁ ligature, ½, İstanbul, ß, Ωmega",
    "",
    "   ",
    "don't. can't? o'clock",
]


def same(tokenizer: Tokenizer, reference: BertTokenizer, text: str) -> None:
    ours = tokenizer.encode(text)
    theirs = reference(text, return_offsets_mapping=True)
    assert ours.ids == theirs["input_ids"]
    assert ours.offsets == theirs["offset_mapping"]
    assert ours.type_ids == theirs["token_type_ids"]


@pytest.mark.parametrize("text", TEXTS)
def test_equals_transformers_on_the_real_vocabulary(data: Callable[[str], Path], text: str) -> None:
    path = data("grounding_dino/bert-base-uncased-vocab.txt")
    tokenizer = bert_tokenizer.from_vocabulary(bert_tokenizer.read_vocabulary(path))
    bert_tokenizer.check(tokenizer, 30522)
    same(tokenizer, BertTokenizer(vocab=str(path)), text)


OWN = bert_tokenizer.own_vocabulary()
TOKENIZER = bert_tokenizer.from_vocabulary(OWN)
REFERENCE = BertTokenizer(vocab={token: index for index, token in enumerate(OWN)})


@given(st.text(max_size=60))
def test_equals_transformers_on_any_text(text: str) -> None:
    same(TOKENIZER, REFERENCE, text)


def test_own_vocabulary_has_berts_layout(data: Callable[[str], Path]) -> None:
    real = bert_tokenizer.read_vocabulary(data("grounding_dino/bert-base-uncased-vocab.txt"))
    own = OWN.index
    fixed = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *real[999:1063]]
    assert [own(token) for token in fixed] == [real.index(token) for token in fixed]
    assert len(OWN) == len(set(OWN)) < 2048


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=60))
def test_own_vocabulary_spells_any_ascii_text(text: str) -> None:
    assert "[UNK]" not in TOKENIZER.encode(text.replace("[", "(")).tokens


def test_common_words_are_single_tokens() -> None:
    assert TOKENIZER.encode("Red circle. hot dog?").tokens == [
        *("[CLS]", "red", "circle", ".", "hot", "dog", "?", "[SEP]"),
    ]


def test_a_vocabulary_that_is_not_berts() -> None:
    with pytest.raises(ExportError, match=r"lacks \[CLS\] \[MASK\]"):
        bert_tokenizer.from_vocabulary([token for token in OWN if token not in {"[CLS]", "[MASK]"}])
    shifted = bert_tokenizer.from_vocabulary([*OWN[:200], "more", *OWN[200:]])
    with pytest.raises(ExportError, match=r"\. is token 1013 of the vocabulary"):
        bert_tokenizer.check(shifted, 2048)


def test_a_vocabulary_that_the_model_does_not_know() -> None:
    with pytest.raises(ExportError, match=f"has {len(OWN)} tokens, but the model knows 1000"):
        bert_tokenizer.check(TOKENIZER, 1000)


def test_a_vocabulary_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="Cannot read the vocabulary"):
        bert_tokenizer.read_vocabulary(tmp_path / "none.txt")


def test_folders(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"neither tokenizer.json nor vocab.txt"):
        bert_tokenizer.from_folder(tmp_path)
    (tmp_path / "vocab.txt").write_text("\n".join(OWN) + "\n")
    assert bert_tokenizer.from_folder(tmp_path).encode("a dog").ids == TOKENIZER.encode("a dog").ids

    REFERENCE.save_pretrained(tmp_path)
    saved = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    saved.enable_padding(length=50)
    saved.enable_truncation(3)
    saved.save(str(tmp_path / "tokenizer.json"))
    assert bert_tokenizer.from_folder(tmp_path).encode("a dog").ids == TOKENIZER.encode("a dog").ids

    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ExportError, match=r"Cannot read .*tokenizer.json"):
        bert_tokenizer.from_folder(tmp_path)


def test_the_hub_failing_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_args: object, **_kwargs: object) -> str:
        raise OSError("no route\nmore")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", fail)
    with pytest.raises(ExportError, match=r"^Cannot fetch the tokenizer of some/where: no route\.$"):
        bert_tokenizer.from_hub("some/where", None)
