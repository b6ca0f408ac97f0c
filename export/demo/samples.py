"""A folder of drawn scenes, for those who want to try commands over folders and have no photos at hand."""

from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from export.demo import scenes
from export.demo.unseen import SIZES

# The fonts of the other scenes come with a package that serving does not need.
PLAN = scenes.Plan(shapes=(1, 3), words=(0, 1), fonts=(scenes.PILLOW_FONT,), degraded=False)
COPY_EVERY = 8
"""One scene in so many is there twice: as it is, and as a smaller JPEG file."""


def write(folder: Path, count: int) -> Iterator[Path]:
    """Write scenes that no model was trained on, the same ones each time, and yield each file's path.

    Raises OSError if the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        seed = scenes.FIRST_UNSEEN_SEED + index
        image = Image.fromarray(scenes.draw(seed, *SIZES[index % len(SIZES)], PLAN).image)
        path = folder / f"scene-{index:03d}.png"
        image.save(path)
        yield path
        if index % COPY_EVERY == 0:
            path = folder / f"scene-{index:03d}-small.jpg"
            image.resize((image.width * 3 // 4, image.height * 3 // 4)).save(path, quality=85)
            yield path
