"""Pages whose text is known."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from noto_cjk_sans_jp_regular import FONT_PATH
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Pixels = NDArray[np.uint8]

LATIN = Path(mpl.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
ASIAN = Path(str(FONT_PATH))
PAPER, INK = (246, 244, 240), (25, 25, 30)

# skimage's `page`, line by line. The prompt `>>>` before the last line and the line that its lower edge cuts
# are not found.
SCANNED = [
    "Region-based segmentation",
    "Let us first determine markers of the coins and the",
    "background. These markers are pixels that we can label",
    "unambiguously as either object or background. Here,",
    "the markers are found at the two extreme parts of the",
    "histogram of grey values:",
    "markers = np.zeros_like(coins)",
]
# Left and right entries of each row.
RECEIPT = [
    ("CAFÉ MÜLLER & SØN", ""),
    ("Straße 12, Łódź", ""),
    ("2 x Crème brûlée", "€ 13.80"),
    ("1 x Jalapeño, señor", "£7.25"),
    ("3 x Ålesund salmon", "$41.10"),
    ("Total (incl. 19% VAT)", "€ 62.15"),
    ("Merci, à bientôt!", ""),
]
# Chinese, Japanese and Greek. The networks know the Greek letters of formulas: they have no accents.
SCRIPTS = [
    "国际图书展览会将于下周开幕",
    "我们在咖啡馆里读了三本书",
    "東京都の天気は晴れです",
    "カタカナとひらがなを読む",
    "φιλια και αληθεια",
    "λμξ πσφω",
]


def blank(width: int, height: int) -> Image.Image:
    """Return an empty page."""
    return Image.new("RGB", (width, height), PAPER)


def turned(page: Image.Image, degrees: float) -> Pixels:
    """Return the page turned counter-clockwise, all of it."""
    return np.asarray(page.rotate(degrees, Image.Resampling.BICUBIC, expand=True, fillcolor=PAPER))


def receipt(degrees: float = 0) -> Pixels:
    """Return RECEIPT as a till would print it, names on the left and prices on the right."""
    font = ImageFont.truetype(LATIN, 26)
    page = blank(640, 450)
    draw = ImageDraw.Draw(page)
    for row, (left, right) in enumerate(RECEIPT):
        draw.text((40, 40 + 50 * row), left, INK, font)
        draw.text((600, 40 + 50 * row), right, INK, font, anchor="ra")
    return turned(page, degrees)


def scripts() -> Pixels:
    """Return a page of SCRIPTS."""
    page = blank(760, 480)
    draw = ImageDraw.Draw(page)
    for row, line in enumerate(SCRIPTS):
        font = ImageFont.truetype(ASIAN if ord(line[0]) > 0x2000 else LATIN, 34)
        draw.text((40, 40 + 68 * row), line, INK, font)
    return np.asarray(page)


def columns(texts: Sequence[Sequence[str]], title: str = "", size: int = 18) -> Pixels:
    """Return columns of lines beside each other on one grid, under a title across all of them."""
    font = ImageFont.truetype(LATIN, size)
    width = int(max(font.getlength(line) for lines in texts for line in lines)) + 2 * size
    page = blank(width * len(texts) + size, size * 2 * (max(map(len, texts)) + 4))
    draw = ImageDraw.Draw(page)
    if title:
        draw.text((size, size), title, INK, ImageFont.truetype(LATIN, int(size * 1.5)))
    for column, lines in enumerate(texts):
        for row, line in enumerate(lines):
            draw.text((size + column * width, size * (5 + 1.8 * row)), line, INK, font)
    return np.asarray(page)
