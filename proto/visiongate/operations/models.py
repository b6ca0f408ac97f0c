"""What a server offers."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from visiongate.answer import Answer, AnswerInfo
from visiongate.operations.operation import Operation
from visiongate.v1 import model_service_pb2


@dataclass(frozen=True, slots=True)
class Model:
    """A model variant that the server offers; `variant` is what a `model` argument takes.

    characters: all that a model which reads text can read, each once; empty for other models. scripts: how
    many letters it reads of each script, such as {"Latin": 549, "Greek": 62}, the largest first. fingerprint:
    a hash of the files that it was exported to; empty if the server does not tell.
    """

    task: str
    family: str
    variant: str
    is_default: bool
    ready: bool
    input_size: int
    characters: str = field(default="", repr=False)
    scripts: Mapping[str, int] = field(default_factory=dict)
    fingerprint: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return what JSON holds."""
        return asdict(self)


def list_models() -> Operation[Answer[Model]]:
    """List what the server offers, sorted by task, the default of each task first."""
    return Operation(
        "/visiongate.v1.ModelService/ListModels",
        model_service_pb2.ListModelsRequest(),
        model_service_pb2.ListModelsResponse,
        lambda response, request_id: Answer(map(_model, response.models), AnswerInfo(request_id)),
    )


def _model(message: model_service_pb2.Model) -> Model:
    return Model(
        task=message.task,
        family=message.family,
        variant=message.variant,
        is_default=message.is_default,
        ready=message.ready,
        input_size=message.input_size,
        characters=message.characters,
        scripts={script.name: script.letter_count for script in message.scripts},
        fingerprint=message.fingerprint,
    )
