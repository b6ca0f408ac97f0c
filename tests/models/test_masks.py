import io
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco

from gateway.models import masks

# pycocotools' decoder on NumPy 2; the encoder, which is what the gateway uses, is clean.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept:DeprecationWarning")

Array = NDArray[np.bool_]
any_mask = arrays.arrays(np.bool_, st.tuples(st.integers(1, 24), st.integers(1, 24)))
both_types = pytest.mark.parametrize("dtype", [np.bool_, np.uint8])


def fill(polygons: list[masks.Polygon], shape: tuple[int, int]) -> Array:
    filled = np.zeros(shape, dtype=np.uint8)
    for polygon in polygons:
        cv2.fillPoly(filled, [polygon.exterior, *polygon.holes], 1)
    return filled.astype(bool)


def blobs(height: int, width: int) -> Array:
    """Large regions with holes, and islands in the holes."""
    rng = np.random.default_rng(height)
    return cv2.GaussianBlur(rng.normal(size=(height, width)), (0, 0), 6) > 0


@settings(max_examples=200, deadline=None)
@given(any_mask)
def test_every_form_gives_the_mask_back(mask: Array) -> None:
    rle = masks.encode_rle(mask)
    assert rle.size == mask.shape
    decoded = coco.decode({"size": list(rle.size), "counts": rle.counts})
    np.testing.assert_array_equal(decoded.astype(bool), mask)

    bits = np.unpackbits(np.frombuffer(masks.encode_bitmap(mask), np.uint8), count=mask.size)
    np.testing.assert_array_equal(bits.reshape(mask.shape).astype(bool), mask)

    with Image.open(io.BytesIO(masks.encode_png(mask))) as png:
        assert png.format == "PNG"
        assert png.mode == "L"
        np.testing.assert_array_equal(np.asarray(png), mask * 255)

    np.testing.assert_array_equal(fill(masks.encode_polygons(mask), mask.shape), mask)


def outlines(encoded: masks.EncodedMask) -> list[list[list[list[int]]]]:
    assert isinstance(encoded, masks.Polygons)
    return [[ring.tolist() for ring in (it.exterior, *it.holes)] for it in encoded.polygons]


@settings(max_examples=150, deadline=None)
@given(
    part=arrays.arrays(np.bool_, st.tuples(st.integers(0, 9), st.integers(0, 9))),
    margins=st.tuples(*[st.integers(0, 9)] * 4),
)
def test_a_part_is_written_as_the_whole_is(part: Array, margins: tuple[int, int, int, int]) -> None:
    top, bottom, left, right = margins
    whole = np.pad(part, ((top, bottom), (left, right)))
    if not whole.size:
        return
    placed, expected = masks.PlacedMask(part, (left, top), whole.shape), masks.PlacedMask.of(whole)
    np.testing.assert_array_equal(placed.whole(), whole)
    assert masks.part_bounding_box(placed) == masks.bounding_box(whole)
    png = masks.MaskFormat.PNG
    assert masks.encode(placed, png) == masks.encode(expected, png)
    assert masks.encode(placed, masks.MaskFormat.RLE) == masks.encode_rle(whole)
    bitmap = masks.Bitmap(whole.shape, masks.encode_bitmap(whole))
    assert masks.encode(placed, masks.MaskFormat.BITMAP) == bitmap
    polygons = masks.MaskFormat.POLYGONS
    assert outlines(masks.encode(placed, polygons)) == outlines(masks.encode(expected, polygons))


def test_parts_without_pixels() -> None:
    size = (7, 9)
    empty, zeros = masks.PlacedMask.empty(size), np.zeros(size, np.bool_)
    assert masks.encode(empty, masks.MaskFormat.RLE) == masks.encode_rle(zeros)
    assert masks.encode(empty, masks.MaskFormat.BITMAP) == masks.Bitmap(size, bytes(8))
    assert masks.encode(empty, masks.MaskFormat.PNG) == masks.Png(masks.encode_png(zeros))
    assert masks.encode(empty, masks.MaskFormat.POLYGONS) == masks.Polygons(())
    assert masks.part_bounding_box(empty) == (0, 0, 0, 0)


