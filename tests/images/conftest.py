"""What the tests of images share: Triton outside of all containers, on the files of the models' image."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from gateway.embedded import EmbeddedTriton
from images.build import GATEWAY, MODELS
from images.buildah import mounted
from images.container import Mount, running
from images.front import Run


@pytest.fixture(scope="session")
def models() -> Iterator[Path]:
    """The folder /models of the models' image."""
    with mounted(MODELS) as root:
        yield root / "models"


@pytest.fixture(scope="session")
def triton(models: Path) -> Iterator[EmbeddedTriton]:
    """Where the gateway looks by default."""
    with EmbeddedTriton(models, grpc_port=8001) as server:
        yield server


@pytest.fixture
def run(models: Path, triton: EmbeddedTriton) -> Run:
    """Runs the gateway's image with the models. Further arguments are those of `running`."""
    return partial(running, GATEWAY, Mount(models, "/models"))
