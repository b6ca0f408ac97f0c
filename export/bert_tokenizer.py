"""BERT's uncased WordPiece tokenizer as a `tokenizers` file, from a given vocabulary or our own."""

import string
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from export import hub
from export.errors import ExportError, first_line

if TYPE_CHECKING:
    from tokenizers import Tokenizer

# The ids of the tokens that end a phrase, which transformers' Grounding DINO has in its code.
PHRASE_ENDS = {"[CLS]": 101, "[SEP]": 102, ".": 1012, "?": 1029}
SPECIAL = {"[PAD]": 0, "[UNK]": 100, "[CLS]": 101, "[SEP]": 102, "[MASK]": 103}

WORDS = """
a an and at behind below big bottom each front her his in its large left long near of old on one or
right round short small standing striped tall that the their thin this three to top two under wearing
with young black blue brown cyan dark gold gray green grey light lime magenta navy olive orange pink
purple red silver teal violet white yellow arrow ball bar box circle cone cross cube cylinder diamond
disc dot ellipse heart hexagon line oval pentagon polygon prism pyramid rectangle ring shape sphere
spiral square star stripe triangle airplane animal apple backpack bag banana basket bear bed bench
bicycle bike bird boat book bottle bowl boy bread bridge broccoli building bus cake camera car carrot
cat cell chair child clock cloud coat computer couch cow cup curtain desk dining dog donut door dress
dryer elephant eye face fence fire fish floor flower food fork fridge frisbee fruit giraffe girl glass
glasses glove grass hair hand handbag hat head helmet horse hot house hydrant jacket keyboard kid kite
knife lamp laptop leaf leg man meter microwave mirror monitor motorcycle mountain mouse mug nose oven
painting pants paper parking pen pencil people person phone picture pillow pizza plane plant plate
player poster pot potted racket refrigerator remote road roof sandwich scissors screen sea sheep shelf
shirt shoe sign sink skateboard skirt sky snow snowboard sofa spoon sports stop street suitcase sun
surfboard table teddy television tennis text tie toaster toilet tomato toothbrush tower toy traffic
train tree truck tv umbrella van vase wall water wheel window wine woman word zebra
"""


def own_vocabulary() -> list[str]:
    """Return a small vocabulary in BERT's layout, so that special tokens, "." and "?" have BERT's ids.

    It is for weights that have no real vocabulary: random, toy and demo ones. Its characters can spell any
    ASCII text, and the common words of detection prompts are single tokens.
    """
    vocabulary = [f"[unused{i}]" for i in range(999)]
    for token, index in SPECIAL.items():
        vocabulary[index] = token
    characters = string.digits + string.ascii_lowercase
    vocabulary += sorted(string.punctuation + characters)
    vocabulary += [f"##{character}" for character in characters]
    return list(dict.fromkeys(vocabulary + WORDS.split()))


def read_vocabulary(path: Path) -> list[str]:
    """Read a `vocab.txt`: one token per line. Its id is the number of the line, from 0."""
    try:
        return path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ExportError(f"Cannot read the vocabulary {path}: {first_line(error)}") from error


def from_vocabulary(vocabulary: Sequence[str]) -> "Tokenizer":
    """Build the tokenizer that transformers' BertTokenizer makes of this vocabulary."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    ids = {token: index for index, token in enumerate(vocabulary)}
    if lacking := sorted((SPECIAL.keys() | PHRASE_ENDS.keys()) - ids.keys()):
        raise ExportError(f"The vocabulary lacks {' '.join(lacking)}: it is not BERT's.")
    tokenizer = Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))  # noqa: S106
    tokenizer.add_special_tokens(list(SPECIAL))
    # Lower case also removes accents: BERT's uncased vocabulary was made so.
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(token, ids[token]) for token in ("[CLS]", "[SEP]")],
    )
    return tokenizer


def from_folder(folder: Path) -> "Tokenizer":
    """Read the tokenizer in a folder of the hub's layout: tokenizer.json, or vocab.txt."""
    from tokenizers import Tokenizer

    if (folder / "tokenizer.json").is_file():
        try:
            tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        except Exception as error:
            raise ExportError(f"Cannot read {folder / 'tokenizer.json'}: {first_line(error)}") from error
        # Whoever saved it may have stored lengths of their own in it.
        tokenizer.no_padding()
        tokenizer.no_truncation()
        return tokenizer
    if (folder / "vocab.txt").is_file():
        return from_vocabulary(read_vocabulary(folder / "vocab.txt"))
    raise ExportError(f"{folder} has neither tokenizer.json nor vocab.txt; give one with --vocabulary.")


def from_hub(repository: str, revision: str | None) -> "Tokenizer":
    """Fetch the tokenizer of a hub repository."""
    from huggingface_hub import hf_hub_download

    try:
        path = hf_hub_download(repository, "tokenizer.json", revision=revision)
    except Exception as error:
        raise hub.fault(f"the tokenizer of {repository}", error, revision) from error
    return from_folder(Path(path).parent)


def check(tokenizer: "Tokenizer", embeddings: int) -> None:
    """Raise ExportError if Grounding DINO would misread this tokenizer's ids."""
    for token, index in PHRASE_ENDS.items():
        if tokenizer.token_to_id(token) != index:
            raise ExportError(
                f"{token} is token {tokenizer.token_to_id(token)} of the vocabulary, but Grounding DINO "
                f"takes {index} for it: this is not BERT's uncased vocabulary."
            )
    if tokenizer.get_vocab_size() > embeddings:
        raise ExportError(
            f"The vocabulary has {tokenizer.get_vocab_size()} tokens, but the model knows {embeddings}."
        )