@pytest.mark.parametrize("shape", [(301, 203), (1, 500), (500, 1)])
def test_large_masks_come_back(shape: tuple[int, int]) -> None:
    mask = blobs(*shape)
    assert 0.1 < mask.mean() < 0.9
    rle = masks.encode_rle(mask)
    np.testing.assert_array_equal(coco.decode({"size": list(rle.size), "counts": rle.counts}), mask)
    np.testing.assert_array_equal(fill(masks.encode_polygons(mask), shape), mask)


@both_types
def test_rle_is_that_of_pycocotools(dtype: type) -> None:
    mask: NDArray[Any] = blobs(97, 61).astype(dtype)
    expected = coco.encode(np.asfortranarray(mask, dtype=np.uint8))
    rle = masks.encode_rle(mask)
    assert rle.counts == expected["counts"]
    assert rle.size == (97, 61)
    assert coco.area({"size": list(rle.size), "counts": rle.counts}) == masks.area(mask) == mask.sum()


def test_masks_that_are_views() -> None:
    mask = blobs(64, 80)[3:50:2, ::-1]
    assert not mask.flags.c_contiguous
    rle = masks.encode_rle(mask)
    np.testing.assert_array_equal(coco.decode({"size": list(rle.size), "counts": rle.counts}), mask)
    np.testing.assert_array_equal(fill(masks.encode_polygons(mask), mask.shape), mask)


def test_ring_with_an_island() -> None:
    mask = np.zeros((20, 20), dtype=bool)
    mask[2:18, 2:18] = True
    mask[5:15, 5:15] = False
    mask[9:11, 9:11] = True
    polygons = sorted(masks.encode_polygons(mask), key=lambda polygon: polygon.exterior.min())
    ring, island = polygons
    assert {tuple(point) for point in ring.exterior.tolist()} == {(2, 2), (2, 17), (17, 17), (17, 2)}
    assert len(ring.holes) == 1
    # The hole's outline runs through the mask's own pixels around it: (4, 5)...(15, 14) and so on.
    assert ring.holes[0].min() == 4
    assert ring.holes[0].max() == 15
    assert all(mask[y, x] for x, y in ring.holes[0].tolist())
    assert {tuple(point) for point in island.exterior.tolist()} == {(9, 9), (9, 10), (10, 10), (10, 9)}
    assert island.holes == ()


def test_empty_mask() -> None:
    mask = np.zeros((7, 9), dtype=bool)
    assert masks.encode_polygons(mask) == []
    assert masks.bounding_box(mask) == (0, 0, 0, 0)
    assert masks.area(mask) == 0
    rle = masks.encode_rle(mask)
    assert coco.decode({"size": list(rle.size), "counts": rle.counts}).sum() == 0
    assert masks.encode_bitmap(mask) == bytes(8)


def test_bitmap_is_row_major_and_most_significant_first() -> None:
    mask = np.array([[1, 0, 0], [0, 0, 0], [0, 0, 1]], dtype=bool)
    assert masks.encode_bitmap(mask) == bytes([0b10000000, 0b10000000])


@both_types
@settings(max_examples=50, deadline=None)
@given(mask=any_mask)
def test_bounding_box_is_the_smallest_crop(mask: Array, dtype: type) -> None:
    x_min, y_min, x_max, y_max = masks.bounding_box(mask.astype(dtype))
    crop = mask[y_min:y_max, x_min:x_max]
    assert crop.sum() == mask.sum()
    if mask.any():
        assert crop[0].any()
        assert crop[-1].any()
        assert crop[:, 0].any()
        assert crop[:, -1].any()


def test_other_arrays_are_refused() -> None:
    encoders: list[Callable[[Any], object]] = [
        masks.encode_rle,
        masks.encode_polygons,
        masks.encode_png,
        masks.bounding_box,
    ]
    for encode in encoders:
        with pytest.raises(ValueError, match="A mask is"):
            encode(np.zeros((2, 3, 4), dtype=bool))
        with pytest.raises(ValueError, match="A mask is"):
            encode(np.zeros((2, 3), dtype=np.float32))
