"""What the log and the metrics say of Triton's servers: what is new, once."""

import logging
from collections.abc import Sequence

from gateway import metrics
from gateway.triton import ModelConfig
from gateway.triton_server import TritonServer

logger = logging.getLogger(__name__)


class TritonNews:
    """Knows what was said last of each server, and of each model on each server."""

    def __init__(self) -> None:
        self._up: dict[str, bool] = {}
        self._models: dict[tuple[str, str], bool] = {}

    def tell_servers(self, servers: Sequence[TritonServer], *, is_any_up: bool) -> None:
        """Say which servers have come, are lost or are there again."""
        for server in servers:
            metrics.TRITON_UP.labels(server.name).set(server.is_up)
            before = self._up.get(server.name)
            if before is None and not is_any_up:
                continue  # who waits for the first says so
            self._up[server.name] = server.is_up
            if before == server.is_up:
                continue
            if server.is_up and server.memory.refusal:
                logger.warning("Triton %s: %s", server.name, server.memory.refusal)
            if not server.is_up:
                kind = "is lost" if before else "does not answer"
                logger.warning("Triton %s %s: %s", server.name, kind, " ".join(server.absence.split()))
            else:
                kind = "answers" if before is None else "answers again"
                logger.info("Triton %s %s: version %s", server.name, kind, server.version)

    def tell_left(self, name: str) -> None:
        """Say that a server has left, and forget it."""
        if self._up.pop(name, None) is not None:
            logger.info("Triton %s has left", name)
        self._models = {key: told for key, told in self._models.items() if key[0] != name}

    def tell_model(self, model: str, config: ModelConfig, servers: Sequence[TritonServer]) -> None:
        """Say which servers have a model as `config` describes it."""
        for server in servers:
            has_it = server.is_up and server.configs.get(model) == config
            metrics.TRITON_MODEL_READY.labels(server.name, model).set(has_it)
            key = server.name, model
            before = self._models.get(key, True)
            if not server.is_up or before == has_it or len(servers) == 1:
                continue
            self._models[key] = has_it
            if has_it:
                logger.info("Triton %s has model %s again", server.name, model)
            elif model in server.configs:
                logger.warning(
                    "Triton %s has another export of model %s: it is not asked", server.name, model
                )
            else:
                logger.warning("Triton %s lacks model %s: calls go to others", server.name, model)
