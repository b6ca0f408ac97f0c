from pathlib import Path
from typing import Any

import pytest

from visiongate.folders.yolo import ENDINGS, Labelled, is_for_validation, write_data_set


def photo(name: str, labels: list[dict[str, Any]] | None = None) -> Labelled:
    return Labelled(name, 200, 100, labels or [], lambda path: path.write_text(name, errors="replace"))


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
    labels = [
        {
            "phrase_index": index,
            "box": {"x_min": 0.0, "y_min": 0.0, "x_max": 2.0 * index, "y_max": 50.0},
        }
        for index in range(len(ids))
    ]
    folder = tmp_path / "out"
    photos = [photo(name, [label]) for name, label in zip(ids, labels, strict=True)]
    counts = write_data_set(folder, photos, ["c"], 0.5)
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


def test_a_data_set_replaces_the_last_one(tmp_path: Path) -> None:
    write_data_set(tmp_path, [photo("old.jpg"), photo("kept.jpg")], ["a"], 0)
    assert (tmp_path / "labels/train/old.txt").read_text() == ""
    write_data_set(tmp_path, [photo("kept.jpg")], ['say "a": b', "ü"], 0)
    assert [path.name for path in (tmp_path / "images/train").iterdir()] == ["kept.jpg"]
    assert [path.name for path in (tmp_path / "labels/train").iterdir()] == ["kept.txt"]
    assert (tmp_path / "data.yaml").read_text().splitlines() == [
        f'path: "{tmp_path}"',
        "train: images/train",
        # Nothing is kept for validation.
        "val: images/train",
        "names:",
        '  0: "say \\"a\\": b"',
        '  1: "\\u00fc"',
    ]


def test_a_failure_leaves_the_last_data_set(tmp_path: Path) -> None:
    write_data_set(tmp_path, [photo("old.jpg")], ["a"], 0)

    def fail(path: Path) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        write_data_set(tmp_path, [photo("a.jpg"), Labelled("b.jpg", 1, 1, [], fail)], ["a"], 0)
    assert {path.name for path in tmp_path.iterdir()} == {"data.yaml", "images", "labels"}
    assert [path.name for path in (tmp_path / "images/train").iterdir()] == ["old.jpg"]
