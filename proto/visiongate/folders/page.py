"""A page of thumbnails to look at: one HTML file that needs no script and no other file."""

import base64
import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import jinja2

from visiongate.folders.thumbnails import Picture, data_uri

MAX_TILES = 2000
"""How many pictures a page shows by default: about 20 MB, which browsers still scroll with ease."""

LEAST_SHARE = 24
"""So many pictures of a section are shown, while the page has room at all."""

_FILES = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Tile:
    """A picture of a page. One that cannot be read is a grey tile.

    caption: below it, such as the file's name. badge: on it, a word or a number. detail: a line in small
    print below the caption.
    """

    image: Picture
    caption: str
    badge: str = ""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Section:
    """Pictures that belong together. note: a sentence below the title."""

    title: str
    note: str
    tiles: Sequence[Tile]


def write_page(
    path: Path, title: str, sections: Sequence[Section], *, note: str = "", max_tiles: int = MAX_TILES
) -> int:
    """Write a page of the sections' pictures, and return how many it shows. It is there whole or not at all.

    `note` is a sentence below the title.

    All texts are shown as they are: none can bring in HTML. Pictures are read one by one as they are written.
    Of more than `max_tiles` pictures, sections show their first ones, and the page says how many it leaves
    out.
    Raises OSError if the file cannot be written.
    """
    counts = [len(section.tiles) for section in sections]
    limits = _shares(counts, max_tiles)
    shown = sum(limits)
    style = (_FILES / "page.css").read_text("utf-8")
    page = _template().stream(
        title=title,
        note=note,
        style=style,
        style_hash=base64.b64encode(hashlib.sha256(style.encode()).digest()).decode(),
        shown=shown,
        total=sum(counts),
        left_out=sum(1 for count, limit in zip(counts, limits, strict=True) if count and not limit),
        sections=_shown(sections, limits),
    )
    page.enable_buffering(16)
    with _whole_file(path) as file:
        for piece in page:
            # Names can have surrogates, which cannot be written: their escapes are shown.
            file.write(piece.encode("utf-8", "backslashreplace"))
    return shown


def _template() -> jinja2.Template:
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string((_FILES / "page.html.jinja").read_text("utf-8"))


def _shown(sections: Sequence[Section], limits: Sequence[int]) -> Iterator[dict[str, Any]]:
    for section, limit in zip(sections, limits, strict=True):
        if limit or not section.tiles:
            yield {
                "title": section.title,
                "note": section.note,
                "count": len(section.tiles),
                "shown": limit,
                "tiles": ((tile, data_uri(tile.image)) for tile in section.tiles[:limit]),
            }


def _shares(counts: Sequence[int], total: int) -> list[int]:
    """Return how many pictures of each section are shown, `total` of all at most.

    No section takes more than its fair share, but for the first few dozen: of many groups the first ones are
    rather shown whole than each with a single picture.
    """
    most = max(LEAST_SHARE, _fair_share(counts, total))
    shares = []
    for count in counts:
        shares.append(min(count, most, total))
        total -= shares[-1]
    return shares


def _fair_share(counts: Sequence[int], total: int) -> int:
    """Return how many each may take at most, so that all get as many, and what small ones leave is used."""
    for place, count in enumerate(sorted(counts)):
        share = total // (len(counts) - place)
        if count > share:
            return share
        total -= count
    return max(counts, default=0)


@contextmanager
def _whole_file(path: Path) -> Iterator[BinaryIO]:
    """Lend a file that takes its name once it is complete, and leaves nothing behind if it is not."""
    if path.exists() and not path.is_file():
        # A pipe or a device cannot be replaced.
        with path.open("wb") as file:
            yield file
        return
    path = path.resolve()
    part = path.with_name(f".{os.getpid()}-{path.name}"[:200])
    try:
        with part.open("wb") as file:
            yield file
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
