"""Pages of thumbnails: what a browser would read in them."""

import base64
import io
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from visiongate.folders import page
from visiongate.folders.page import Section, Tile, write_page
from visiongate.folders.thumbnails import Picture

RED = Image.new("RGB", (600, 300), "red")


class Reader(HTMLParser):
    """The elements of a page with their attributes, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words += data

    def pictures(self) -> list[Image.Image]:
        uris = [attributes["src"] or "" for tag, attributes in self.elements if tag == "img"]
        assert all(uri.startswith("data:image/jpeg;base64,") for uri in uris)
        return [Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))) for uri in uris]


def written(path: Path, *sections: Section, title: str = "Photos", max_tiles: int = 100) -> Reader:
    write_page(path, title, sections, max_tiles=max_tiles)
    return Reader(path.read_text("utf-8"))


def test_pictures_are_small_upright_jpegs(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x112] = 6
    RED.save(tmp_path / "turned.jpg", exif=exif)
    file = io.BytesIO()
    RED.save(file, "PNG")
    pictures: list[Picture] = [
        RED,
        file.getvalue(),
        tmp_path / "turned.jpg",
        file.getvalue,
        Image.new("I;16", (9, 9)),
    ]
    tiles = [Tile(picture, str(index)) for index, picture in enumerate(pictures)]
    seen = written(tmp_path / "page.html", Section("", "", tiles)).pictures()
    assert [image.size for image in seen] == [(240, 120), (240, 120), (120, 240), (240, 120), (9, 9)]
    red, green, blue = seen[2].getpixel((5, 5))  # type: ignore[misc]
    assert red > 240
    assert max(green, blue) < 20


def test_a_broken_picture_is_an_empty_tile(tmp_path: Path) -> None:
    def gone() -> bytes:
        raise OSError("it is gone")

    broken: list[Picture] = [b"", b"\xff\xd8\xff", tmp_path / "none.jpg", gone]
    tiles = [Tile(picture, f"name {index}") for index, picture in enumerate(broken)]
    read = written(tmp_path / "page.html", Section("", "", [*tiles, Tile(RED, "good")]))
    assert len(read.pictures()) == 1
    assert read.words.count("no preview") == 4
    assert "name 3" in read.words


def test_texts_bring_in_no_html(tmp_path: Path) -> None:
    evil = "</title></style><script>alert(1)</script><img src=https://example.com>"
    tile = Tile(RED, evil, badge=evil, detail=evil)
    read = written(tmp_path / "page.html", Section(evil, evil, [tile]), title=evil)
    names = [tag for tag, _ in read.elements]
    assert "script" not in names
    assert names.count("img") == 1
    assert read.words.count(evil) == 7
    assert not any("href" in attributes for _, attributes in read.elements)


def test_the_policy_allows_its_own_style_and_data_alone(tmp_path: Path) -> None:
    read = written(tmp_path / "page.html", Section("", "", []))
    [policy] = [
        value["content"] or "" for tag, value in read.elements if tag == "meta" and "http-equiv" in value
    ]
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'sha256-")
    assert "unsafe" not in policy


def test_names_of_any_bytes_are_written(tmp_path: Path) -> None:
    read = written(tmp_path / "page.html", Section("", "", [Tile(RED, "no \udcff UTF-8"), Tile(RED, "a\nb")]))
    assert "no \\udcff UTF-8" in read.words


def test_a_page_says_what_it_leaves_out(tmp_path: Path) -> None:
    sections = [Section(str(count), "", [Tile(b"", "")] * count) for count in (60, 3, 60)]
    read = written(tmp_path / "page.html", *sections, max_tiles=63)
    assert "shows 63 of 123 pictures." in " ".join(read.words.split())
    assert read.words.count("The first 30 of 60 pictures.") == 2
    assert "This page shows" not in written(tmp_path / "page.html", *sections, max_tiles=123).words


def test_the_first_of_many_groups_are_whole(tmp_path: Path) -> None:
    sections = [Section(f"group {index}", "", [Tile(b"", "")] * 2) for index in range(100)]
    read = written(tmp_path / "page.html", *sections, max_tiles=20)
    assert "shows 20 of 200 pictures, and leaves out 90 sections" in " ".join(read.words.split())
    assert "group 9" in read.words
    assert "group 10" not in read.words


@pytest.mark.parametrize(
    ("counts", "total", "shares"),
    [
        ([], 10, []),
        ([0, 0], 10, [0, 0]),
        ([100, 100], 100, [50, 50]),
        ([100, 10, 100], 100, [45, 10, 45]),
        ([5, 5], 100, [5, 5]),
        ([100] * 10, 100, [24, 24, 24, 24, 4, 0, 0, 0, 0, 0]),
    ],
)
def test_shares(counts: list[int], total: int, shares: list[int]) -> None:
    assert page._shares(counts, total) == shares


def test_a_page_that_fails_leaves_the_last_one(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_text("the last one")

    class Stopped:
        def __call__(self) -> bytes:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_page(path, "", [Section("", "", [Tile(Stopped(), "")])])
    assert path.read_text() == "the last one"
    assert list(tmp_path.iterdir()) == [path]


def test_a_page_follows_a_link(tmp_path: Path) -> None:
    (tmp_path / "link.html").symlink_to(tmp_path / "page.html")
    written(tmp_path / "link.html", Section("", "", []))
    assert (tmp_path / "link.html").is_symlink()
    assert (tmp_path / "page.html").is_file()
