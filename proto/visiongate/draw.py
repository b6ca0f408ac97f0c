"""Pictures of results: translucent masks, boxes, and captions that stay readable."""

import colorsys
import io
import os
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from visiongate.fonts import Font, font_for
from visiongate.pillow_images import to_rgb

# Colours that are easy to tell apart, also for most colour-blind people, on light and dark photos.
PALETTE = (
    (230, 70, 60),
    (40, 130, 230),
    (250, 175, 30),
    (30, 170, 110),
    (165, 85, 215),
    (20, 190, 205),
    (240, 105, 175),
    (140, 200, 45),
)
MASK_OPACITY = 0.45


@dataclass(frozen=True, eq=False, slots=True)
class Item:
    """A thing to draw: any of a mask bool [H, W], a box xyxy, points [n, 2] with labels, and a caption.

    arrow: [2, 2], the points where it starts and ends. polygon: [n, 2], the corners of an outline; its
    caption is as small as a word of its height.

    Items of the same `group` share a colour, unless they have a `color` of their own.
    """

    group: int
    caption: str = ""
    box: NDArray[np.floating] | None = None
    mask: NDArray[np.bool_] | None = None
    points: NDArray[np.floating] | None = None
    labels: NDArray[np.integer] | None = None
    arrow: NDArray[np.floating] | None = None
    polygon: NDArray[np.floating] | None = None
    color: tuple[int, int, int] | None = None


def distinct_color(index: int) -> tuple[int, int, int]:
    """Return a colour unlike those of near indices: for more items than the palette has colours."""
    # Steps of the golden ratio never repeat a hue, and divide the circle evenly for any number of items.
    hue = index * 0.618033988749895 % 1
    red, green, blue = colorsys.hls_to_rgb(hue, 0.45 + 0.15 * (index % 3), 0.85)
    return round(red * 255), round(green * 255), round(blue * 255)


def check_writable(path: str | os.PathLike[str]) -> None:
    """Raise ValueError if no picture can be saved under this name.

    It is to be called before the work whose result is drawn.
    """
    if Path(path).is_dir():
        raise ValueError(f"no picture can be written to {path}: it is a folder")
    kind = Image.registered_extensions().get(Path(path).suffix.lower(), "")
    try:
        Image.new("RGB", (1, 1)).save(io.BytesIO(), kind)
    except (KeyError, OSError, ValueError) as error:  # a format that Pillow only reads, or without colours
        raise ValueError(
            f"no picture can be written to {path}: let its name end in .png, .jpg or .webp"
        ) from error


def draw(
    image: Image.Image,
    items: Sequence[Item],
    font: str | os.PathLike[str] | None = None,
    *,
    max_side: int | None = None,
) -> Image.Image:
    """Return a new RGB picture of the image with all items on it, the first item on top.

    The image may be of any mode. It is turned upright as its EXIF data says, as the server does: all
    coordinates are pixels of the upright image. Captions are drawn with the font file `font`, with the one
    that the variable VISIONGATE_FONT names, or with one of this machine's fonts that has their letters.

    The picture has the image's size. If a side is longer than `max_side` pixels, picture and items are scaled
    down to that.
    """
    upright = to_rgb(image)
    if max_side is not None and max(upright.size) > max_side:
        upright, items = _shrunk(upright, items, max_side)
    pixels = np.array(upright)
    # Line widths and letters grow with the picture, so that it looks the same at any size.
    unit = max(1, round(max(pixels.shape[:2]) / 500))
    ordered = list(reversed(items))
    for item in ordered:
        if item.mask is not None:
            _paint_mask(pixels, item.mask, _color(item), unit)
    picture = Image.fromarray(pixels)
    canvas = ImageDraw.Draw(picture)
    for item in ordered:
        if item.box is not None:
            canvas.rectangle([float(value) for value in item.box], outline=_color(item), width=unit + 1)
        if item.polygon is not None:
            canvas.polygon([(float(x), float(y)) for x, y in item.polygon], outline=_color(item), width=unit)
        if item.points is not None:
            _draw_points(canvas, item, unit)
        if item.arrow is not None:
            _draw_arrow(canvas, item.arrow, _color(item), unit)
    letters = max(11, unit * 9)
    taken: list[tuple[float, float, float, float]] = []
    for item in items:
        # On one line, with composed letters: more fonts have those than separate accents.
        caption = unicodedata.normalize("NFC", " ".join(item.caption.split()))
        if caption:
            size = letters if item.polygon is None else _small_letters(item.polygon, letters)
            _draw_caption(canvas, item, caption, picture.size, font_for(caption, size, font), taken)
    return picture


