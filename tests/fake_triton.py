"""A stand-in for Triton's gRPC service, for what the real one does not do on demand."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import grpc.aio
from tritonclient.grpc import model_config_pb2, service_pb2, service_pb2_grpc

from gateway.triton import ModelConfig
from gateway.triton_servers import GrpcTriton


class FakeTriton(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]
    """Answers every request with one float, `out`."""

    version = "2.51.0"

    async def ServerMetadata(self, request: Any, context: Any) -> Any:  # noqa: N802
        return service_pb2.ServerMetadataResponse(version=self.version)

    async def ModelInfer(self, request: Any, context: Any) -> Any:  # noqa: N802
        output = service_pb2.ModelInferResponse.InferOutputTensor(name="out", datatype="FP32", shape=[1])
        return service_pb2.ModelInferResponse(outputs=[output], raw_output_contents=[b"\0" * 4])


class Offering(FakeTriton):
    """Has models, which tests change: each a config if it is ready, or its state and the reason.

    "" is a model that nobody asked for. is_away: it refuses everything. is_silent: it answers nothing.
    """

    def __init__(self, models: Mapping[str, ModelConfig | str]) -> None:
        self.models = dict(models)
        self.is_away = self.is_silent = False
        self.asked: list[str] = []

    async def ServerMetadata(self, request: Any, context: Any) -> Any:  # noqa: N802
        while self.is_silent:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        return await super().ServerMetadata(request, context)

    async def RepositoryIndex(self, request: Any, context: Any) -> Any:  # noqa: N802
        await self._check(context)
        index = service_pb2.RepositoryIndexResponse()
        for name, model in self.models.items():
            state, _, reason = model.partition(": ") if isinstance(model, str) else ("READY", "", "")
            index.models.add(name=name, state=state, reason=reason, version="1" if state else "")
        return index

    async def ModelConfig(self, request: Any, context: Any) -> Any:  # noqa: N802
        self.asked.append(request.name)
        await self._check(context)
        model = self.models.get(request.name)
        if not isinstance(model, ModelConfig):
            await context.abort(grpc.StatusCode.NOT_FOUND, f"unknown model: {request.name!r}")
        assert isinstance(model, ModelConfig)
        config = model_config_pb2.ModelConfig(name=request.name, max_batch_size=model.max_batch_size)
        for tensors, written in ((model.inputs, config.input), (model.outputs, config.output)):
            for name, (data_type, rank) in tensors.items():
                written.add(name=name, data_type=f"TYPE_{data_type}", dims=[-1] * (rank - 1))
        for name, value in model.parameters.items():
            config.parameters[name].string_value = value
        return service_pb2.ModelConfigResponse(config=config)

    async def _check(self, context: Any) -> None:
        if self.is_away:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "going away")
        while self.is_silent:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


@asynccontextmanager
async def reached(*fakes: FakeTriton) -> AsyncIterator[GrpcTriton]:
    """The gateway's client of them, at free ports."""
    servers, ports = [], []
    for fake in fakes:
        server = grpc.aio.server()
        service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(fake, server)
        ports.append(server.add_insecure_port("127.0.0.1:0"))
        await server.start()
        servers.append(server)
    triton = GrpcTriton(",".join(f"127.0.0.1:{port}" for port in ports))
    try:
        yield triton
    finally:
        await triton.close()
        for server in servers:
            await server.stop(None)
