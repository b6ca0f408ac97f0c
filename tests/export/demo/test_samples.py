import hashlib
from pathlib import Path

from PIL import Image

from export.demo.samples import write


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def test_a_folder_of_scenes_is_the_same_each_time(tmp_path: Path) -> None:
    paths = list(write(tmp_path / "new" / "photos", 9))
    assert len(paths) == 11
    assert {path.name for path in paths} >= {"scene-000.png", "scene-000-small.jpg", "scene-008.png"}
    pictures = digests(tmp_path / "new" / "photos")
    # Each file is another picture, and copies are smaller.
    assert len(set(pictures.values())) == 11
    with Image.open(paths[0]) as whole, Image.open(paths[1]) as copy:
        assert copy.width < whole.width
    list(write(tmp_path / "again", 9))
    assert digests(tmp_path / "again") == pictures
