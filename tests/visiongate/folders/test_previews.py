import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco

from visiongate import draw
from visiongate.answer import AnswerInfo, ImageInfo
from visiongate.detections import Detection, Detections
from visiongate.folders.previews import MAX_SIDE, preview, preview_name, sample
from visiongate.masks import Mask


def labels(*items: Detection) -> Detections:
    info = AnswerInfo(images=(ImageInfo("", 200, 100),))
    return Detections(items, ["spoon", "cup"], info, has_masks=any(item.mask for item in items))


def test_a_sample_is_spread_and_stable() -> None:
    names = [f"{number:04d}.jpg" for number in range(1000)]
    chosen = sample(names, 50)
    assert chosen == sorted(chosen) == sample(names, 50)
    assert len(set(chosen)) == 50
    assert 10 < sum(name < "0500" for name in chosen) < 40
    # Ten times as many photos do not bring in only new ones by chance alone: a tenth stays.
    assert set(sample(names[:500], 50)) >= {name for name in chosen if name < "0500"}
    assert sample(["b", "a", "b"], 5) == ["b", "a"]
    assert sample(names, 0) == []


def test_boxes_and_masks_are_drawn_where_they_are() -> None:
    file = io.BytesIO()
    # The photo lies on its side: labels are of the upright one.
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (100, 200), "white").save(file, "PNG", exif=exif)
    mask = np.zeros((100, 200), np.uint8, order="F")
    mask[60:80, 150:180] = 1
    rle = coco.encode(mask)
    box = np.array([150, 60, 180, 80])
    found = Mask(0.9, box, 600, {"size": rle["size"], "counts": rle["counts"].decode()}, None)
    item = Detection(box.astype(np.float32), "cup", 0.5, 1, found)
    picture = preview(file.getvalue(), labels(item))
    assert picture.size == (200, 100)
    pixels = np.asarray(picture)
    assert tuple(pixels[70, 150]) == draw.PALETTE[1]
    inside = pixels[70, 165].astype(int)
    assert tuple(inside) not in {draw.PALETTE[1], (255, 255, 255)}
    assert tuple(pixels[20, 20]) == (255, 255, 255)
    without = preview(file.getvalue(), labels(replace(item, mask=None)))
    assert tuple(np.asarray(without)[70, 165]) == (255, 255, 255)


def test_large_photos_become_small_previews() -> None:
    file = io.BytesIO()
    Image.new("RGB", (2 * MAX_SIDE, 300)).save(file, "PNG")
    assert preview(file.getvalue(), labels()).size == (MAX_SIDE, 150)


def test_what_is_no_image_raises() -> None:
    with pytest.raises(OSError, match="cannot identify"):
        preview(b"no image", labels())


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("a/b.jpg", "0003-b.jpg"),
        ("../../etc/x\n<y>.png", "0003-x__y_.jpg"),
        ("x" * 300, f"0003-{'x' * 60}.jpg"),
        ("", "0003-.jpg"),
    ],
)
def test_names_are_safe(name: str, file: str) -> None:
    assert preview_name(3, name) == file
