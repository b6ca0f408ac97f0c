"""Fonts for captions in any script: Pillow's own font, or one of this machine's that has the letters."""

import functools
import os
import re
import sys
import unicodedata
from pathlib import Path

from PIL import ImageFont

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

FOLDERS = {
    "darwin": ("/System/Library/Fonts", "/Library/Fonts", "~/Library/Fonts"),
    "win32": ("C:/Windows/Fonts", "~/AppData/Local/Microsoft/Windows/Fonts"),
}.get(sys.platform, ("/usr/share/fonts", "/usr/local/share/fonts", "~/.local/share/fonts", "~/.fonts"))

# Words in the names of font files that are not plain.
_STYLED = re.compile(
    "bold|italic|oblique|black|heavy|light|thin|medium|cond|mono|serif|math|symbol", re.IGNORECASE
)
# Fonts with a picture for every character: a box with its number, or nothing.
_PLACEHOLDERS = re.compile("lastresort|adobeblank|unifont_csur", re.IGNORECASE)

_PROBE_SIZE = 24
# A code point that is no character: every font draws for it what it draws for characters that it lacks.
_NO_CHARACTER = "\uffff"

# Whether a font has a character. It is never emptied, and grows with the scripts in use.
_has: dict[tuple[str, str], bool] = {}

# A search through hundreds of fonts takes a second. A block of 256 characters is no longer searched for when
# no font has this many of them.
_MAX_MISSES = 4
_misses: dict[int, set[str]] = {}
FONT_VARIABLE = "VISIONGATE_FONT"
"""The environment variable that names a font file for captions."""


def font_for(text: str, size: int, named: str | os.PathLike[str] | None = None) -> Font:
    """Return a font of `size` pixels that has the text's characters, or else most of them.

    It tries, in this order: the file `named`, or the one that the variable VISIONGATE_FONT names; Pillow's
    own font, which has the letters of English; the installed fonts, plain ones first. Raises ValueError if
    the named file is no font.
    """
    first = os.fspath(named) if named is not None else os.environ.get(FONT_VARIABLE, "")
    if first:
        load(first, size)
    return load(_choose("".join(sorted(set(filter(_is_drawn, text)))), first), size)


@functools.lru_cache(maxsize=64)
def load(name: str, size: int) -> Font:
    """Load the font of a file; "" is Pillow's own."""
    if not name:
        return ImageFont.load_default(size)
    try:
        return ImageFont.truetype(name, size)
    except OSError as error:
        raise ValueError(f"{name} cannot be read as a font: name a .ttf, .otf or .ttc file") from error


@functools.lru_cache(maxsize=1024)
def _choose(characters: str, first: str) -> str:
    """Return the name of the first font that has all characters, else of the first that has most."""
    counts: dict[str, int] = {}
    for name in dict.fromkeys((first, "")):
        counts[name] = sum(_is_in(name, c) for c in characters)
        if counts[name] == len(characters):
            return name
    sought = [c for c in characters if len(_misses.get(ord(c) >> 8, ())) < _MAX_MISSES]
    missing = set(sought)
    for name in _installed() if sought else ():
        present = {c for c in sought if _is_in(name, c)}
        counts[name] = len(present)
        if len(present) == len(characters):
            break
        missing -= present
    else:
        for c in missing:
            _misses.setdefault(ord(c) >> 8, set()).add(c)
    return max(counts, key=lambda name: counts[name])


@functools.cache
def _installed() -> tuple[str, ...]:
    """List the font files of this machine, plain ones first."""
    paths = [
        path
        for folder in FOLDERS
        for path in Path(folder).expanduser().rglob("*")
        if path.suffix.lower() in (".ttf", ".otf", ".ttc") and not _PLACEHOLDERS.search(path.stem)
    ]
    paths.sort(key=lambda path: (len(_STYLED.findall(path.stem)), len(path.stem), path))
    return tuple(map(str, paths))


def _is_in(name: str, character: str) -> bool:
    key = name, character
    if key not in _has:
        probe = _probe(name)
        _has[key] = probe is not None and _drawn(probe[0], character) != probe[1]
    return _has[key]


# Only a few, because each keeps its file open.
@functools.lru_cache(maxsize=8)
def _probe(name: str) -> tuple[Font, tuple[object, bytes]] | None:
    """Return the font, and what it draws for a character that it lacks; None if it cannot be used."""
    try:
        # The basic layout, because the other one draws nothing for what is no character.
        font = (
            ImageFont.truetype(name, _PROBE_SIZE, layout_engine=ImageFont.Layout.BASIC)
            if name
            else ImageFont.load_default(_PROBE_SIZE)
        )
        return font, _drawn(font, _NO_CHARACTER)
    except OSError:  # damaged, or a font of coloured pictures in a single size
        return None


def _drawn(font: Font, character: str) -> tuple[object, bytes]:
    mask = font.getmask(character, "L")
    return (mask.size, font.getlength(character)), bytes(mask)


def _is_drawn(character: str) -> bool:
    """Say whether a font must have a picture for it. Spaces, joiners and variation selectors need none."""
    return unicodedata.category(character)[0] not in "CZ" and not "\ufe00" <= character <= "\ufe0f"
