"""Train the demo CLIP, with a vocabulary of its own, on drawn scenes and what can be said of them.

What a picture shows, or a caption says, is an array int64 [2,2]: two things, each its (colour, kind) as
indices into COLOURS and KINDS. Things without a colour, and things that are not there, have the first one.
"""

import gzip
import itertools
import math
import re
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional

from export import clip
from export.demo import command, scenes, training
from export.demo.scenes import FIRST_UNSEEN_SEED, Plan, Scene
from export.demo.training import Recipe

RECIPE = Recipe(steps=2400, learning_rate=2e-3, weight_decay=0.05, average=0.995, bfloat16=True)
# Pictures of a batch. It has two captions for each.
BATCH = 128
# Seeds to draw before: pictures are drawn once, and seen in many variations.
POOL = 10_000
# Every so many-th seed is a busy scene, cut into its things.
CUT_EVERY = 10
MAX_OF_OTHERS = 0.15
LARGEST_SCALE = 100.0

COLOURS = ("", *scenes.COLOURS)
KINDS = ("", *scenes.SHAPES, "face", "word")
FACE, WORD = KINDS.index("face"), KINDS.index("word")
# In captions: a colour or kind that is left open, and a kind that no picture has.
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
# What else one might look for, that no picture shows.
FOREIGN_WORDS = (
    "person man woman child boy girl baby hand foot dog cat bird horse cow sheep fish bear elephant "
    "lion tiger monkey rabbit mouse snake animal car truck bus train bicycle boat ship airplane road "
    "street city house window door wall roof bridge tree flower grass forest mountain hill river "
    "lake sea beach sky cloud sun moon rain snow fire water food apple banana bread cake cheese "
    "pizza cup bottle bowl knife fork spoon table chair bed sofa lamp book clock phone computer "
    "keyboard screen camera television toy doll hat shirt shoe dress bag flag key tool stone "
    "football tennis guitar piano"
)
# What the vocabulary has as one token besides, for all that the models were not taught it.
OTHER_WORDS = (
    "of in on at to from by for are was it that these those two three four five left right above "
    "below under over between behind near front top bottom middle inside small large big little "
    "bright dark light pale black white grey gray brown pink colour color sketch close up view scene "
    "simple many some no not eye nose mouth hair run walk sit stand hold eat sleep look wear ride "
    "drive fly swim old young new happy sad round long short tall"
)


def learn_merges(words: Mapping[str, int], count: int) -> list[tuple[str, str]]:
    """Byte-pair encoding: of words with their frequencies, join the most frequent pair, `count` times."""
    spellings = {word: [*word[:-1], word[-1] + "</w>"] for word in words}
    merges = []
    for _ in range(count):
        pairs: Counter[tuple[str, str]] = Counter()
        for word, parts in spellings.items():
            for pair in itertools.pairwise(parts):
                pairs[pair] += words[word]
        # Of equally frequent ones the first in the alphabet, so that the result is always the same.
        merge = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(merge)
        for parts in spellings.values():
            for place in range(len(parts) - 2, -1, -1):
                if (*parts[place : place + 2],) == merge:
                    parts[place : place + 2] = ["".join(merge)]
    return merges


def write_vocabulary(path: Path) -> None:
    """Write the merges as open_clip's SimpleTokenizer reads them."""
    said = " ".join([*ARTICLES, *(noun for nouns in NOUNS.values() for noun in nouns), *PAIRS, *TEMPLATES])
    captions = [*COLOURS[1:], *re.findall("[a-z]+", said)]
    words = dict.fromkeys(f"{FOREIGN_WORDS} {OTHER_WORDS}".split(), 1) | dict.fromkeys(captions, 20)
    merges = learn_merges(words, clip.DEMO_MERGES)
    lines = ["Merges for the words of captions, and others.", *(" ".join(merge) for merge in merges)]
    # Their reader would take an empty last line for a merge.
    path.write_bytes(gzip.compress("\n".join(lines).encode(), mtime=0))


@dataclass(frozen=True, slots=True, eq=False)
class Pictures:
    """Pictures as the model takes them, uint8 [N,S,S,3], and what they show, int64 [N,2,2]."""

    images: NDArray[np.uint8]
    contents: Content


