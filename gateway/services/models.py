"""ModelService: what the catalog holds."""

from typing import Any

from gateway.catalog import Fault, Variant
from gateway.models.scripts import letters_by_script
from gateway.pipelines.resources import Resources
from gateway.services.service import Context, Service
from visiongate.v1 import model_service_pb2, model_service_pb2_grpc


class ModelService(model_service_pb2_grpc.ModelServiceServicer):
    """The model variants that requests can name."""

    def __init__(self, resources: Resources) -> None:
        self._catalog = resources.catalog

    async def ListModels(  # noqa: N802
        self, request: model_service_pb2.ListModelsRequest, context: Context
    ) -> model_service_pb2.ListModelsResponse:
        return model_service_pb2.ListModelsResponse(models=map(self._model_message, self._catalog.entries))

    def _model_message(self, entry: Variant[Any] | Fault) -> model_service_pb2.Model:
        message = model_service_pb2.Model(
            task=entry.family.task,
            family=entry.family.name,
            variant=entry.name,
            is_default=entry.is_default,
            ready=self._catalog.is_ready(entry),
            triton_models=sorted(entry.triton_models.values()),
        )
        if isinstance(entry, Fault):
            return message
        message.fingerprint = entry.export
        message.input_size = entry.spec.input_size
        message.characters = entry.family.characters(entry.spec)
        message.scripts.extend(
            model_service_pb2.Script(name=name, letter_count=count)
            for name, count in letters_by_script(message.characters).items()
        )
        return message


SERVICE = Service(
    model_service_pb2.DESCRIPTOR, ModelService, model_service_pb2_grpc.add_ModelServiceServicer_to_server
)
