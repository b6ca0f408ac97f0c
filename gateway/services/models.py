"""ModelService: what the catalog holds."""

import asyncio
from typing import Any

from gateway.catalog import Variant
from gateway.models.scripts import letters_by_script
from gateway.pipelines.resources import Resources
from gateway.services.service import Context, Service
from visiongate.v1 import model_service_pb2, model_service_pb2_grpc


class ModelService(model_service_pb2_grpc.ModelServiceServicer):
    """The model variants that requests can name."""

    def __init__(self, resources: Resources) -> None:
        self._triton = resources.triton
        self._catalog = resources.catalog

    async def ListModels(  # noqa: N802
        self, request: model_service_pb2.ListModelsRequest, context: Context
    ) -> model_service_pb2.ListModelsResponse:
        models = await asyncio.gather(*map(self._model_message, self._catalog.variants))
        return model_service_pb2.ListModelsResponse(models=models)

    async def _model_message(self, variant: Variant[Any]) -> model_service_pb2.Model:
        names = sorted(variant.triton_models.values())
        ready = await asyncio.gather(*map(self._triton.is_model_ready, names))
        characters = variant.family.characters(variant.spec)
        return model_service_pb2.Model(
            task=variant.family.task,
            family=variant.family.name,
            variant=variant.name,
            is_default=variant.is_default,
            ready=all(ready),
            input_size=variant.spec.input_size,
            triton_models=names,
            characters=characters,
            scripts=[
                model_service_pb2.Script(name=name, letter_count=count)
                for name, count in letters_by_script(characters).items()
            ],
        )


SERVICE = Service(
    model_service_pb2.DESCRIPTOR, ModelService, model_service_pb2_grpc.add_ModelServiceServicer_to_server
)
