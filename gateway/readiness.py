"""Which services can answer: what health, the metrics and the orchestrator's probes say."""

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

from gateway import metrics
from gateway.catalog import Catalog, Family
from gateway.concurrency import gather
from gateway.health import Health
from gateway.services.service import Service
from gateway.triton import Triton

logger = logging.getLogger(__name__)


class Readiness:
    """A service is ready while Triton is ready to run the default models that it needs.

    The whole server is ready while all services are for which the repository has models.
    """

    def __init__(self, triton: Triton, catalog: Catalog, services: Sequence[Service], health: Health) -> None:
        self._triton = triton
        self._catalog = catalog
        self._services = services
        self._health = health
        self._needs = {service: self._needed_models(service) for service in services}
        self._ready_models: frozenset[str] = frozenset()

    async def watch(self, interval_s: float) -> None:
        """Update again and again, until cancelled."""
        while True:
            await asyncio.sleep(interval_s)
            try:
                await self.update()
            except Exception:
                # Otherwise nobody would notice that health is not looked at any more.
                logger.exception("looking at Triton's health failed")
            metrics.TASKS.set(len(asyncio.all_tasks()))

    async def update(self) -> None:
        """Ask Triton about the models, and set the health of every service."""
        names = sorted(set().union(*self._needs.values()))
        answers = await gather(self._triton.is_model_ready(name) for name in names)
        # One of several Tritons may hang. While another one answers, an unanswered model stays as it was.
        unanswered = self._ready_models if any(answer is not None for answer in answers) else frozenset()
        self._ready_models = frozenset(
            name
            for name, answer in zip(names, answers, strict=True)
            if answer or (answer is None and name in unanswered)
        )
        for service in self._services:
            self._set(service.name, self._is_ready(service))
        # A service whose models the repository lacks is no fault of the server.
        served = [service for service in self._services if all(map(self._catalog.has, service.families))]
        self._set(metrics.WHOLE_SERVER, all(map(self._is_ready, served)))

    def _is_ready(self, service: Service) -> bool:
        return all(map(self._catalog.has, service.families)) and self._needs[service] <= self._ready_models

    def _set(self, name: str, ready: bool) -> None:
        self._health.set(name, ready)
        metrics.READY.labels(name).set(ready)

    def _needed_models(self, service: Service) -> frozenset[str]:
        families = [*service.families, *filter(self._catalog.has, service.optional)]
        return frozenset(name for family in families for name in self._default_models(family))

    def _default_models(self, family: Family[Any]) -> list[str]:
        """Return Triton's names of the models of the default variant."""
        return [
            name
            for variant in self._catalog.of(family)
            if variant.is_default
            for name in variant.triton_models.values()
        ]


def set_unready(services: Sequence[Service]) -> None:
    """Say in the metrics that no service can answer."""
    for name in (metrics.WHOLE_SERVER, *(service.name for service in services)):
        metrics.READY.labels(name).set(0)
