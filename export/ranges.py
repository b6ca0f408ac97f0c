"""The least, the usual and the largest size of the dynamic axes of graphs, from what the gateway sends.

TensorRT builds an engine for such a range, and is fastest at the usual size. It refuses what lies outside.
"""

from collections.abc import Mapping, Sequence

Range = tuple[int, int, int]

MAX_POINTS = 64
"""The most points of a prompt, padding and the corners of its box counted, that an engine takes."""
# An image has up to 32 prompts. Each takes about 35 MB while the decoder runs, and TensorRT reserves memory
# for the largest batch.
_DECODER_IMAGES = 4


def of_canvases(canvases: str) -> Mapping[str, Range]:
    """Return the ranges of `height` and `width` for canvases such as "800x800,800x1088,1088x800".

    The usual canvas is the first that is wider than high: most photos are.
    """
    sizes = [tuple(int(side) for side in canvas.split("x")) for canvas in canvases.split(",")]
    usual = next((size for size in sizes if size[1] > size[0]), sizes[0])
    heights, widths = zip(*sizes, strict=True)
    return {
        "height": (min(heights), usual[0], max(heights)),
        "width": (min(widths), usual[1], max(widths)),
    }


def of_sizes(sizes: Sequence[int]) -> Range:
    """Return the range of an axis that has one of these sizes, most often the first."""
    return min(sizes), sizes[0], max(sizes)


def of_prompts() -> Mapping[str, Range]:
    """Return the ranges of a SAM decoder's axes, for the batches that the gateway makes by default."""
    from gateway.settings import Settings

    prompts = int(Settings.model_fields["decoder_batch"].default)
    return {
        "batch": (1, 1, _DECODER_IMAGES),
        "prompts": (1, prompts, prompts),
        # A point and its padding, or the corners of a box.
        "points": (1, 2, MAX_POINTS),
        # One for each prompt, or a single one that none of them looks at.
        "masks": (1, 1, prompts),
    }
