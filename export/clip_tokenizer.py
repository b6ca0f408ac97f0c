"""CLIP's byte-pair tokenizer as a `tokenizers` file, from the vocabulary that open_clip carries."""

import gzip
from pathlib import Path
from typing import TYPE_CHECKING

from export.errors import ExportError, first_line

if TYPE_CHECKING:
    from tokenizers import Tokenizer

# How many merges the models were trained with. The file holds more.
MERGES = 49_152 - 256 - 2
WORD_END = "</w>"
SPECIAL = ("<start_of_text>", "<end_of_text>")
# English contractions, words, single digits, and everything else that is not white space. U+0345 is left out
# because the reference's pattern, which ignores case, does not match it: it is a mark, but its capital is a
# letter.
WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|\p{L}+|\p{N}|[^\s\p{L}\p{N}\x{345}]+"


def own_vocabulary() -> Path:
    """Return the file of the vocabulary in open_clip's package."""
    from open_clip.tokenizer import default_bpe

    return Path(default_bpe())


def from_vocabulary(path: Path, count: int = MERGES) -> "Tokenizer":
    """Build open_clip's SimpleTokenizer from a file of merges: one per line, after a first line of comment.

    The model has `count` of them. The caller cleans the text before, and adds start and end of text after.
    """
    from tokenizers import AddedToken, Regex, Tokenizer, models, pre_tokenizers

    merges = _read(path, count)
    # The alphabet is the printable characters that stand for the 256 bytes. Among the ids, bytes that are
    # printable themselves go before all others. Both groups are in the order of their stand-ins.
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet(), key=ord)
    tokens = [
        *alphabet,
        *(character + WORD_END for character in alphabet),
        *(first + second for first, second in merges),
        *SPECIAL,
    ]
    ids = {token: index for index, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(ids, merges, end_of_word_suffix=WORD_END))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    return tokenizer


def _read(path: Path, count: int) -> list[tuple[str, str]]:
    try:
        with gzip.open(path, "rt", encoding="utf-8", newline="\n") as file:
            lines = file.read().split("\n")[1 : count + 1]
    except (OSError, UnicodeDecodeError) as error:
        raise ExportError(f"Cannot read the vocabulary {path}: {first_line(error)}") from error
    merges = [tuple(line.split()) for line in lines]
    if len(merges) != count or any(len(merge) != 2 for merge in merges):
        raise ExportError(f"{path} is not CLIP's vocabulary: it needs {count} merges.")
    return merges  # type: ignore[return-value]
