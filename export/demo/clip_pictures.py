"""The pictures that the demo CLIP learns from."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from export.demo import scenes
from export.demo.clip_captions import Content, content_of, content_of_thing
from export.demo.scenes import Plan

# One seed in this many is a busy scene that is cut into its things.
CUT_EVERY = 10
# The largest share of a cut that other things may cover.
MAX_OF_OTHERS = 0.15


@dataclass(frozen=True, slots=True, eq=False)
class Pictures:
    """Pictures as the model takes them, uint8 [N,S,S,3], and what they show, int64 [N,2,2]."""

    images: NDArray[np.uint8]
    contents: Content


class Square:
    """What is done to a picture before the model sees it: resize the shorter side, then crop the middle."""

    def __init__(self, model: Any) -> None:
        from open_clip.transform import PreprocessCfg, image_transform_v2

        transform = image_transform_v2(PreprocessCfg(**model.visual.preprocess_cfg), is_train=False)
        # The last two steps make normalised floats of the bytes, which the exported graph does itself.
        self._steps = transform.transforms[:-2]

    def __call__(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        picture = Image.fromarray(image)
        for step in self._steps:
            picture = step(picture)
        return np.asarray(picture)


def draw_pictures(square: Square, seeds: Iterable[int]) -> Pictures:
    """Draw the pictures of seeds.

    One seed in CUT_EVERY is a busy scene, whose cuts are several pictures. All others show one or two things.
    """
    images, contents = [], []
    for seed in seeds:
        random = np.random.default_rng([seed, 1])
        drawn = _cuts(seed, random) if seed % CUT_EVERY == 0 else _whole(seed, random)
        for image, content in drawn:
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
    """Cut every thing out of a busy scene by its box with some margin."""
    height, width = random.integers(192, 321, 2).tolist()
    scene = scenes.draw(seed, width, height, Plan((2, 7), faces=(0, 2)))
    shown = [content_of_thing(thing.colour, thing.shape) for thing in scene.things]
    shown += [content_of_thing("", "word")] * len(scene.words) + [content_of_thing("", "face")] * len(
        scene.faces
    )
    boxes = [thing.box for thing in scene.things]
    boxes += [word.box for word in scene.words] + [face.box for face in scene.faces]
    for number, (box, content) in enumerate(zip(boxes, shown, strict=True)):
        margins = np.tile(box[2:] - box[:2], 2) * random.uniform(-0.02, 0.2, 4) * [-1, -1, 1, 1]
        edges = np.round(box + margins).astype(int).clip(0, [width, height] * 2)
        x_min, y_min, x_max, y_max = edges.tolist()
        cut = (slice(y_min, y_max), slice(x_min, x_max))
        # A cut that shows much of another thing could have the name of either.
        others = [thing.mask[cut].mean() for other, thing in enumerate(scene.things) if other != number]
        if sum(others) < MAX_OF_OTHERS:
            yield scene.image[cut], np.array([content, (0, 0)])


def vary(random: np.random.Generator, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Mirror a picture [S,S,3], shift it by some pixels, and change its light a little."""
    if random.random() < 0.5:
        image = image[:, ::-1]
    size, most = len(image), 4
    x, y = random.integers(2 * most + 1, size=2)
    image = np.pad(image, ((most, most), (most, most), (0, 0)), "edge")[y : y + size, x : x + size]
    light = random.uniform(0.9, 1.1) * random.uniform(0.96, 1.04, 3)
    return (image * light.astype(np.float32)).clip(0, 255).astype(np.uint8)
