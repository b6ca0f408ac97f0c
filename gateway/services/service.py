"""What the server needs to know of a service: the registry's entry."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import grpc.aio
from google.protobuf.descriptor import FileDescriptor

from gateway.catalog import Family
from gateway.pipelines.resources import Resources

Context = grpc.aio.ServicerContext[Any, Any]


@dataclass(frozen=True, slots=True)
class Service:
    """A gRPC service, the only one of its .proto file.

    file: the descriptor of that file. servicer: makes what answers. add: the generated function that adds a
    servicer to a server. families: those without which it answers nothing. optional: families that only some
    of its answers need.
    """

    file: FileDescriptor
    servicer: Callable[[Resources], Any]
    add: Callable[[Any, grpc.aio.Server], None]
    families: tuple[Family[Any], ...] = ()
    optional: tuple[Family[Any], ...] = ()

    @property
    def name(self) -> str:
        """The full name, such as visiongate.v1.DetectionService."""
        (service,) = self.file.services_by_name.values()
        return str(service.full_name)

    @property
    def methods(self) -> list[str]:
        """The full names of its methods, such as /visiongate.v1.DetectionService/DetectObjects."""
        (service,) = self.file.services_by_name.values()
        return [f"/{service.full_name}/{method.name}" for method in service.methods]
