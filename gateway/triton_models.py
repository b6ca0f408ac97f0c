"""What Triton says, at one look, of the models that the gateway knows."""

import asyncio
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

import grpc

from gateway.catalog import Family
from gateway.concurrency import gather
from gateway.errors import StatusError
from gateway.triton import ModelConfig, ModelState, Triton

Key = tuple[Family[Any], str]
"""A variant: its family, and what its models' names have after the roles' names, such as "-vit_h"."""

Seen = tuple[ModelConfig | str | None, ...]
"""What a variant's models are, role by role: a config if ready, why loading failed, None if absent."""


@dataclass(frozen=True, slots=True)
class Look:
    """What Triton said of the models of some families.

    error: why it did not list its models. states: those that it lists. configs: of the models that are ready.
    silent: those that it was asked about and said nothing of in time.
    """

    error: StatusError | None
    states: Mapping[str, ModelState]
    configs: Mapping[str, ModelConfig]
    silent: Set[str]

    def keys(self, families: Iterable[Family[Any]]) -> Iterator[Key]:
        """Yield the variants of which there is any model, those of the first family first."""
        for family in families:
            roles = {role.name for role in family.roles}
            suffixes = {name.removeprefix(_role(name)) for name in self.states if _role(name) in roles}
            yield from ((family, suffix) for suffix in sorted(suffixes))

    def undecided(self, key: Key) -> str | None:
        """Return a model of a variant that is on its way, or that nothing is known of at present."""
        if self.error is not None:
            return next(iter(models_of(key)))
        for name in models_of(key):
            state = self.states.get(name)
            if state and (name not in self.configs if state.ready else state.is_changing):
                return name
        return None

    def seen(self, key: Key) -> Seen:
        """Return what the models of a variant are. None of them may be undecided."""
        return tuple(map(self._seen, models_of(key)))

    def _seen(self, name: str) -> ModelConfig | str | None:
        state = self.states.get(name)
        if state is None:
            return None
        return self.configs[name] if state.ready else state.reason or "no reason given"

    def is_away(self, key: Key) -> bool:
        """Return whether any model of a variant is certainly not ready."""
        return any(name not in self.configs and name not in self.silent for name in models_of(key))


def models_of(key: Key) -> list[str]:
    """Return Triton's names of the models of a variant, in the order of the roles."""
    family, suffix = key
    return [role.name + suffix for role in family.roles]


async def look(triton: Triton, families: Sequence[Family[Any]], known: Iterable[Key]) -> Look:
    """Ask Triton for its models of these families. Known variants are asked for even if it lists none."""
    roles = {role.name for family in families for role in family.roles}
    expected = {name for key in known for name in models_of(key)}
    # Side by side: Triton may hang.
    index, answers = await asyncio.gather(_index(triton), _configs(triton, expected))
    states = {}
    if not isinstance(index, StatusError):
        states = {state.name: state for state in index if _role(state.name) in roles}
        ready = {name for name, state in states.items() if state.ready}
        answers |= await _configs(triton, ready - expected)
    return Look(
        error=index if isinstance(index, StatusError) else None,
        states=states,
        configs={name: answer for name, answer in answers.items() if isinstance(answer, ModelConfig)},
        silent={name for name, answer in answers.items() if _is_silence(answer)},
    )


async def _index(triton: Triton) -> list[ModelState] | StatusError:
    try:
        return await triton.models()
    except StatusError as error:
        return error


async def _configs(triton: Triton, names: Iterable[str]) -> dict[str, ModelConfig | StatusError]:
    async def ask(name: str) -> ModelConfig | StatusError:
        try:
            return await triton.config(name)
        except StatusError as error:
            return error

    ordered = sorted(names)
    return dict(zip(ordered, await gather(map(ask, ordered)), strict=True))


def _is_silence(answer: object) -> bool:
    return isinstance(answer, StatusError) and answer.code is grpc.StatusCode.DEADLINE_EXCEEDED


def _role(name: str) -> str:
    return name.partition("-")[0]
