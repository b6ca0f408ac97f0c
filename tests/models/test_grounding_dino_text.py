from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.models.grounding_dino.modeling_grounding_dino import (
    SPECIAL_TOKENS,
    generate_masks_with_special_tokens_and_transfer_map,
)

from gateway.models.grounding_dino_text import NEEDED_TOKENS, TextTokenizer, TokenizedText, attention_blocks
from gateway.models.tokenizer import TextTooLongError, load_tokenizer

# Untyped in transformers.
reference_masks: Any = generate_masks_with_special_tokens_and_transfer_map

TRICKY = [
    ["cat", "dog"],
    ["Dog", "hot dog"],
    ["dog", "dog"],
    ["dog", "Dog"],
    ["  Two  Words\t", "Café au lait", "naïve"],
    ["日本語", "🐕", "Straße", "ΟΔΟΣ", "İstanbul"],
    ["stop sign (red)", "o'clock", "t-shirt", "#hash", "a/b", "50%"],
    ["x" * 200, "antidisestablishmentarianism"],
    ["bell\x07 pepper", "null\x00byte", "[SEP]", "[MASK] [PAD]"],
    ["what?", "who? me"],
]


@pytest.fixture(scope="session")
def text_tokenizer(grounding_dino_folder: Path) -> TextTokenizer:
    return TextTokenizer(load_tokenizer(grounding_dino_folder, NEEDED_TOKENS), (16, 32, 64, 128, 256))


def assert_masks_equal_reference(text: TokenizedText) -> None:
    mask, position_ids = reference_masks(torch.from_numpy(text.input_ids)[None], torch.tensor(SPECIAL_TOKENS))
    np.testing.assert_array_equal(text.position_ids, position_ids[0].numpy())
    np.testing.assert_array_equal(text.text_self_attention_mask, mask[0].numpy())


def own_tokens(text_tokenizer: TextTokenizer, phrase: str) -> list[int]:
    """The tokens of a phrase on its own, without separators."""
    ids = text_tokenizer.tokenizer.encode(phrase.strip().lower(), add_special_tokens=False).ids
    return [token for token in ids if token not in SPECIAL_TOKENS]


@pytest.mark.parametrize("phrases", TRICKY)
def test_phrases_are_encoded_as_the_reference_does(
    text_tokenizer: TextTokenizer, grounding_dino_processor: Any, phrases: list[str]
) -> None:
    text = text_tokenizer.encode_phrases(phrases)
    length = len(text.input_ids)
    expected = grounding_dino_processor(
        text=[phrases], padding="max_length", max_length=length, return_tensors="np"
    )
    np.testing.assert_array_equal(text.input_ids, expected["input_ids"][0])
    np.testing.assert_array_equal(text.attention_mask, expected["attention_mask"][0])
    assert length == min(b for b in text_tokenizer.lengths if b >= text.attention_mask.sum())
    assert_masks_equal_reference(text)
    assert text.phrases == tuple(phrases)


def test_padding_changes_nothing_for_the_tokens(
    text_tokenizer: TextTokenizer, grounding_dino_processor: Any
) -> None:
    text = text_tokenizer.encode_phrases(["a cat", "hot dog", "dog"])
    ids = torch.from_numpy(
        grounding_dino_processor(text=[["a cat", "hot dog", "dog"]], return_tensors="np")["input_ids"]
    )
    mask, position_ids = reference_masks(ids, torch.tensor(SPECIAL_TOKENS))
    count = ids.shape[1]
    assert count < len(text.input_ids)
    np.testing.assert_array_equal(text.text_self_attention_mask[:count, :count], mask[0].numpy())
    np.testing.assert_array_equal(text.position_ids[:count], position_ids[0].numpy())
    assert not text.text_self_attention_mask[:count, count:].any()
    assert text.input_ids.dtype == text.attention_mask.dtype == text.position_ids.dtype == np.int64
    assert text.text_self_attention_mask.dtype == np.bool_


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from([0, 101, 102, 1012, 1029, 4937, 3899]), min_size=1, max_size=20))
def test_masks_of_any_tokens_equal_the_reference(ids: list[int]) -> None:
    position_ids, mask = attention_blocks(np.isin(ids, SPECIAL_TOKENS))
    expected, expected_ids = reference_masks(torch.tensor([ids]), torch.tensor(SPECIAL_TOKENS))
    np.testing.assert_array_equal(position_ids, expected_ids[0].numpy())
    np.testing.assert_array_equal(mask, expected[0].numpy())