def _shrunk(image: Image.Image, items: Sequence[Item], max_side: int) -> tuple[Image.Image, Sequence[Item]]:
    scale = max_side / max(image.size)
    width, height = (max(1, round(side * scale)) for side in image.size)
    factors = np.array([width / image.width, height / image.height])
    columns = ((np.arange(width) + 0.5) / factors[0]).astype(np.intp)
    rows = ((np.arange(height) + 0.5) / factors[1]).astype(np.intp)
    shrunk = [
        replace(
            item,
            box=None if item.box is None else item.box * np.tile(factors, 2),
            mask=None if item.mask is None else item.mask[np.ix_(rows, columns)],
            points=None if item.points is None else item.points * factors,
            arrow=None if item.arrow is None else item.arrow * factors,
            polygon=None if item.polygon is None else item.polygon * factors,
        )
        for item in items
    ]
    return image.resize((width, height)), shrunk


def _color(item: Item) -> tuple[int, int, int]:
    return item.color or PALETTE[item.group % len(PALETTE)]


def _paint_mask(
    pixels: NDArray[np.uint8], mask: NDArray[np.bool_], color: tuple[int, int, int], thickness: int
) -> None:
    inside = mask.copy()
    for _ in range(thickness):
        padded = np.pad(inside, 1)
        inside = inside & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    pixels[mask] = (pixels[mask] * (1 - MASK_OPACITY) + np.array(color) * MASK_OPACITY).astype(np.uint8)
    pixels[mask & ~inside] = color


def _draw_points(canvas: ImageDraw.ImageDraw, item: Item, unit: int) -> None:
    assert item.points is not None
    labels = np.ones(len(item.points)) if item.labels is None else item.labels
    radius = 3 * unit + 1
    for (x, y), label in zip(item.points, labels, strict=True):
        fill = _color(item) if label else (0, 0, 0)
        canvas.ellipse(
            (x - radius, y - radius, x + radius, y + radius), fill=fill, outline="white", width=unit
        )


def _draw_arrow(
    canvas: ImageDraw.ImageDraw, arrow: NDArray[np.floating], color: tuple[int, int, int], unit: int
) -> None:
    """Draw a white arrow with a rim of the colour. It starts at a dot, and its head is no longer than it."""
    start, end = np.asarray(arrow, np.float64)
    length = float(np.hypot(*(end - start)))
    along = (end - start) / max(length, 1e-9)
    across = np.array([-along[1], along[0]])
    neck = end - along * min(length, 7 * unit)
    for width, fill in ((2 * unit, color), (0, (255, 255, 255))):
        head = [
            end + along * width,
            neck + across * (3 * unit + width) - along * width / 2,
            neck - across * (3 * unit + width) - along * width / 2,
        ]
        radius = 2 * unit + width / 2
        canvas.ellipse((*(start - radius), *(start + radius)), fill=fill)
        canvas.line([*start, *neck], fill=fill, width=2 * unit + width)
        canvas.polygon([tuple(point) for point in head], fill=fill)


def _draw_caption(
    canvas: ImageDraw.ImageDraw,
    item: Item,
    caption: str,
    size: tuple[int, int],
    font: Font,
    taken: list[tuple[float, float, float, float]],
) -> None:
    """Draw a tag with the caption above the item, or lower if an earlier tag is in the way."""
    left, top, right, bottom = canvas.textbbox((0, 0), caption, font=font, anchor="lt")
    margin = (bottom - top) * 0.25
    width, height = right - left + 2 * margin, bottom - top + 2 * margin
    x, y = _anchor(item)
    x = min(max(0, x), max(0, size[0] - width))
    candidates = [min(max(0, y - height + step * height), max(0, size[1] - height)) for step in range(8)]
    spot = next((c for c in candidates if not _overlaps((x, c, x + width, c + height), taken)), candidates[0])
    taken.append((x, spot, x + width, spot + height))
    color = _color(item)
    canvas.rectangle((x, spot, x + width, spot + height), fill=color)
    light = sum(weight * channel for weight, channel in zip((0.299, 0.587, 0.114), color, strict=True))
    canvas.text(
        # "lt" is the corner of the ink. With the default anchor the text can lie partly above the picture.
        (x + margin - left, spot + margin - top),
        caption,
        fill="black" if light > 150 else "white",
        font=font,
        anchor="lt",
    )


def _small_letters(polygon: NDArray[np.floating], largest: int) -> int:
    sides = np.linalg.norm(polygon - np.roll(polygon, 1, axis=0), axis=1)
    return int(np.clip(sides.min() * 0.6, 8, largest))


def _anchor(item: Item) -> tuple[float, float]:
    if item.box is not None:
        return float(item.box[0]), float(item.box[1])
    if item.polygon is not None and len(item.polygon):
        return float(item.polygon[:, 0].min()), float(item.polygon[:, 1].min())
    if item.mask is not None and item.mask.any():
        rows, columns = np.nonzero(item.mask)
        return float(columns.min()), float(rows.min())
    if item.points is not None and len(item.points):
        return float(item.points[0][0]), float(item.points[0][1])
    return 0.0, 0.0


def _overlaps(
    tag: tuple[float, float, float, float], taken: Sequence[tuple[float, float, float, float]]
) -> bool:
    return any(
        tag[0] < other[2] and other[0] < tag[2] and tag[1] < other[3] and other[1] < tag[3] for other in taken
    )
