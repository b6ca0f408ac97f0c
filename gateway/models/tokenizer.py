"""The tokenizer of a model that reads text, and the error for a text with too many tokens."""

from collections.abc import Iterable
from pathlib import Path

from tokenizers import Tokenizer


class TextTooLongError(ValueError):
    """A text has more tokens than the model reads.

    `counted` names, for the message, the tokens that are counted beside those of the caller's own words.
    """

    def __init__(self, token_count: int, max_tokens: int, *, counted: str) -> None:
        super().__init__(f"has {token_count} tokens, {counted} counted; the limit is {max_tokens}")
        self.token_count = token_count
        self.max_tokens = max_tokens


def load_tokenizer(folder: Path, needed_tokens: Iterable[str]) -> Tokenizer:
    """Load `tokenizer.json` from a model's folder, without truncation and padding.

    Raises ValueError if the file is missing or damaged, or if it lacks one of the needed tokens.
    """
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise ValueError(f"There is no file {path}.")
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exception
        raise ValueError(f"{path} cannot be read.") from error
    for token in needed_tokens:
        token_id(tokenizer, token)
    # A file keeps the settings of the tokenizer that was saved: truncation would cut texts silently.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def token_id(tokenizer: Tokenizer, token: str) -> int:
    """Return the id of a token; raise ValueError if there is none."""
    index = tokenizer.token_to_id(token)
    if index is None:
        raise ValueError(f"The model's tokenizer.json has no token {token}.")
    return index
