"""The demo CLIP's own vocabulary: byte pairs of the words that captions use, and of some others."""

import gzip
import itertools
import re
import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from export.demo.clip_captions import ARTICLES, COLOURS, FOREIGN_WORDS, NOUNS, PAIRS, TEMPLATES
from export.families.clip import DEMO, DEMO_MERGES, DEMO_VOCABULARY

# Words that are one token each, although the models were not taught them.
OTHER_WORDS = (
    "of in on at to from by for are was it that these those two three four five left right above "
    "below under over between behind near front top bottom middle inside small large big little "
    "bright dark light pale black white grey gray brown pink colour color sketch close up view scene "
    "simple many some no not eye nose mouth hair run walk sit stand hold eat sleep look wear ride "
    "drive fly swim old young new happy sad round long short tall"
)


def learn_merges(words: Mapping[str, int], count: int) -> list[tuple[str, str]]:
    """Return the merges of byte-pair encoding: `count` times, join the most frequent pair.

    `words` maps words to their frequencies.
    """
    spellings = {word: [*word[:-1], word[-1] + "</w>"] for word in words}
    merges = []
    for _ in range(count):
        pairs: Counter[tuple[str, str]] = Counter()
        for word, parts in spellings.items():
            for pair in itertools.pairwise(parts):
                pairs[pair] += words[word]
        # Among equally frequent pairs the first in the alphabet, so that the result is always the same.
        merge = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(merge)
        for parts in spellings.values():
            for place in range(len(parts) - 2, -1, -1):
                if (*parts[place : place + 2],) == merge:
                    parts[place : place + 2] = ["".join(merge)]
    return merges


def write_vocabulary(path: Path) -> None:
    """Write the merges as open_clip's SimpleTokenizer reads them."""
    texts = " ".join([*ARTICLES, *(noun for nouns in NOUNS.values() for noun in nouns), *PAIRS, *TEMPLATES])
    captions = [*COLOURS[1:], *re.findall("[a-z]+", texts)]
    words = dict.fromkeys(f"{FOREIGN_WORDS} {OTHER_WORDS}".split(), 1) | dict.fromkeys(captions, 20)
    merges = learn_merges(words, DEMO_MERGES)
    lines = ["Merges for the words of captions, and others.", *(" ".join(merge) for merge in merges)]
    # No newline at the end: the reader would take an empty last line for a merge.
    path.write_bytes(gzip.compress("\n".join(lines).encode(), mtime=0))


def tokenizer() -> Any:
    """Return open_clip's own tokenizer with this vocabulary."""
    from open_clip.tokenizer import SimpleTokenizer

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / DEMO_VOCABULARY
        write_vocabulary(path)
        return SimpleTokenizer(str(path), context_length=DEMO["text_cfg"]["context_length"])
