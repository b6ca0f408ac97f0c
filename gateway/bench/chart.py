"""A bar chart, drawn by Pillow."""

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw

from visiongate.fonts import font_for

_WIDTH, _MARGIN = 1100, 28
_LABELS = 210
_BAR, _GAP, _GROUP_GAP = 24, 6, 26
_TEXT, _TITLE, _SMALL = 17, 24, 14
_INK, _PALE, _PAPER = "#1b1f24", "#6a737d", "#ffffff"
_FIRST, _OTHERS = "#1f6feb", "#b6c2cf"


@dataclass(frozen=True, slots=True)
class Bar:
    """value: its length; NaN or 0 for nothing. text: what it says at its end; "" for the value."""

    name: str
    value: float
    text: str = ""


def draw(title: str, groups: Sequence[tuple[str, Sequence[Bar]]], foot: str = "") -> Image.Image:
    """Draw groups of bars. The first of each group is ours; each group has a scale of its own."""
    heights = [_TEXT + 10 + len(bars) * (_BAR + _GAP) + _GROUP_GAP for _, bars in groups]
    height = _MARGIN + _TITLE + 24 + sum(heights) + _SMALL + _MARGIN
    picture = Image.new("RGB", (_WIDTH, height), _PAPER)
    pen = ImageDraw.Draw(picture)
    _write(pen, (_MARGIN, _MARGIN), title, _TITLE, _INK)
    y = _MARGIN + _TITLE + 24
    room = _WIDTH - _LABELS - 2 * _MARGIN - 270
    for (name, bars), taken in zip(groups, heights, strict=True):
        _write(pen, (_MARGIN, y), name, _TEXT, _INK)
        top = max((bar.value for bar in bars if bar.value > 0), default=1.0)
        for index, bar in enumerate(bars):
            line = y + _TEXT + 10 + index * (_BAR + _GAP)
            _write(pen, (_MARGIN + 14, line + 3), bar.name, _TEXT, _INK if index == 0 else _PALE)
            length = room * bar.value / top if bar.value > 0 else 0
            left = _MARGIN + _LABELS
            colour = _FIRST if index == 0 else _OTHERS
            pen.rectangle((left, line, left + max(1, round(length)), line + _BAR), fill=colour)
            text = bar.text or (f"{bar.value:.1f}" if bar.value > 0 else "no answer")
            _write(pen, (left + round(length) + 10, line + 3), text, _TEXT, _INK)
        y += taken
    _write(pen, (_MARGIN, y), foot, _SMALL, _PALE)
    return picture


def _write(pen: ImageDraw.ImageDraw, at: tuple[int, int], text: str, size: int, colour: str) -> None:
    pen.text(at, text, fill=colour, font=font_for(text, size))
