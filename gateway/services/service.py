"""What the server needs to know of a service: the registry's entry."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import grpc.aio

from gateway.catalog import Family
from gateway.pipelines.core import Core

Context = grpc.aio.ServicerContext[Any, Any]


@dataclass(frozen=True, slots=True)
class Service:
    """A gRPC service.

    name: its full name. families: those without which it answers nothing. add: makes its servicer and
    adds it to the server. optional: families that only some of its answers need.
    """

    name: str
    families: tuple[Family, ...]
    add: Callable[[Core, grpc.aio.Server], None]
    optional: tuple[Family, ...] = ()
