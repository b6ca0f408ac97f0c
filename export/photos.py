"""Pictures of the kind that models are made for: a photo, and a drawn scene with shapes, words and a face.

Both need matplotlib, which brings the photo and the fonts. Where it is not installed there are none: ready
ONNX files need little, and are then compared on drawn noise and text alone.
"""

from functools import cache
from importlib import util
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from export.demo.scenes import Scene

_PHOTO = "mpl-data/sample_data/grace_hopper.jpg"


@cache
def scene() -> "Scene | None":
    """Return the drawn scene: shapes, words and a face that no demo model was trained on."""
    if util.find_spec("matplotlib") is None:
        return None
    from export.demo import scenes
    from export.demo.scenes.plan import Plan

    return scenes.draw(scenes.FIRST_UNSEEN_SEED, 480, 480, Plan(shapes=(4, 4), words=(4, 4), faces=(1, 1)))


def pictures(height: int, width: int) -> list[np.ndarray[Any, Any]]:
    """Return the photo and the scene at a size, uint8 [H,W,3] each, or nothing if there are none."""
    spec, drawn = util.find_spec("matplotlib"), scene()
    if spec is None or drawn is None or spec.submodule_search_locations is None:
        return []
    with Image.open(Path(spec.submodule_search_locations[0]) / _PHOTO) as photo:
        found = [photo.convert("RGB"), Image.fromarray(drawn.image)]
    return [np.array(picture.resize((width, height))) for picture in found]


def pages(height: int, width: int) -> list[dict[str, np.ndarray[Any, Any]]]:
    """Return the photo and the scene at a size as one batch, or nothing if there are none."""
    found = pictures(height, width)
    return [{"image": np.stack(found)}] if found else []


def words(height: int, width: int) -> list[dict[str, np.ndarray[Any, Any]]]:
    """Return the words of the scene as a batch of crops of a size, or nothing if there is no scene."""
    drawn = scene()
    crops = cut([word.box for word in drawn.words], height, width) if drawn else []
    return [{"crop": np.stack(crops)}] if crops else []


def cut(boxes: list[np.ndarray[Any, Any]], height: int, width: int) -> list[np.ndarray[Any, Any]]:
    """Return parts of the scene at a size, uint8 [H,W,3] each. Boxes are xyxy in its pixels."""
    drawn = scene()
    assert drawn is not None
    picture = Image.fromarray(drawn.image)
    return [np.array(picture.crop(tuple(box.tolist())).resize((width, height))) for box in boxes]