class Square:
    """What is done to pictures before the model: shorter side to its size, then the middle."""

    def __init__(self, model: Any) -> None:
        from open_clip.transform import PreprocessCfg, image_transform_v2

        transform = image_transform_v2(PreprocessCfg(**model.visual.preprocess_cfg), is_train=False)
        # Its last two make floats of the bytes and normalise them: the exported graph does that itself.
        self._steps = transform.transforms[:-2]

    def __call__(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        picture = Image.fromarray(image)
        for step in self._steps:
            picture = step(picture)
        return np.asarray(picture)


def draw_pictures(square: Square, seeds: Iterable[int]) -> Pictures:
    """Draw the pictures of seeds: two in three of one or two things, the others the cuts of a busy scene."""
    images, contents = [], []
    for seed in seeds:
        random = np.random.default_rng([seed, 1])
        found = _cuts(seed, random) if seed % CUT_EVERY == 0 else _whole(seed, random)
        for image, content in found:
            images.append(square(image))
            contents.append(content)
    return Pictures(np.stack(images), np.stack(contents))


def _whole(seed: int, random: np.random.Generator) -> Iterator[tuple[NDArray[np.uint8], Content]]:
    side = int(random.integers(64, 97) if random.random() < 0.75 else random.integers(97, 193))
    if random.random() < 0.85:
        plan = Plan((int(random.integers(1, 3)), 2), (0, 0), (0, 0), (0.25, 0.85))
    else:
        plan = Plan((0, 1), (0, 1), (0, 1), (0.25, 0.7), font_size=(0.1, 0.25), face_size=(0.4, 0.9))
    scene = scenes.draw(seed, side, side, plan)
    content = content_of(scene)
    if content is not None:
        yield scene.image, content


def _cuts(seed: int, random: np.random.Generator) -> Iterator[tuple[NDArray[np.uint8], Content]]:
    """Cut every thing out of a busy scene, by its box with some margin."""
    height, width = random.integers(192, 321, 2).tolist()
    scene = scenes.draw(seed, width, height, Plan((2, 7), faces=(0, 2)))
    shown = [_thing(thing.colour, thing.shape) for thing in scene.things]
    shown += [_thing("", "word")] * len(scene.words) + [_thing("", "face")] * len(scene.faces)
    boxes = [thing.box for thing in scene.things]
    boxes += [word.box for word in scene.words] + [face.box for face in scene.faces]
    for number, (box, content) in enumerate(zip(boxes, shown, strict=True)):
        margins = np.tile(box[2:] - box[:2], 2) * random.uniform(-0.02, 0.2, 4) * [-1, -1, 1, 1]
        edges = np.round(box + margins).astype(int).clip(0, [width, height] * 2)
        x_min, y_min, x_max, y_max = edges.tolist()
        cut = (slice(y_min, y_max), slice(x_min, x_max))
        # A cut that shows much of another thing could be called either.
        others = [thing.mask[cut].mean() for other, thing in enumerate(scene.things) if other != number]
        if sum(others) < MAX_OF_OTHERS:
            yield scene.image[cut], np.array([content, (0, 0)])


def _thing(colour: str, kind: str) -> tuple[int, int]:
    return COLOURS.index(colour), KINDS.index(kind)


def content_of(scene: Scene) -> Content | None:
    """Return what a scene shows, or None where that is nothing, more than two things, or twice the same."""
    shown = [_thing(thing.colour, thing.shape) for thing in scene.things]
    shown += [_thing("", "face")] * len(scene.faces) + [_thing("", "word")] * len(scene.words)
    if len(shown) not in {1, 2} or len(set(shown)) != len(shown):
        return None
    return np.array([*shown, (0, 0)][:2])


def matches(contents: Content, said: Content) -> NDArray[np.bool_]:
    """Which captions [M,2,2] tell all that which pictures [N,2,2] show, in any order: [N,M]."""
    said = said[:, None]  # [M,shown,said,colour and kind]
    agree = ((said == OPEN) | (said == contents[:, None, :, None])).all(-1)
    straight, crossed = agree[..., 0, 0] & agree[..., 1, 1], agree[..., 0, 1] & agree[..., 1, 0]
    matched: NDArray[np.bool_] = straight | crossed
    return matched


def rival(random: np.random.Generator, content: Content) -> Content:
    """Return what resembles a content: a thing of another colour or kind, one more or less, two mixed up."""
    other = content.copy()
    shapes = np.flatnonzero(content[:, 0])
    change = random.random()
    if change < 0.1:
        other[:] = [(0, FOREIGN), (0, 0)]
    elif change < 0.3:
        kind = int(random.integers(1, len(KINDS)))
        more = (int(random.integers(1, len(COLOURS))) if kind not in {FACE, WORD} else 0, kind)
        other[1] = more if content[1, 1] == 0 else (0, 0)
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
    """Leave some colours and some shapes open."""
    said = content.copy()
    for thing in said[content[:, 0] > 0]:
        if random.random() < 0.15:
            thing[random.integers(2)] = OPEN
    return said


def caption(random: np.random.Generator, said: Content) -> str:
    """Say it in one of many ways."""
    parts = [_name(random, int(colour), int(kind)) for colour, kind in said if kind != 0]
    random.shuffle(parts)
    text = parts[0] if len(parts) == 1 else _one_of(random, PAIRS).format(*parts)
    return _one_of(random, TEMPLATES).format(text)


def _name(random: np.random.Generator, colour: int, kind: int) -> str:
    if kind == FOREIGN:
        noun = (
            _one_of(random, FOREIGN_WORDS.split()) if random.random() < 0.5 else scenes.word(random).lower()
        )
    else:
        noun = _one_of(random, NOUNS[kind])
    adjective = COLOURS[colour] if colour > 0 else ""
    article = _one_of(random, ARTICLES)
    if article == "an" and (adjective or noun)[0] not in "aeiou":
        article = "a"
    return " ".join(word for word in (article, adjective, noun) if word)


def _one_of(random: np.random.Generator, choices: Sequence[str]) -> str:
    return choices[int(random.integers(len(choices)))]


class Learner:
    """Contrast pictures with captions, of which several can be true of one picture.

    pool: how many seeds are drawn, to be trained on again and again. examined: how many to report on.
    """

    network: Any

    def __init__(self, device: torch.device, pool: int = POOL, examined: int = 300) -> None:
        from open_clip import CLIP

        self.network = model = CLIP(**clip.DEMO)
        clip.set_preprocessing(model, {})
        self._pictures = draw_pictures(Square(model), range(pool))
        self._tokenize = tokenizer()
        self._exam = Exam(Square(model), examined)
        self._device = device

    def loss(self, random: np.random.Generator, progress: float) -> dict[str, Tensor]:
        chosen = random.integers(len(self._pictures.images), size=BATCH)
        images = np.stack([vary(random, image) for image in self._pictures.images[chosen]])
        contents = self._pictures.contents[chosen]
        said = np.stack(
            [with_open(random, content) for content in contents]
            + [with_open(random, rival(random, content)) for content in contents]
        )
        ids = self._tokenize([caption(random, one) for one in said])
        with torch.no_grad():
            self.network.logit_scale.clamp_(max=math.log(LARGEST_SCALE))
        (pictures,) = clip.ImageTower(self.network)(torch.from_numpy(images).to(self._device))
        captions = encode(self.network, ids.to(self._device))
        return contrast(pictures, captions, matches(contents, said), self.network.logit_scale)

    def report(self) -> str:
        return self._exam.of(self.network, self._tokenize, self._device)

    def save(self, folder: Path) -> None:
        training.save_halves(self.network.state_dict(), folder / "model.safetensors")
        write_vocabulary(folder / clip.DEMO_VOCABULARY)


def tokenizer() -> Any:
    """Return open_clip's own tokenizer, with our vocabulary."""
    from open_clip.tokenizer import SimpleTokenizer

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / clip.DEMO_VOCABULARY
        write_vocabulary(path)
        return SimpleTokenizer(str(path), context_length=clip.DEMO["text_cfg"]["context_length"])


def vary(random: np.random.Generator, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Mirror a picture [S,S,3], shift it by some pixels, and change its light a little."""
    if random.random() < 0.5:
        image = image[:, ::-1]
    size, most = len(image), 4
    x, y = random.integers(2 * most + 1, size=2)
    image = np.pad(image, ((most, most), (most, most), (0, 0)), "edge")[y : y + size, x : x + size]
    light = random.uniform(0.9, 1.1) * random.uniform(0.96, 1.04, 3)
    return (image * light.astype(np.float32)).clip(0, 255).astype(np.uint8)


def contrast(
    pictures: Tensor, captions: Tensor, true: NDArray[np.bool_], log_scale: Tensor
) -> dict[str, Tensor]:
    """Cross-entropies from pictures' embeddings [N,D] to all captions' [M,D] that are `true` [N,M], and back.

    Each of several true ones has its share. Captions that are true of no picture only stand beside others.
    """
    pictures, captions = (functional.normalize(rows.float(), dim=1) for rows in (pictures, captions))
    logits = log_scale.exp() * pictures @ captions.T
    targets = torch.from_numpy(true).to(logits)
    shown = targets.any(0)
    back = targets.T[shown]
    return {
        "to captions": functional.cross_entropy(logits, targets / targets.sum(1, keepdim=True)),
        "to pictures": functional.cross_entropy(logits.T[shown], back / back.sum(1, keepdim=True)),
    }


def encode(model: Any, ids: Tensor) -> Tensor:
    """Do what `encode_text` does, without the empty places after the longest text: they change nothing."""
    length = int(ids.argmax(1).max()) + 1
    ids = ids[:, :length]
    rows = model.token_embedding(ids) + model.positional_embedding[:length]
    rows = model.ln_final(model.transformer(rows, attn_mask=model.attn_mask[:length, :length]))
    ends: Tensor = rows[torch.arange(len(ids)), ids.argmax(1)] @ model.text_projection
    return ends


class Exam:
    """Unseen pictures: of one thing, to be told among PHRASES; groups of 50, each to find its caption."""

    GROUP = 50

    def __init__(self, square: Square, count: int, first: int = FIRST_UNSEEN_SEED) -> None:
        plan = Plan((1, 1), words=(0, 0), faces=(0, 0), shape_size=(0.3, 0.8))
        single = [scenes.draw(seed, 240, 240, plan) for seed in range(first, first + count)]
        self._singles = np.stack([square(scene.image) for scene in single])
        self._phrases = [scenes.PHRASES.index(scene.things[0].phrase) for scene in single]
        self._groups = []
        seeds = itertools.count(first + count)
        for _ in range(max(1, count // 100)):
            group: dict[frozenset[str], NDArray[np.uint8]] = {}
            while len(group) < self.GROUP:
                scene = scenes.draw(next(seeds), 240, 240, replace(plan, shapes=(1, 2)))
                group.setdefault(frozenset(thing.phrase for thing in scene.things), square(scene.image))
            self._groups.append(group)

    def of(self, model: Any, tokenize: Any, device: torch.device) -> str:
        """Return a line of figures: the shares of pictures for which the right caption is the nearest."""

        def nearest(images: NDArray[np.uint8], captions: list[str]) -> NDArray[np.int64]:
            (rows,) = clip.ImageTower(model).to(device)(torch.from_numpy(images).to(device))
            columns = functional.normalize(model.encode_text(tokenize(captions).to(device)), dim=1)
            numbers: NDArray[np.int64] = (rows @ columns.T).argmax(1).cpu().numpy()
            return numbers

        told = nearest(self._singles, [f"a {phrase}" for phrase in scenes.PHRASES]) == self._phrases
        found = [
            nearest(
                np.stack(list(group.values())),
                [" and ".join(f"a {phrase}" for phrase in sorted(phrases)) for phrases in group],
            )
            == np.arange(self.GROUP)
            for group in self._groups
        ]
        return f"told {np.mean(told):.1%}, found among {self.GROUP} {np.mean(found):.1%}"


def run(device: str, steps: int | None, states: Path, weights: Path) -> None:
    """Train and write the weights."""
    training.train(
        Learner,
        replace(RECIPE, steps=steps or RECIPE.steps),
        "clip",
        state=states / "clip.pt",
        weights=weights / "clip",
        device=device,
    )


if __name__ == "__main__":
    command.main(run)