phrase_texts = st.text(min_size=0, max_size=10) | st.text(
    alphabet="aDog .?!#[]\t\x00é\u0301日🐕", max_size=10
)


@settings(max_examples=300, deadline=None)
@given(st.lists(phrase_texts, min_size=1, max_size=6))
def test_spans_are_the_phrases_own_tokens(text_tokenizer: TextTokenizer, phrases: list[str]) -> None:
    expected = [own_tokens(text_tokenizer, phrase) for phrase in phrases]
    if not all(expected):
        with pytest.raises(ValueError, match=f"^Phrase {expected.index([])} has no words"):
            text_tokenizer.encode_phrases(phrases)
        return
    text = text_tokenizer.encode_phrases(phrases)
    assert [text.input_ids[list(span)].tolist() for span in text.spans] == expected
    positions = [position for span in text.spans for position in span]
    assert positions == sorted(set(positions))
    assert_masks_equal_reference(text)


@pytest.mark.parametrize("phrase", ["", "   ", ".", "...", " ? . ", "\t\n", "\x00"])
def test_phrase_without_words_is_named(text_tokenizer: TextTokenizer, phrase: str) -> None:
    with pytest.raises(ValueError, match="Phrase 1 has no words"):
        text_tokenizer.encode_phrases(["cat", phrase, "dog"])
    with pytest.raises(ValueError, match="caption has no words"):
        text_tokenizer.encode_caption(phrase)


def test_separators_inside_a_phrase_split_its_attention_but_not_its_span(
    text_tokenizer: TextTokenizer,
) -> None:
    text = text_tokenizer.encode_phrases(["St. Bernard? dog", "cat"])
    tokens = [text_tokenizer.tokenizer.id_to_token(token) for token in text.input_ids]
    assert tokens[:10] == ["[CLS]", "st", ".", "bernard", "?", "dog", ".", "cat", ".", "[SEP]"]
    assert text.spans == ((1, 3, 5), (7,))
    assert not text.text_self_attention_mask[1, 3]
    assert text.text_self_attention_mask[3, 4]


def test_no_phrases(text_tokenizer: TextTokenizer) -> None:
    with pytest.raises(ValueError, match="no phrases"):
        text_tokenizer.encode_phrases([])


@pytest.mark.parametrize(
    "caption", ["a cat. a remote control.", "A Cat. Café?  two dogs. x" + " y" * 30 + ".", "what? who? me."]
)
def test_captions_are_encoded_as_the_reference_does(
    text_tokenizer: TextTokenizer, grounding_dino_processor: Any, caption: str
) -> None:
    text = text_tokenizer.encode_caption(caption)
    expected = grounding_dino_processor(
        text=caption, padding="max_length", max_length=len(text.input_ids), return_tensors="np"
    )
    np.testing.assert_array_equal(text.input_ids, expected["input_ids"][0])
    np.testing.assert_array_equal(text.attention_mask, expected["attention_mask"][0])
    assert_masks_equal_reference(text)
    assert text.phrases == ()


def test_caption_is_closed_with_a_full_stop(text_tokenizer: TextTokenizer) -> None:
    closed, text = (
        text_tokenizer.encode_caption("a cat. a dog."),
        text_tokenizer.encode_caption(" a cat. A dog "),
    )
    np.testing.assert_array_equal(closed.input_ids, text.input_ids)
    assert text.spans == ((1, 2), (4, 5))


def test_longest_text(text_tokenizer: TextTokenizer) -> None:
    # [CLS], 253 words, a full stop and [SEP] are 256.
    text = text_tokenizer.encode_caption("cat " * 253)
    assert len(text.input_ids) == text.attention_mask.sum() == 256
    assert_masks_equal_reference(text)
    with pytest.raises(
        TextTooLongError, match="has 257 tokens, separators, start and end counted; the limit is 256"
    ):
        text_tokenizer.encode_caption("cat " * 254)
    with pytest.raises(TextTooLongError, match=r"302 tokens.*limit is 256"):
        text_tokenizer.encode_phrases(["cat"] * 150)


@pytest.mark.parametrize("count", [13, 14])
def test_text_takes_the_smallest_length(text_tokenizer: TextTokenizer, count: int) -> None:
    assert len(text_tokenizer.encode_caption("cat " * count).input_ids) == (16 if count == 13 else 32)
