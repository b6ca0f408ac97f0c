"""Videos as inputs of a job."""

import io
import random
import struct
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path

import av
import fsspec
import numpy as np
import pytest
from PIL import Image

from visiongate.batch.inputs import open_source, videos
from visiongate.batch.item import Item

RATE = 10
FRAMES = 30


def film(path: Path, *, is_noise: bool = False, **options: str) -> Path:
    """Write 3 seconds: a white or noisy left half; a right half that is brighter by 8 with each frame."""
    noise = np.random.default_rng(0)
    with av.open(str(path), "w", options=options) as output:
        stream = output.add_stream("libx264", rate=RATE)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt, stream.options = (
            64,
            32,
            "yuv420p",
            {"g": "5", "bf": "0" if path.suffix == ".avi" else "2"},
        )
        for number in range(FRAMES):
            pixels = np.full((32, 64, 3), 255, np.uint8)
            pixels[:, 32:] = 8 * number
            if is_noise:
                pixels[:, :32] = noise.integers(256, size=(32, 32, 3))
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, RATE)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return path


def opened(item: Item) -> Image.Image:
    return Image.open(io.BytesIO(item.read()))


def brightness(item: Item) -> float:
    """Return the mean of the right half."""
    return float(np.asarray(opened(item).convert("L"))[4:28, 40:60].mean())


@pytest.mark.parametrize("name", ["x.mp4", "x.mkv", "x.avi", "x.ts"])
def test_frames(tmp_path: Path, name: str) -> None:
    items = list(open_source([str(film(tmp_path / name))], every_nth=7))
    assert [item.id for item in items] == [f"{name}#{number}" for number in range(0, FRAMES, 7)]
    assert [item.time_s for item in items] == pytest.approx([number / RATE for number in range(0, FRAMES, 7)])
    # Each is its own frame.
    assert [brightness(item) for item in items] == pytest.approx([8 * n for n in range(0, FRAMES, 7)], abs=6)
    image = opened(items[0])
    assert (image.format, image.size) == ("JPEG", (64, 32))
    assert items[0].read() == items[0].read()
    assert len({item.version for item in items}) == 1


def test_all_frames_and_settings(tmp_path: Path) -> None:
    path = str(film(tmp_path / "x.mp4"))
    source = open_source([path])
    assert len(list(source)) == FRAMES
    assert source.count() is None
    assert source.name == path
    assert open_source([path], every_nth=2).name != path


def test_rotation(tmp_path: Path) -> None:
    """A telephone that is held upright writes lying frames, and that they are to be turned."""
    path = film(tmp_path / "x.mp4")
    data = path.read_bytes()
    lying = struct.pack(">9i", 0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)
    # 90 degrees clockwise: what was left is up.
    upright = struct.pack(">9i", 0, 0x10000, 0, -0x10000, 0, 0, 0, 0, 0x40000000)
    place = data.index(lying, data.index(b"tkhd"))
    path.write_bytes(data[:place] + upright + data[place + len(lying) :])
    image = opened(next(iter(open_source([str(path)]))))
    assert image.size == (32, 64)
    pixels = np.asarray(image.convert("L"))
    assert pixels[4:28].mean() > 250
    assert pixels[36:60].mean() < 6


def test_videos_of_a_folder_when_asked(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    film(tmp_path / "a/x.mp4")
    film(tmp_path / "y.mkv")
    Image.new("RGB", (8, 8)).save(tmp_path / "z.png")
    assert [item.id for item in open_source([str(tmp_path)])] == ["z.png"]
    ids = ["a/x.mp4#0", "a/x.mp4#20", "y.mkv#0", "y.mkv#20"]
    source = open_source([str(tmp_path)], kind="video", every_nth=20)
    assert [item.id for item in source] == ids
    assert [item.id for item in open_source([f"{tmp_path}/**/*.m*"], kind="video", every_nth=20)] == ids
    # A film that comes later belongs to the same source.
    film(tmp_path / "z.mp4")
    again = open_source([str(tmp_path)], kind="video", every_nth=20)
    assert again.name == source.name
    assert [item.id for item in again] == [*ids, "z.mp4#0", "z.mp4#20"]


def test_bucket(tmp_path: Path) -> None:
    with fsspec.open("memory://films/x.mp4", "wb") as file:
        file.write(film(tmp_path / "x.mp4").read_bytes())
    items = list(open_source(["memory://films/x.mp4"], every_nth=10))
    assert [brightness(item) for item in items] == pytest.approx([0, 80, 160], abs=6)


def broken(path: Path) -> tuple[int, str]:
    """Return how many frames there are before the last item, and what that one's `read` raises."""
    *items, last = open_source([str(path)])
    for item in items:
        opened(item).load()
    assert last.id == f"{path.name}#{len(items)}"
    with pytest.raises(ValueError, match=path.name) as caught:
        last.read()
    return len(items), str(caught.value)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("x.mp4", {"movflags": "faststart"}),
        ("x.mkv", {}),
        ("x.avi", {}),
        ("x.mp4", {"movflags": "frag_keyframe+empty_moov"}),
    ],
)
def test_video_that_breaks_off(tmp_path: Path, name: str, options: dict[str, str]) -> None:
    path = film(tmp_path / name, is_noise=True, **options)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 6 // 10])
    frames, sentence = broken(path)
    assert 3 < frames < 27
    assert " is no whole video: " in sentence


@pytest.mark.parametrize(
    "data", [b"no video at all", b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n"]
)
def test_no_video(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x.mp4").write_bytes(data)
    assert broken(tmp_path / "x.mp4") == (
        0,
        f"{tmp_path}/x.mp4 is no whole video: invalid data found when processing input",
    )


def test_empty_video(tmp_path: Path) -> None:
    (tmp_path / "x.mp4").touch()
    assert broken(tmp_path / "x.mp4") == (0, f"{tmp_path}/x.mp4 is no whole video: it is empty")


def test_sound_alone(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "x.mp4"), "w") as output:
        stream = output.add_stream("aac", rate=44100)
        assert isinstance(stream, av.AudioStream)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 2048), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 44100
        output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    assert broken(tmp_path / "x.mp4") == (0, f"{tmp_path}/x.mp4 is no whole video: it has no pictures")


@pytest.mark.parametrize("name", ["x.mp4", "x.mkv", "x.ts", "x.avi"])
def test_frames_in_any_order(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Frames that were passed, or are far ahead, are found by their times."""
    monkeypatch.setattr(videos, "_KEPT", 2)
    monkeypatch.setattr(videos, "_FAR", 3)
    items = list(open_source([str(film(tmp_path / name))]))
    numbers = list(range(FRAMES))
    random.Random(0).shuffle(numbers)
    found = [brightness(items[number]) for number in numbers]
    assert found == pytest.approx([8 * number for number in numbers], abs=6)
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(brightness, items))
    assert found == pytest.approx([8 * number for number in range(FRAMES)], abs=6)
