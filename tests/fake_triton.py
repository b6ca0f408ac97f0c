"""A stand-in for Triton's gRPC service, for what the real one does not do on demand."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc.aio
from tritonclient.grpc import service_pb2, service_pb2_grpc

from gateway.triton import GrpcTriton


class FakeTriton(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]
    """Answers every request with one float, `out`."""

    version = "2.51.0"

    async def ServerMetadata(self, request: Any, context: Any) -> Any:  # noqa: N802
        return service_pb2.ServerMetadataResponse(version=self.version)

    async def ModelInfer(self, request: Any, context: Any) -> Any:  # noqa: N802
        output = service_pb2.ModelInferResponse.InferOutputTensor(name="out", datatype="FP32", shape=[1])
        return service_pb2.ModelInferResponse(outputs=[output], raw_output_contents=[b"\0" * 4])


@asynccontextmanager
async def reached(fake: FakeTriton) -> AsyncIterator[GrpcTriton]:
    """The gateway's client of it, at a free port."""
    server = grpc.aio.server()
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(fake, server)
    triton = GrpcTriton(f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}")
    await server.start()
    try:
        yield triton
    finally:
        await triton.close()
        await server.stop(None)
