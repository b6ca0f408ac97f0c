"""The scripts that characters belong to."""

import unicodedata
from collections import Counter
from collections.abc import Mapping
from functools import lru_cache

# A name of fewer letters is no alphabet. Vocabularies have a few letters of many scripts as symbols.
MIN_LETTERS = 20

# Unicode names ideographs after China, Japan and Korea. The script is called Han.
_NAMES = {"Cjk": "Han"}


# A vocabulary of 18,709 characters takes 20 ms, and is looked at whenever models are listed.
@lru_cache(maxsize=16)
def letters_by_script(characters: str) -> Mapping[str, int]:
    """Return how many different letters of each script there are, the largest script first.

    Scripts have Unicode's English names. Wide, narrow and other forms of a letter count once.
    """
    letters = {letter for letter in unicodedata.normalize("NFKC", characters) if letter.isalpha()}
    names = (unicodedata.name(letter, "").partition(" ")[0].capitalize() for letter in letters)
    counts = Counter(_NAMES.get(name, name) for name in names)
    return {name: count for name, count in counts.most_common() if count >= MIN_LETTERS}
