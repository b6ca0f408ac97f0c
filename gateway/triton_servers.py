"""The Triton servers of a gateway: each is known by itself, and a request goes to one that has its model."""

import asyncio
import itertools
import random
from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any

from numpy.typing import NDArray
from tritonclient.utils import InferenceServerException

from gateway import metrics
from gateway.errors import RequestKilledServerError, TritonUnavailableError
from gateway.retries import RetryBudget, Turns
from gateway.triton import ModelConfig, ModelState, Tensors
from gateway.triton_addresses import Endpoint, resolve
from gateway.triton_news import TritonNews
from gateway.triton_server import (
    SilentServerError,
    TritonServer,
    code_of,
    is_lost,
    is_model_away,
    status_error,
)
from gateway.triton_shared_memory import SharedTensors

# A server whose host vanished, or that hangs, must not delay what is known of the others.
LATE_S = 0.5
RESOLVE_EVERY_S = 5.0

# A request that may have killed a server has others like it wait until its answer, but no longer.
SUSPECT_S = 1.0

# Before each further attempt: a random part of a pause that doubles each time.
FIRST_BACKOFF_S, LONGEST_BACKOFF_S = 0.1, 2.0


class GrpcTriton:
    """One or several Triton servers, reached by gRPC.

    A request goes to a server that has its model ready, to the one with the fewest requests of this gateway
    among these. Where servers have different exports of a model, only those that have the one that most of
    them have get requests for it.

    An inference request that found no server is sent again, up to `attempts` times in all, first to servers
    that have not had it: it changes nothing there. One whose connection was lost is sent once more at most,
    because a request may be what kills servers, and only while that is rare. So is one that a silent server
    has, once another one has the model. The requests that were with a server when it died are sent again one
    after the other: they would lose the next server too, and be blamed, beside the one that kills servers.
    Servers on this host read tensors in `shared` where they lie. must_share: one that does not is not used.

    gRPC's own retry policy would not do: it keeps no more than 256 KiB of a request to send it again, and
    counts nothing.
    """

    def __init__(
        self,
        addresses: str,
        attempts: int = 4,
        shared: SharedTensors | None = None,
        *,
        must_share: bool = False,
    ) -> None:
        self._addresses = addresses
        self._shared, self._must_share = shared, must_share
        self._attempts = attempts
        self._servers: dict[str, TritonServer] = {}
        self._leaving: list[TritonServer] = []
        # By part of the setting: whether its servers are those of IPv6, once one of them has answered.
        self._is_ipv6: dict[str, bool] = {}
        self._endpoints: dict[str, Endpoint] = {}
        self._resolve_at_s = 0.0
        self._resolving = asyncio.Lock()
        self._configs: dict[str, ModelConfig] = {}
        self._news = TritonNews()
        self._turns = itertools.count()
        self._budget = RetryBudget()
        self._suspects = Turns(SUSPECT_S)

    async def close(self) -> None:
        servers = [*self._servers.values(), *self._leaving]
        self._servers, self._leaving = {}, []
        await asyncio.gather(*(server.close() for server in servers))

    async def absence(self) -> str:
        if error := await self._look():
            return error
        if any(server.is_up for server in self._servers.values()):
            return ""
        if len(self._servers) == 1:
            return next(iter(self._servers.values())).absence
        return "; ".join(f"{server.name}: {server.absence}" for server in self._servers.values())

    async def models(self) -> list[ModelState]:
        await self._look()
        up = self._up()
        if not up:
            raise self._unreachable()
        errors = [server.index_error for server in up if server.index_error is not None]
        if len(errors) == len(up):
            raise status_error(errors[0]) from errors[0]
        names = dict.fromkeys(name for server in up for name in server.states)
        return [_of_all(name, [s.states[name] for s in up if name in s.states]) for name in names]

    async def config(self, model: str) -> ModelConfig:
        if not self._servers:
            await self._resolve_if_due()
        servers = self._up() or list(self._servers.values())
        answers = await self._ask_configs(model, servers)
        # What a server that is late said before still counts, while it is up.
        holders = [
            server
            for server in servers
            if model in server.configs and answers[server] is None and (server.is_up or not self._up())
        ]
        if not holders:
            # A model that one of them certainly lacks says more than another one's silence.
            errors = sorted(
                filter(None, answers.values()), key=lambda each: code_of(each) == "DEADLINE_EXCEEDED"
            )
            if not errors:
                raise self._unreachable()
            raise status_error(errors[0], model) from errors[0]
        self._configs[model] = self._choose(model, holders)
        self._tell_models(model)
        return self._configs[model]

    async def infer(self, model: str, inputs: Tensors, outputs: Sequence[str]) -> dict[str, NDArray[Any]]:
        metrics.BATCH_SIZE.labels(model).observe(len(next(iter(inputs.values()))))
        has_lost_connection = has_left = False
        tried: set[TritonServer] = set()
        if not self._servers:
            await self._resolve_if_due()
        for attempt in range(1, self._attempts + 1):
            server = self._pick(model, tried)
            tried.add(server)
            may_leave = attempt < self._attempts and not (has_lost_connection or has_left)
            leave = partial(self._leave, server, model) if may_leave else None
            try:
                async with self._suspects.turn() if has_lost_connection else nullcontext():
                    answer = await server.infer(model, inputs, outputs, leave)
                self._budget.earn()
                return {name: answer[name] for name in outputs}
            except SilentServerError:
                has_left = True
            except InferenceServerException as error:
                if is_lost(error) and (has_lost_connection or has_left):
                    # Also at the last attempt: callers repeat what is unavailable.
                    raise RequestKilledServerError(
                        f"the model server went away twice while it ran model {model} on this request: it is "
                        "not tried again",
                        model,
                    ) from error
                if is_model_away(error):
                    server.lose_model(model)
                elif code_of(error) == "UNAVAILABLE":
                    server.lose(error.message() or code_of(error))
                else:
                    raise status_error(error, model) from error
                if attempt == self._attempts:
                    raise status_error(error, model) from error
                if is_lost(error):
                    has_lost_connection = True
                    if not self._budget.spend():
                        raise status_error(error, model) from error
            metrics.TRITON_RETRIES.labels(model).inc()
            if tried >= set(self._servers.values()):
                # No other server is left to try: this may take a moment.
                tried.clear()
                longest = min(LONGEST_BACKOFF_S, FIRST_BACKOFF_S * 2 ** (attempt - 1))
                # A call whose deadline passes meanwhile is cancelled, and this sleep with it.
                await asyncio.sleep(random.uniform(0, longest))  # noqa: S311
        raise AssertionError("the last attempt returns or raises")

    def _up(self) -> list[TritonServer]:
        return [server for server in self._servers.values() if server.is_up]

    def _pick(self, model: str, tried: set[TritonServer]) -> TritonServer:
        """Return the server for a request: one that has the model and has not had the request, if possible.

        Among equals it is the one with the fewest requests, then the one whose turn is longest ago. Servers
        that have the model of another export get nothing while one has the right one, tried or not.
        """
        config = self._configs.get(model)
        servers = list(self._servers.values())
        if not servers:
            raise self._unreachable()
        if config and any(server.configs.get(model) == config for server in servers):
            servers = [server for server in servers if server.configs.get(model, config) == config]
        server = min(
            servers,
            key=lambda each: (
                each in tried,
                not each.is_up,
                model not in each.configs,
                each.in_flight,
                each.last_turn,
            ),
        )
        server.last_turn = next(self._turns)
        return server

    def _leave(self, server: TritonServer, model: str) -> bool:
        """Return whether a request for a model leaves a silent server. It is then sent to another one."""
        others = (other for other in self._servers.values() if other is not server)
        return any(other.is_up and model in other.configs for other in others) and self._budget.spend()

    def _unreachable(self) -> TritonUnavailableError:
        return TritonUnavailableError("the model server cannot be reached at present")

    def _choose(self, model: str, holders: Sequence[TritonServer]) -> ModelConfig:
        """Return the config that most servers have. The one in use stays until another has more servers."""

        def count(config: ModelConfig) -> int:
            return sum(server.configs[model] == config for server in holders)

        known = self._configs.get(model)
        most = max((server.configs[model] for server in holders), key=count)
        return known if known is not None and count(known) >= count(most) else most

    async def _ask_configs(
        self, model: str, servers: Sequence[TritonServer]
    ) -> dict[TritonServer, InferenceServerException | None]:
        """Renew what is known of a model on several servers. Return the error of each, None if late."""
        tasks = [asyncio.create_task(server.ask_config(model)) for server in servers]
        try:
            await _until_late(tasks)
        finally:
            for task in tasks:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
        answers: dict[TritonServer, InferenceServerException | None] = {}
        for server, result in zip(servers, results, strict=True):
            if isinstance(result, Exception) and not isinstance(result, InferenceServerException):
                raise result
            answers[server] = result if isinstance(result, InferenceServerException) else None
        return answers

    # Looks

    async def _look(self) -> str:
        """Ask every server what it has. Return why there is nobody to ask, empty if there is."""
        error = await self._resolve_if_due()
        if not self._servers:
            return error
        await _until_late([server.look() for server in self._servers.values()])
        self._keep_families()
        self._tell_servers()
        for model in self._configs:
            self._tell_models(model)
        return ""

    async def _resolve_if_due(self) -> str:
        """Renew the servers from time to time. Return why that failed; the servers so far then stay."""
        async with self._resolving:
            now = asyncio.get_running_loop().time()
            if now < self._resolve_at_s:
                return ""
            self._resolve_at_s = now + RESOLVE_EVERY_S
            try:
                endpoints = await resolve(self._addresses)
            except OSError as error:
                return f"{self._addresses}: {error.strerror or error}"
            kept = [each for each in endpoints if self._is_kept(each)]
            for endpoint in kept:
                self._endpoints[endpoint.name] = endpoint
                if endpoint.name not in self._servers:
                    shared = self._shared if self._must_share or endpoint.is_here else None
                    self._servers[endpoint.name] = TritonServer(
                        endpoint.name, endpoint.target, shared, must_share=self._must_share
                    )
            await self._drop(self._servers.keys() - {endpoint.name for endpoint in kept})
            return ""

    def _keep_families(self) -> None:
        """Of a name that has addresses of IPv4 and IPv6, such as localhost, keep the kind that answers."""
        for origin in {endpoint.origin for endpoint in self._endpoints.values()}:
            up = [self._endpoints[server.name] for server in self._up()]
            kinds = {endpoint.is_ipv6 for endpoint in up if endpoint.origin == origin}
            if len(kinds) == 1:
                self._is_ipv6[origin] = kinds.pop()
            elif not kinds:
                self._is_ipv6.pop(origin, None)

    async def _drop(self, names: set[str]) -> None:
        """Send nothing to these servers any more. What they have may end."""
        for name in names:
            self._news.tell_left(name)
            self._leaving.append(self._servers.pop(name))
            del self._endpoints[name]
        idle = [server for server in self._leaving if not server.in_flight]
        self._leaving = [server for server in self._leaving if server.in_flight]
        await asyncio.gather(*(server.close() for server in idle))

    def _tell_servers(self) -> None:
        # Those of the kind of addresses that does not answer go at the next look-up.
        staying = [each for each in self._servers.values() if self._is_kept(self._endpoints[each.name])]
        self._news.tell_servers(staying, is_any_up=bool(self._up()))

    def _tell_models(self, model: str) -> None:
        self._news.tell_model(model, self._configs[model], list(self._servers.values()))

    def _is_kept(self, endpoint: Endpoint) -> bool:
        return self._is_ipv6.get(endpoint.origin, endpoint.is_ipv6) == endpoint.is_ipv6


def _of_all(name: str, states: Sequence[ModelState]) -> ModelState:
    """Return the state of a model, given those of the servers that have it."""
    is_ready = any(state.ready for state in states)
    is_changing = not is_ready and any(state.is_changing for state in states)
    reason = next((state.reason for state in states if state.reason), "")
    return ModelState(name, is_ready, "" if is_ready else reason, is_changing)


async def _until_late(tasks: "Sequence[asyncio.Task[None]]") -> None:
    """Wait for all; once one is done, for the others no longer than LATE_S."""
    if tasks:
        _, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if pending:
            await asyncio.wait(pending, timeout=LATE_S)
