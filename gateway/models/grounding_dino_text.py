"""Grounding DINO's text: phrases or a caption to tokens, and which tokens stand for which words.

Agrees with transformers' GroundingDinoProcessor and with the text masks of its modeling file.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

from gateway.models.tokenizer import TextTooLongError, token_id

_PADDING = "[PAD]"
_SEPARATORS = (".", "?")
_DELIMITERS = ("[CLS]", "[SEP]", *_SEPARATORS)
NEEDED_TOKENS = (*_DELIMITERS, _PADDING)


@dataclass(frozen=True, slots=True, eq=False)
class TokenizedText:
    """The model's text inputs, T tokens long and without the batch axis, and what the tokens stand for.

    input_ids, attention_mask, position_ids: int64 [T]. text_self_attention_mask: bool [T,T].
    phrases: as the caller wrote them; empty for a caption.
    spans: the token positions that count for each phrase. A caption has one span for each stretch between
    separators. Separators (. and ?) and special tokens are in no span.
    """

    input_ids: NDArray[np.int64]
    attention_mask: NDArray[np.int64]
    position_ids: NDArray[np.int64]
    text_self_attention_mask: NDArray[np.bool_]
    phrases: tuple[str, ...]
    spans: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True, eq=False)
class TextTokenizer:
    """Turns phrases and captions into the model's text inputs, and tokens back into words.

    tokenizer: knows NEEDED_TOKENS. lengths: token counts to which texts are padded, in rising order. The last
    is the limit.
    """

    tokenizer: Tokenizer
    lengths: tuple[int, ...]

    def encode_phrases(self, phrases: Sequence[str]) -> TokenizedText:
        """Encode a list of phrases as one caption, lower-cased and joined by ". ", as transformers does.

        A phrase may contain separators. They divide the attention of its tokens, but all tokens count for the
        phrase. Raises ValueError that names the index of a phrase without words, and TextTooLongError.
        """
        if not phrases:
            raise ValueError("There are no phrases.")
        cleaned = [phrase.strip().lower() for phrase in phrases]
        starts = np.cumsum([0] + [len(phrase) + len(". ") for phrase in cleaned])
        encoding = self._encode(". ".join(cleaned) + ".")
        spans: list[list[int]] = [[] for _ in phrases]
        for position in self._words(encoding):
            # The token's first character tells its phrase, so that equal and nested phrases stay apart.
            owner = np.searchsorted(starts, encoding.offsets[position][0], side="right") - 1
            spans[owner].append(position)
        for index, span in enumerate(spans):
            if not span:
                raise ValueError(f"Phrase {index} has no words: {phrases[index][:50]!r}.")
        return self._tokenized(encoding, tuple(phrases), spans)

    def encode_caption(self, caption: str) -> TokenizedText:
        """Encode free text. Full stops separate its phrases, if it has several.

        The caption is stripped and lower-cased, and a final "." is added if it has none, as the model's
        authors do. (transformers does not add it. Without it, the last phrase depends on the padding: its
        tokens see each other only if padding follows.) Raises ValueError if the caption has no words, and
        TextTooLongError.
        """
        cleaned = caption.strip().lower()
        encoding = self._encode(cleaned if cleaned.endswith(".") else cleaned + ".")
        words = self._words(encoding)
        if not words:
            raise ValueError("The caption has no words.")
        spans: list[list[int]] = [[]]
        for position in words:
            if spans[-1] and position != spans[-1][-1] + 1:
                spans.append([])
            spans[-1].append(position)
        return self._tokenized(encoding, (), spans)

    def decode_phrases(
        self, text: TokenizedText, chosen: NDArray[np.bool_], best_spans: NDArray[np.intp]
    ) -> list[str]:
        """Return the words of a caption that name each of Q objects.

        chosen: bool [Q,T], the tokens that scored over the threshold. best_spans: [Q], the index of the span
        that scored best, which names an object for which no word is chosen.
        """
        words = np.concatenate([np.asarray(span) for span in text.spans])
        chosen = chosen & (text.attention_mask > 0)
        chosen[:, [0, int(text.attention_mask.sum()) - 1]] = False  # [CLS] and [SEP]
        phrases = []
        for row, best_span in zip(chosen, best_spans, strict=True):
            positions = np.flatnonzero(row) if row[words].any() else np.asarray(text.spans[best_span])
            # Special tokens are kept, because a word outside of the vocabulary reads [UNK].
            ids = text.input_ids[positions].tolist()
            phrases.append(self.tokenizer.decode(ids, skip_special_tokens=False))
        return phrases

    def _encode(self, caption: str) -> Encoding:
        encoding = self.tokenizer.encode(caption)
        if len(encoding) > self.lengths[-1]:
            raise TextTooLongError(len(encoding), self.lengths[-1], counted="separators, start and end")
        return encoding

    def _words(self, encoding: Encoding) -> list[int]:
        """Return the positions of the tokens that are neither special nor separators."""
        separators = self._ids(_SEPARATORS)
        return [
            position
            for position, (token, special) in enumerate(
                zip(encoding.ids, encoding.special_tokens_mask, strict=True)
            )
            if not special and token not in separators
        ]

    def _tokenized(
        self, encoding: Encoding, phrases: tuple[str, ...], spans: Sequence[Sequence[int]]
    ) -> TokenizedText:
        length = next(length for length in self.lengths if length >= len(encoding))
        input_ids = np.full(length, token_id(self.tokenizer, _PADDING), dtype=np.int64)
        input_ids[: len(encoding)] = encoding.ids
        attention_mask = (np.arange(length) < len(encoding)).astype(np.int64)
        delimiters = self._ids(_DELIMITERS)
        position_ids, self_attention_mask = attention_blocks(
            np.array([token in delimiters for token in input_ids])
        )
        return TokenizedText(
            input_ids,
            attention_mask,
            position_ids,
            self_attention_mask,
            phrases,
            tuple(tuple(span) for span in spans),
        )

    def _ids(self, tokens: Sequence[str]) -> set[int]:
        return {token_id(self.tokenizer, token) for token in tokens}


def attention_blocks(is_delimiter: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return the position ids [T] and the self-attention mask [T,T] of tokens.

    is_delimiter: bool [T], whether a token delimits phrases. A block is a run of tokens and the delimiter
    that closes it. Its tokens see each other, and count their positions from 0. Three kinds of tokens see
    only themselves, at position 0: those of a block that the first token closes, those of a block that the
    very last token of the array closes, and those that no delimiter closes (padding). Equal to transformers'
    generate_masks_with_special_tokens_and_transfer_map.
    """
    length = len(is_delimiter)
    positions = np.arange(length)
    closing = np.minimum.accumulate(np.where(is_delimiter, positions, length)[::-1])[::-1]
    last_delimiter = np.maximum.accumulate(np.where(is_delimiter, positions, -1))
    opening = np.concatenate([[-1], last_delimiter[:-1]])
    in_block = (closing > 0) & (closing < length - 1)
    position_ids = np.where(in_block, positions - opening - 1, 0)
    mask = (closing[:, None] == closing[None]) & in_block[None]
    return position_ids.astype(np.int64), mask | np.eye(length, dtype=np.bool_)
