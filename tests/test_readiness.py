"""When services are ready, and what the log says of it."""

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from grpc_health.v1 import health_pb2

from fake_triton import Offering, reached
from gateway import metrics
from gateway.catalog_loading import AGREEING_LOOKS, CatalogLoader
from gateway.health import Health
from gateway.readiness import Readiness, required_services, set_unready
from gateway.services.registry import FAMILIES, SERVICES
from offered_models import face_detection, gaze, sam

GAZE, SEGMENTATION, TEXT = (f"visiongate.v1.{name}Service" for name in ("Gaze", "Segmentation", "Text"))
SERVING = health_pb2.HealthCheckResponse.SERVING


class Watched:
    """Readiness of a Triton, and what is told of it."""

    def __init__(self, readiness: Readiness, health: Health) -> None:
        self._readiness = readiness
        self._health = health

    async def look(self, times: int = AGREEING_LOOKS) -> None:
        for _ in range(times):
            await self._readiness.update()

    async def ready(self) -> set[str]:
        """The services that are ready, as gRPC's health says. The metrics are those of all gateways here."""
        found = set()
        for name in (metrics.WHOLE_SERVER, *(service.name for service in SERVICES)):
            answer = await self._health.Check(health_pb2.HealthCheckRequest(service=name), None)  # type: ignore[arg-type]
            if answer.status == SERVING:
                found.add(name)
        # This one needs no model.
        return found - {"visiongate.v1.ModelService", "visiongate.v1.StreamService"}


@asynccontextmanager
async def watched(fake: Offering, required: Sequence[str] = ()) -> AsyncIterator[Watched]:
    async with reached(fake) as triton:
        loader = CatalogLoader(triton, Path("nowhere"), FAMILIES)
        await loader.load()
        health = Health()
        readiness = Readiness(loader, SERVICES, health, required_services(required, SERVICES))
        readiness.tell()
        yield Watched(readiness, health)


def said(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    records = [record for record in caplog.records if record.name == "gateway.readiness"]
    caplog.clear()
    return [(record.levelname, record.message) for record in records]


async def test_a_service_is_ready_while_its_default_is(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    fake = Offering(sam() | sam("vit_h", "-vit_h") | gaze())
    async with watched(fake) as readiness:
        assert await readiness.ready() == {"", SEGMENTATION, GAZE}
        # Services without models were never promised.
        assert said(caplog) == []
        # Another variant is not what requests without a name are answered by.
        fake.models["sam_encoder-vit_h"] = "LOADING"
        await readiness.look(1)
        assert await readiness.ready() == {"", SEGMENTATION, GAZE}
        fake.models["sam_encoder"] = "LOADING"
        await readiness.look(2)
        assert await readiness.ready() == {"", GAZE}
        assert said(caplog) == [("WARNING", f"{SEGMENTATION} is not ready: it lacks sam_encoder")]
        fake.is_away = True
        await readiness.look(2)
        assert await readiness.ready() == set()
        assert said(caplog) == [
            ("WARNING", f"{GAZE} is not ready: it lacks gaze"),
            ("WARNING", f"the server as a whole is not ready: it lacks {GAZE}, {SEGMENTATION}"),
        ]
        fake.is_away = False
        fake.models |= sam()
        await readiness.look(2)
        assert await readiness.ready() == {"", SEGMENTATION, GAZE}
        assert said(caplog) == [
            ("INFO", f"{GAZE} is ready"),
            ("INFO", f"{SEGMENTATION} is ready"),
            ("INFO", "the server as a whole is ready"),
        ]


async def test_an_optional_family_does_not_count() -> None:
    fake = Offering(gaze() | {"face_detection": "UNAVAILABLE: broken"})
    async with watched(fake) as readiness:
        assert await readiness.ready() == {"", GAZE}
        fake.models |= face_detection()
        await readiness.look()
        assert await readiness.ready() == {"", GAZE}
        fake.models["gaze"] = "LOADING"
        await readiness.look(1)
        assert await readiness.ready() == set()


async def test_one_broken_family_leaves_the_server_ready(caplog: pytest.LogCaptureFixture) -> None:
    async with watched(Offering(gaze() | {"sam_encoder": sam()["sam_encoder"]})) as readiness:
        assert await readiness.ready() == {"", GAZE}
        assert said(caplog) == [
            ("WARNING", f"{SEGMENTATION} is not ready: it lacks sam_decoder, sam_encoder")
        ]


async def test_required_services_must_all_be_ready() -> None:
    fake = Offering(sam() | gaze())
    async with watched(fake, ["SegmentationService", GAZE]) as readiness:
        assert await readiness.ready() == {"", SEGMENTATION, GAZE}
        del fake.models["gaze"]
        await readiness.look()
        assert await readiness.ready() == {SEGMENTATION}
        fake.models |= gaze()
        await readiness.look()
        assert await readiness.ready() == {"", SEGMENTATION, GAZE}
    # Also one that the repository has no models for.
    async with watched(fake, [TEXT]) as readiness:
        assert await readiness.ready() == {SEGMENTATION, GAZE}


async def test_a_server_whose_models_have_all_gone_is_not_ready() -> None:
    fake = Offering(sam())
    async with watched(fake) as readiness:
        fake.models = {}
        await readiness.look()
        assert await readiness.ready() == set()


async def test_health_is_told_even_if_the_look_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = Offering(gaze())
    async with watched(fake) as readiness:

        async def load(*_: Any) -> None:
            raise TypeError("a bug")

        monkeypatch.setattr("gateway.catalog_loading.load_variant", load)
        fake.models = dict(sam())
        await readiness.look(AGREEING_LOOKS - 1)
        with pytest.raises(TypeError, match="a bug"):
            await readiness.look(1)
        assert await readiness.ready() == set()


async def test_a_watch_that_ends_tells_nothing_more() -> None:
    """The server has said by then that it is not ready any more."""
    fake = Offering(gaze())
    async with watched(fake) as readiness:
        fake.is_silent = True
        watch = asyncio.create_task(readiness.look(1))
        while fake.asked.count("gaze") < 2:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        set_unready(SERVICES)
        watch.cancel()
        with pytest.raises(asyncio.CancelledError):
            await watch
        told = metrics.readiness()
        assert not any(told[service.name] for service in SERVICES)
        fake.is_silent = False


@pytest.mark.parametrize("name", ["Text", "textservice", "visiongate.v1.", "v1.TextService", "Health"])
def test_a_service_that_there_is_not_is_named_with_those_that_there_are(name: str) -> None:
    with pytest.raises(ValueError, match=f"no service '{name}'; there are .*ModelService, .*TextService"):
        required_services(["TextService", name], SERVICES)
