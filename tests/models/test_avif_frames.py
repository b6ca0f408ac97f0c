from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from bad_input import encoded
from gateway.models.avif_frames import coded_pixels


@pytest.mark.parametrize(("mode", "frames"), [("RGB", 1), ("RGBA", 2), ("L", 1)])
def test_the_frames_headers_agree_with_what_was_encoded(
    noise: Callable[[int, int], NDArray[np.uint8]], mode: str, frames: int
) -> None:
    picture = Image.fromarray(noise(37, 53))
    if mode == "RGBA":
        picture.putalpha(Image.fromarray(noise(37, 53)[..., 0]))
    assert coded_pixels(encoded(picture.convert(mode), "AVIF")) == 37 * 53 * frames


def test_a_sequences_first_frames_count() -> None:
    frame = Image.new("RGB", (1_200, 1_200))
    sequence = bytearray(encoded(frame, "AVIF", save_all=True, append_images=[frame], speed=10))
    place = sequence.index(b"meta") + 4
    assert coded_pixels(bytes(sequence)) == 2 * 1_440_000
    # The decoder reads the track of a sequence, which is another place.
    sequence[place - 4 : place] = b"free"
    assert coded_pixels(bytes(sequence)) == 1_440_000
