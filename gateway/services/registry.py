"""The services of this package: every module that has a `SERVICE`. A new task is a new file."""

import importlib
import pkgutil
from typing import Any

from gateway import metrics, services
from gateway.catalog import Family
from gateway.services.service import Service


def _find() -> tuple[Service, ...]:
    modules = (
        importlib.import_module(f"{services.__name__}.{info.name}")
        for info in pkgutil.iter_modules(services.__path__)
        if f"{services.__name__}.{info.name}" != __name__
    )
    return tuple(module.SERVICE for module in modules if hasattr(module, "SERVICE"))


SERVICES: tuple[Service, ...] = _find()
FAMILIES: tuple[Family[Any], ...] = tuple(
    dict.fromkeys(family for service in SERVICES for family in (*service.families, *service.optional))
)
metrics.know("method", [method for service in SERVICES for method in service.methods])
