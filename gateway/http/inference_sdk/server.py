"""What the SDK asks about the server itself."""

import uuid
from importlib.metadata import version

from gateway.http import translation
from gateway.http.exchange import Answer, Exchange
from gateway.http.inference_sdk.asked import Asked
from gateway.http.json_text import Tree

_INFO = {"name": "visiongate", "version": version("visiongate-server"), "uuid": str(uuid.uuid4())}
# Their words for what models are for, by the API's.
_TASKS = {"detection": "object-detection", "segmentation": "embed", "embedding": "embed", "text": "ocr"}


async def info(exchange: Exchange) -> Answer:
    """Say which server this is. The SDK sends no key with this question."""
    return Answer(translation.write(_INFO))


async def registry(asked: Asked) -> Tree:
    """List the models that are ready."""
    models = (await asked.call("ListModels", {}, {})).models
    return {
        "models": [
            {
                "model_id": f"{model.family}/{model.variant}",
                "task_type": _TASKS.get(model.task, model.task),
                "batch_size": None,
                "input_width": model.input_size,
                "input_height": model.input_size,
            }
            for model in models
            if model.ready
        ]
    }
