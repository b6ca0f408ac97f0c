"""The words that scenes show, and the fonts that they are printed in."""

from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ImageFont

from export.demo.choice import one_of

# Pillow's own font is Aileron Regular. The files of the others come with matplotlib.
PILLOW_FONT = "Aileron"
FONTS = {
    PILLOW_FONT: None,
    "DejaVu Sans": "DejaVuSans.ttf",
    "DejaVu Sans Bold": "DejaVuSans-Bold.ttf",
    "DejaVu Sans Mono": "DejaVuSansMono.ttf",
    "DejaVu Serif": "DejaVuSerif.ttf",
    "STIX General": "STIXGeneral.ttf",
    "STIX General Bold": "STIXGeneralBol.ttf",
}
# The parts of syllables. A part that is listed twice is twice as likely.
ONSETS = [*"bcdfghjklmnprstvwzqxy", "st", "tr", "pl", "br", "ch", "sh", "gr", "fl", "qu", "th"]
VOWELS = [*"aeiouyaeio", "ee", "oo", "ai", "ea", "ou"]
CODAS = [*"nrstlmdxpwfbg", "ck", "ng", "st", "rd", "nt"]
ALPHABET = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
"""All characters of the words."""


def word(random: np.random.Generator) -> str:
    """Return a number, or a word that can be spoken in lower case, capitalised or in capitals."""
    if random.random() < 0.2:
        return str(random.integers(10 ** random.integers(1, 6)))
    text = ""
    for _ in range(random.integers(1, 4)):
        text += one_of(random, ONSETS) + one_of(random, VOWELS)
        if random.random() < 0.5:
            text += one_of(random, CODAS)
    case = random.random()
    if case < 0.5:
        return text
    return text.capitalize() if case < 0.75 else text.upper()


@cache
def font(name: str, size: int) -> ImageFont.FreeTypeFont:
    """Return one of FONTS, `size` pixels high. Raise ModuleNotFoundError if its file is not installed."""
    file = FONTS[name]
    if file is None:
        default: Any = ImageFont.load_default(size)
        return default  # type: ignore[no-any-return]
    package = find_spec("matplotlib")
    if package is None or package.origin is None:
        raise ModuleNotFoundError(f"The font {name} comes with matplotlib, which is not installed.")
    return ImageFont.truetype(Path(package.origin).parent / "mpl-data/fonts/ttf" / file, size)
