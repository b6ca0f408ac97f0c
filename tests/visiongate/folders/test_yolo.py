from pathlib import Path

import numpy as np
import yaml

from visiongate.answer import AnswerInfo, ImageInfo
from visiongate.detections import Detection, Detections
from visiongate.folders.yolo import ENDINGS, Labelled, is_for_validation, write_data_set


def labels(index: int = 0, *boxes: tuple[float, float, float, float]) -> Detections:
    items = [Detection(np.array(box, np.float32), "x", 0.5, index) for box in boxes]
    info = AnswerInfo(images=(ImageInfo("", 200, 100),))
    return Detections(items, ["c"] * 100, info, has_masks=False)


def photo(name: str, found: Detections | None = None) -> Labelled:
    return Labelled(name, found or labels(), lambda path: void(path.write_text(name, errors="replace")))


def void(_: object) -> None:
    return None


def label_of(image: Path) -> Path:
    """Where trainers look for the label of an image."""
    head, _, tail = str(image).rpartition("/images/")
    return Path(f"{head}/labels/{tail.rpartition('.')[0]}.txt")


def test_every_image_has_its_own_label_where_trainers_look(tmp_path: Path) -> None:
    ids = [
        "a.jpg",
        "a.png",
        "A.jpg",
        "b/a.jpg",
        "b/images/a.jpg",
        "b/IMAGES/c.jpg",
        "../../out.jpg",
        "/abs/x.jpg",
        "https://example.com/x.jpg?size=1",
        "tar.tar/member.webp",
        "no ending",
        "clip.mp4#7",
        ".hidden.jpg",
        "dir/",
        'quo"te\nnew.jpeg',
        "x" * 300 + ".jpg",
        "é" * 150 + ".jpg",
    ]
    folder = tmp_path / "out"
    photos = [photo(name, labels(index, (0, 0, 2 * index, 50))) for index, name in enumerate(ids)]
    counts = write_data_set(folder, folder, photos, ["c"], 0.5)
    images = [path for path in (folder / "images").rglob("*") if path.is_file()]
    assert sum(counts.values()) == len(images) == len(ids)
    assert all(image.suffix in ENDINGS for image in images)
    for part, count in counts.items():
        assert sum(image.is_relative_to(folder / "images" / part) for image in images) == count
    for image in images:
        index = ids.index(image.read_text())
        assert (
            label_of(image).read_text() == f"{index} {index / 200:.6f} 0.250000 {index / 100:.6f} 0.500000\n"
        )
        assert not image.name.startswith(".")
    assert {path.name for path in tmp_path.iterdir()} == {"out"}
    assert {path.name for path in folder.iterdir()} == {"data.yaml", "images", "labels"}


def test_the_split_never_changes(tmp_path: Path) -> None:
    names = [f"{number}.jpg" for number in range(2000)]
    chosen = {name for name in names if is_for_validation(name, 0.1)}
    assert 150 < len(chosen) < 250
    # A larger share only adds photos.
    assert chosen < {name for name in names if is_for_validation(name, 0.2)}
    assert not [name for name in names if is_for_validation(name, 0)]


def test_parts_and_classes_are_named(tmp_path: Path) -> None:
    """The folder is written at another place than where it will be."""
    counts = write_data_set(tmp_path / "new", tmp_path / "out", [photo("a.jpg")], ['say "a": b', "ü"], 0)
    assert counts == {"train": 1, "val": 0}
    assert (tmp_path / "new/labels/train/a.txt").read_text() == ""
    data = (tmp_path / "new/data.yaml").read_text()
    assert yaml.safe_load(data) == {
        "path": str(tmp_path / "out"),
        "train": "images/train",
        # Nothing is kept for validation.
        "val": "images/train",
        "names": {0: 'say "a": b', 1: "ü"},
    }
