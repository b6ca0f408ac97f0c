"""The demo's picture, whose places the recorded requests name."""

import numpy as np
import pytest
from numpy.typing import NDArray

from export.demo import show
from recorded_calls import png


@pytest.fixture(scope="session")
def scene() -> NDArray[np.uint8]:
    return show.scene(0).image


@pytest.fixture(scope="session")
def picture(scene: NDArray[np.uint8]) -> bytes:
    return png(scene)
