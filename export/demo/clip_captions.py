"""What pictures show and captions say, and the words in which captions say it.

What a picture shows or a caption says is an array int64 [2,2]: two things, each with its (colour, kind) as
indices into COLOURS and KINDS. Things without a colour, and things that are not there, have index 0.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from export.demo import scenes
from export.demo.choice import one_of
from export.demo.scenes import Scene

COLOURS = ("", *scenes.COLOURS)
KINDS = ("", *scenes.SHAPES, "face", "word")
FACE, WORD = KINDS.index("face"), KINDS.index("word")
# Only in captions: a colour or kind that is left open, and a kind that no picture shows.
OPEN, FOREIGN = -1, len(KINDS)

Content = NDArray[np.int64]

NOUNS: Mapping[int, Sequence[str]] = {
    **{KINDS.index(shape): [shape] for shape in scenes.SHAPES},
    OPEN: ["thing", "shape", "object"],
    FACE: ["face", "face", "human face", "person's face"],
    WORD: ["word", "word", "printed word", "text"],
}
ARTICLES = ["", "", "a", "an", "the"]
PAIRS = ["{} and {}", "{} and {}", "{} with {}", "{} next to {}", "{} beside {}", "{}, {}"]
TEMPLATES = [
    *["{}"] * 6,
    *["a photo of {}", "a picture of {}", "a drawing of {}", "an image of {}"] * 2,
    *["a photo of {}.", "this is {}", "there is {}", "a picture with {}", "{} on a plain background", "{}."],
]
# Things that no picture shows.
FOREIGN_WORDS = (
    "person man woman child boy girl baby hand foot dog cat bird horse cow sheep fish bear elephant "
    "lion tiger monkey rabbit mouse snake animal car truck bus train bicycle boat ship airplane road "
    "street city house window door wall roof bridge tree flower grass forest mountain hill river "
    "lake sea beach sky cloud sun moon rain snow fire water food apple banana bread cake cheese "
    "pizza cup bottle bowl knife fork spoon table chair bed sofa lamp book clock phone computer "
    "keyboard screen camera television toy doll hat shirt shoe dress bag flag key tool stone "
    "football tennis guitar piano"
)


def content_of_thing(colour: str, kind: str) -> tuple[int, int]:
    """Return the indices of a thing's colour and kind."""
    return COLOURS.index(colour), KINDS.index(kind)


def content_of(scene: Scene) -> Content | None:
    """Return what a scene shows, or None if that is nothing, more than two things, or one thing twice."""
    shown = [content_of_thing(thing.colour, thing.shape) for thing in scene.things]
    shown += [content_of_thing("", "face")] * len(scene.faces) + [content_of_thing("", "word")] * len(
        scene.words
    )
    if len(shown) not in {1, 2} or len(set(shown)) != len(shown):
        return None
    return np.array([*shown, (0, 0)][:2])


def matches(contents: Content, said: Content) -> NDArray[np.bool_]:
    """Return bool [N,M]: whether picture N shows just what caption M says, in any order.

    contents: [N,2,2]. said: [M,2,2].
    """
    said = said[:, None]  # [M,shown,said,colour and kind]
    agree = ((said == OPEN) | (said == contents[:, None, :, None])).all(-1)
    straight, crossed = agree[..., 0, 0] & agree[..., 1, 1], agree[..., 0, 1] & agree[..., 1, 0]
    matched: NDArray[np.bool_] = straight | crossed
    return matched


def rival(random: np.random.Generator, content: Content) -> Content:
    """Return a content that resembles the given one.

    It has another colour or kind, one thing more or less, or the colours of two things exchanged.
    """
    other = content.copy()
    shapes = np.flatnonzero(content[:, 0])
    change = random.random()
    if change < 0.1:
        other[:] = [(0, FOREIGN), (0, 0)]
    elif change < 0.3:
        kind = int(random.integers(1, len(KINDS)))
        added = (int(random.integers(1, len(COLOURS))) if kind not in {FACE, WORD} else 0, kind)
        other[1] = added if content[1, 1] == 0 else (0, 0)
    elif change < 0.5 and len(shapes) == 2:
        other[:, 0] = other[::-1, 0]
    elif len(shapes):
        place, attribute = random.choice(shapes), random.integers(2)
        choices = len(COLOURS) if attribute == 0 else len(scenes.SHAPES) + 1
        other[place, attribute] = random.integers(1, choices)
    else:
        other[0] = (0, FACE if content[0, 1] == WORD else WORD)
    return other


def with_open(random: np.random.Generator, content: Content) -> Content:
    """Return the content with some colours and some shapes left open."""
    said = content.copy()
    for thing in said[content[:, 0] > 0]:
        if random.random() < 0.15:
            thing[random.integers(2)] = OPEN
    return said


def caption(random: np.random.Generator, said: Content) -> str:
    """Return a caption that says a content in one of many ways."""
    parts = [_name(random, int(colour), int(kind)) for colour, kind in said if kind != 0]
    random.shuffle(parts)
    text = parts[0] if len(parts) == 1 else one_of(random, PAIRS).format(*parts)
    return one_of(random, TEMPLATES).format(text)


def _name(random: np.random.Generator, colour: int, kind: int) -> str:
    if kind == FOREIGN:
        noun = one_of(random, FOREIGN_WORDS.split()) if random.random() < 0.5 else scenes.word(random).lower()
    else:
        noun = one_of(random, NOUNS[kind])
    adjective = COLOURS[colour] if colour > 0 else ""
    article = one_of(random, ARTICLES)
    if article == "an" and (adjective or noun)[0] not in "aeiou":
        article = "a"
    return " ".join(word for word in (article, adjective, noun) if word)
