"""A small gRPC server for tests of the client: it lists models, and answers other methods as a test wants.

As a program it listens at the port that its argument names: `python client_server.py 50051`.
"""

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf import descriptor_pool, message_factory
from google.protobuf.message import Message

from visiongate.v1 import model_service_pb2

NAME = "/visiongate.v1.ModelService/ListModels"
# What a call is answered by: it may set metadata or abort.
Behaviour = Callable[[grpc.ServicerContext], None]
# What another method answers: it may abort, too.
Answering = Callable[[Any, grpc.ServicerContext], Message]


@dataclass
class Served:
    """A running server: its address, and what the calls came with."""

    port: int
    deadlines: list[float] = field(default_factory=list)
    metadata: list[dict[str, Any]] = field(default_factory=list)
    requests: list[Any] = field(default_factory=list)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"


@contextmanager
def serving(
    *behaviours: Behaviour,
    answers: Mapping[str, Answering] | None = None,
    port: int = 0,
    credentials: grpc.ServerCredentials | None = None,
    options: tuple[tuple[str, Any], ...] = (),
) -> Iterator[Served]:
    """A server whose first calls behave so, one after another; the others are answered with one model.

    answers: what other methods answer, by their full names.
    """
    left = list(behaviours)

    def list_models(request: Any, context: grpc.ServicerContext) -> Any:
        served.deadlines.append(context.time_remaining())
        served.metadata.append(dict(context.invocation_metadata()))
        served.requests.append(request)
        if left:
            left.pop(0)(context)
        model = model_service_pb2.Model(variant=f"answer {len(served.requests)}")
        return model_service_pb2.ListModelsResponse(models=[model])

    server = grpc.server(ThreadPoolExecutor(4), options=(("grpc.so_reuseport", 0), *options))
    for name, answer in {NAME: list_models, **(answers or {})}.items():
        _, service, method = name.split("/")
        kind = descriptor_pool.Default().FindMethodByName(f"{service}.{method}").input_type
        handler: grpc.RpcMethodHandler[Any, Any] = grpc.unary_unary_rpc_method_handler(
            answer, message_factory.GetMessageClass(kind).FromString, _serialized
        )
        server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(service, {method: handler})])
    address = f"127.0.0.1:{port}"
    bound = (
        server.add_insecure_port(address)
        if credentials is None
        else server.add_secure_port(address, credentials)
    )
    served = Served(bound)
    server.start()
    try:
        yield served
    finally:
        server.stop(None).wait()


def _serialized(message: Message) -> bytes:
    return message.SerializeToString()


if __name__ == "__main__":
    with serving(port=int(sys.argv[1])) as running:
        print(running.port, flush=True)
        time.sleep(600)
