"""ModelService: what the catalog holds."""

import asyncio
from typing import Any

import grpc.aio

from gateway.catalog import Variant
from gateway.pipelines import Pipelines
from visiongate.v1 import model_service_pb2, model_service_pb2_grpc

Context = grpc.aio.ServicerContext[Any, Any]

TASKS = {
    "detection": model_service_pb2.TASK_DETECTION,
    "segmentation": model_service_pb2.TASK_SEGMENTATION,
}


class ModelService(model_service_pb2_grpc.ModelServiceServicer):
    """The model variants that requests can name."""

    def __init__(self, pipelines: Pipelines) -> None:
        self._pipelines = pipelines

    async def ListModels(  # noqa: N802
        self, request: model_service_pb2.ListModelsRequest, context: Context
    ) -> model_service_pb2.ListModelsResponse:
        models = await asyncio.gather(*map(self._model, self._pipelines.catalog.variants))
        return model_service_pb2.ListModelsResponse(models=models)

    async def _model(self, variant: Variant[Any]) -> model_service_pb2.Model:
        names = sorted(variant.triton_models.values())
        ready = await asyncio.gather(*map(self._pipelines.triton.is_model_ready, names))
        return model_service_pb2.Model(
            task=TASKS[variant.family.task],
            family=variant.family.name,
            variant=variant.name,
            is_default=variant.is_default,
            ready=all(ready),
            input_size=variant.spec.input_size,
            triton_models=names,
        )
