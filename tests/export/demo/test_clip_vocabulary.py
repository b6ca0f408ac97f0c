from pathlib import Path

import numpy as np

from export.demo import clip_captions, clip_vocabulary
from export.demo.clip_captions import OPEN
from export.families.clip import DEMO, DEMO_VOCABULARY

from .conftest import TEXTS


def test_the_vocabulary(tmp_path: Path) -> None:
    from open_clip.tokenizer import SimpleTokenizer

    clip_vocabulary.write_vocabulary(tmp_path / DEMO_VOCABULARY)
    tokenize = SimpleTokenizer(str(tmp_path / DEMO_VOCABULARY), context_length=32)
    assert tokenize.vocab_size == DEMO["text_cfg"]["vocab_size"]
    random = np.random.default_rng(0)
    for colour, kind in ((1, 1), (2, 5), (6, OPEN), (0, clip_captions.FACE), (0, clip_captions.WORD)):
        for text in (clip_captions.caption(random, np.array([(colour, kind), (3, 4)])) for _ in range(20)):
            words = text.replace(",", " ,").replace(".", " .").replace("'s", " ' s").split()
            assert len(tokenize.encode(text)) == len(words)
    for text in TEXTS[:4]:
        assert tokenize.decode(tokenize.encode(text)).replace(" ", "") == text.lower().replace(" ", "")
