"""Which services can answer: what health, the metrics and the orchestrator's probes say."""

import asyncio
import logging
from collections.abc import Collection, Iterable, Sequence

from gateway import metrics
from gateway.catalog_loading import CatalogLoader
from gateway.health import Health, full_name
from gateway.services.service import Service

logger = logging.getLogger(__name__)


class Readiness:
    """A service is ready while Triton is ready to run the default variants of all families that it needs.

    Its optional families do not count, broken or not: some of its answers need none of them. The whole server
    is ready while any service is that needs models. If some services are required, it is ready while all of
    these are, whether or not the repository has models for them.
    """

    def __init__(
        self,
        loader: CatalogLoader,
        services: Sequence[Service],
        health: Health,
        required: Collection[str] = (),
    ) -> None:
        self._loader = loader
        self._services = services
        self._health = health
        self._required = required
        self._told: dict[str, bool] = {}

    async def watch(self, interval_s: float) -> None:
        """Update again and again, until cancelled."""
        while True:
            await asyncio.sleep(interval_s)
            try:
                await self.update()
            except Exception:
                # Otherwise nobody would notice that health is not looked at any more.
                logger.exception("looking at Triton's models failed")
            metrics.TASKS.set(len(asyncio.all_tasks()))

    async def update(self) -> None:
        """Look at Triton's models, and set the health of every service."""
        try:
            await self._loader.update()
        except Exception:
            # Not at a cancellation: the server stops then, and health has said so.
            self.tell()
            raise
        self.tell()

    def tell(self) -> None:
        """Set the health of every service by what is known of Triton's models."""
        catalog = self._loader.catalog
        lacks = {
            service.name: [model for family in service.families for model in catalog.lacks(family)]
            for service in self._services
        }
        # A service whose models the repository lacks is no fault of the server.
        served = {service.name for service in self._services if all(map(catalog.has, service.families))}
        for name, models in lacks.items():
            self._set(name, models, is_expected=name in served)
        if self._required:
            unready = [name for name in self._required if lacks[name]]
        else:
            needing = [service.name for service in self._services if service.families]
            unready = [name for name in needing if name in served] or needing
            if not all(lacks[name] for name in unready):
                unready = []
        self._set(metrics.WHOLE_SERVER, unready)

    def _set(self, name: str, lacks: Sequence[str], is_expected: bool = True) -> None:
        """Set a service's health. Log a change of it; at the start, what is not as the operator expects."""
        is_ready = not lacks
        if self._told.get(name, is_expected) != is_ready:
            subject = name or "the server as a whole"
            if is_ready:
                logger.info("%s is ready", subject)
            else:
                logger.warning("%s is not ready: it lacks %s", subject, ", ".join(lacks))
        self._told[name] = is_ready
        self._health.set(name, is_ready)
        metrics.READY.labels(name).set(is_ready)


def required_services(names: Iterable[str], services: Sequence[Service]) -> list[str]:
    """Return the full names of services of the setting `required_services`. Raises ValueError."""
    known = [service.name for service in services]
    required = []
    for name in names:
        found = full_name(name, known)
        if found is None:
            short = ", ".join(each.rpartition(".")[2] for each in known)
            raise ValueError(f"required_services: there is no service {name!r}; there are {short}")
        required.append(found)
    return required


def set_unready(services: Sequence[Service]) -> None:
    """Say in the metrics that no service can answer."""
    for name in (metrics.WHOLE_SERVER, *(service.name for service in services)):
        metrics.READY.labels(name).set(0)
