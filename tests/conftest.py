"""What tests share: real photos, and one real Triton with toy models and a gateway in front of it."""

import gc
import logging
import os
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from numpy.typing import NDArray
from PIL import Image
from typer.testing import CliRunner

from export.__main__ import app as export_app
from export.demo.serving import REPOSITORY
from export.families import FAMILIES
from gateway import call
from gateway.embedded import EmbeddedTriton
from gateway.server import Gateway
from gateway.settings import Settings
from inference_counts import InferenceCounts
from s3 import S3Server, s3_server
from visiongate import AsyncClient

# Third-party photos, vocabularies and networks: beside the project, never in it.
DATA = Path(__file__).parents[2] / "shared" / "data"

# No test may reach for a model hub, nor ONNX Runtime for its maker.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

# Container images like to forbid Python to keep compiled modules. Each of the many processes that the tests
# start would compile PyTorch and Transformers anew, which takes 14 of the 23 s of their import.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# The tests' processes share the processors. Threads of PyTorch that spin while they wait for one another take
# time from the other processes. To be set before PyTorch is imported.
os.environ["OMP_NUM_THREADS"] = "1"

# Two processes take files in this order. While one exports the toy models for the second file, which takes a
# minute, the other has long tests that need none. At the end no long file is left for one of them alone.
FIRST_FILES = [
    "tests/road/test_first_day.py",
    "tests/e2e/test_embedding.py",
    "tests/road/test_distributions.py",
    "tests/road/test_sixth_task.py",
]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first."""
    order = {name: place for place, name in enumerate(FIRST_FILES)}
    items.sort(key=lambda item: order.get(item.nodeid.partition("::")[0], len(order)))


@pytest.fixture(scope="session")
def data() -> Callable[[str], Path]:
    """The path of a file of the third-party test data; skips where it is missing."""

    def find(name: str) -> Path:
        path = DATA / name
        if not path.is_file():
            pytest.skip(f"test data ../shared/data/{name} is missing")
        return path

    return find


@pytest.fixture(autouse=True)
def no_lines_of_earlier_calls() -> None:
    """Each test's log is about its own calls.

    The log tells some seconds later how many calls had no line, and until then such calls get none.
    """
    for limiter in list(call._limiters.values()):
        limiter.flush()
    call._limiters.clear()


@pytest.fixture(autouse=True)
def the_log_is_left_alone() -> Iterator[None]:
    """No test, and no library that it loads, sets up the log of the process.

    A handler that stays writes to the standard error of a test that is over, among the lines of later ones.
    """
    loggers = logging.root, logging.getLogger("gateway")
    handlers, levels = list(logging.root.handlers), [logger.level for logger in loggers]
    yield
    # Pytest's own come and go.
    new = [
        handler
        for handler in logging.root.handlers
        if handler not in handlers and not type(handler).__module__.startswith("_pytest.")
    ]
    found = [logger.level for logger in loggers]
    logging.root.handlers[:] = handlers
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)
    assert (new, found) == ([], levels)


@pytest.fixture
def without_cycle_search() -> Iterator[None]:
    """Inside, what is part of a cycle of references stays in memory."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.fixture(scope="session")
def photo(data: Callable[[str], Path]) -> Callable[[str], NDArray[np.uint8]]:
    """Opens a photo by file name as RGB uint8 [H,W,3]; skips where the test data is missing."""

    def load(name: str) -> NDArray[np.uint8]:
        with Image.open(data(f"images/{name}")) as image:
            return np.asarray(image.convert("RGB"))

    return load


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """A folder that the processes of a run share: what is dear to make is made there once, under a lock."""
    folder = tmp_path_factory.getbasetemp()
    return folder if worker_id == "master" else folder.parent


@pytest.fixture(scope="session")
def s3() -> Iterator[S3Server]:
    """An S3 server on this machine; skips where it cannot be installed."""
    with s3_server() as server:
        yield server


@pytest.fixture(scope="session")
def tiny_repository(shared_folder: Path) -> Path:
    """A model repository with toy models of every family, seeded weights, exported as users do."""
    folder = shared_folder / "repository"
    with FileLock(shared_folder / "repository.lock"):
        if not folder.is_dir():
            # In this process, which has imported PyTorch and the model libraries.
            result = CliRunner().invoke(export_app, [*FAMILIES, "--size", "tiny", "--out", str(folder)])
            assert result.exit_code == 0, result.output
    return folder


@pytest.fixture(scope="session")
def triton(tiny_repository: Path) -> Iterator[EmbeddedTriton]:
    with EmbeddedTriton(tiny_repository) as server:
        yield server


@pytest.fixture(scope="session")
def counts(triton: EmbeddedTriton) -> InferenceCounts:
    """How often the shared Triton has run each toy model."""
    return InferenceCounts.at(triton.grpc_address)


@pytest.fixture(scope="session")
def demo_triton() -> Iterator[EmbeddedTriton]:
    """A real Triton with the trained demo models, whose answers mean something."""
    with EmbeddedTriton(REPOSITORY) as server:
        yield server


@pytest.fixture(scope="session")
def demo_settings(demo_triton: EmbeddedTriton) -> Settings:
    return Settings(triton=demo_triton.grpc_address, repository=REPOSITORY, port=0, grace_s=0)


@pytest.fixture(scope="session")
async def demo_client(demo_settings: Settings) -> AsyncIterator[AsyncClient]:
    async with Gateway(demo_settings) as server, AsyncClient(f"127.0.0.1:{server.port}") as connected:
        yield connected


@pytest.fixture(scope="session")
def settings(triton: EmbeddedTriton, tiny_repository: Path) -> Settings:
    return Settings(triton=triton.grpc_address, repository=tiny_repository, port=0, grace_s=0)


@pytest.fixture(scope="session")
async def gateway(settings: Settings) -> AsyncIterator[Gateway]:
    async with Gateway(settings) as server:
        yield server


@pytest.fixture(scope="session")
async def client(gateway: Gateway) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(f"127.0.0.1:{gateway.port}") as connected:
        yield connected
