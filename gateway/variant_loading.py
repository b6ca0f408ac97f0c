"""A variant, made of the configs of its models in Triton, or the fault that it has."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gateway.catalog import Fault, Role, Variant, new_fingerprint
from gateway.triton import ModelConfig
from gateway.triton_models import Key, Seen, models_of

EXPORT = "export"
"""The parameter by which the exporter marks all models of one export: a hash of their files."""


class VariantError(Exception):
    """A variant cannot be served. The message is one sentence for the operator."""


async def load_variant(key: Key, seen: Seen, repository: Path, known_name: str) -> Variant[Any] | Fault:
    """Return the variant of these models, or why it cannot be served. Neither is marked as the default.

    It is a fault if a model is missing or failed to load, if a tensor's name, type or rank is not what the
    gateway sends, if models are of different exports, or if a constant or a file beside the model is missing.
    `known_name` is its name so far.
    """
    family, suffix = key
    configs = {
        role.name: config
        for role, config in zip(family.roles, seen, strict=True)
        if isinstance(config, ModelConfig)
    }
    parameters = merged({name: config.parameters for name, config in configs.items()})
    name = suffix.removeprefix("-") or parameters.get("variant") or known_name or family.name
    models = {role.name: role.name + suffix for role in family.roles}
    try:
        _check_presence(key, seen)
        for role in family.roles:
            _check_tensors(models[role.name], role, configs[role.name])
        check_agreement(key, {role: config.parameters for role, config in configs.items()})
        folder = repository / models[family.roles[0].name]
        try:
            # Reading a tokenizer takes a while, and calls may be under way.
            spec = await asyncio.to_thread(family.read_spec, parameters, folder)
        except (ValueError, OSError) as error:
            raise VariantError(f"model {folder.name}: {error}") from error
    except VariantError as error:
        return Fault(family, name, False, models, str(error))
    return Variant(
        family=family,
        name=name,
        is_default=False,
        triton_models=models,
        max_batch_sizes={role: config.max_batch_size for role, config in configs.items()},
        spec=spec,
        export=parameters.get(EXPORT, ""),
        fingerprint=new_fingerprint(parameters.get(EXPORT, "")),
    )


def is_marked(seen: Seen) -> bool:
    """Return whether all models of a variant tell by which export they were made."""
    return all(isinstance(part, ModelConfig) and EXPORT in part.parameters for part in seen)


def export_of(part: ModelConfig | str | None) -> str:
    """Return by which export a model was made; empty if it does not tell, or is not ready."""
    return part.parameters.get(EXPORT, "") if isinstance(part, ModelConfig) else ""


def merged(parameters: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """Return the parameters of several models as one."""
    return {key: value for own in parameters.values() for key, value in own.items()}


def check_agreement(key: Key, parameters: Mapping[str, Mapping[str, str]]) -> None:
    """Raise VariantError if a parameter that several models of a variant have is not the same in all.

    `parameters` are those of each role. Halves of different variants, or of different weights of one, may
    have tensors that fit, and answers that mean nothing.
    """
    family, suffix = key
    seen: dict[str, str] = {}
    for role in parameters:
        own = parameters[role]
        # The hash says less to people than any other difference.
        for name in sorted(seen.keys() & own.keys(), key=lambda name: (name == EXPORT, name)):
            if seen[name] != own[name]:
                model = role + suffix
                others = " and ".join(other for other in models_of(key) if other != model)
                raise VariantError(
                    f"models {others} and {model} are not of one export: parameter {name} is "
                    f"{seen[name]!r} and {own[name]!r}; `visiongate export {family.name}` makes them anew"
                )
        seen |= own


def _check_presence(key: Key, seen: Seen) -> None:
    models = models_of(key)
    for name, part in zip(models, seen, strict=True):
        if part is None:
            others = " and ".join(other for other in models if other != name)
            raise VariantError(f"model {name} is not loaded in Triton, but {others} needs it")
        if isinstance(part, str):
            # Its words may be many lines: the first says what, and Triton's log the rest.
            raise VariantError(f"Triton could not load model {name}: {part.strip().splitlines()[0]}")


def _check_tensors(model: str, role: Role, config: ModelConfig) -> None:
    for direction, needed, present in (
        ("input", role.inputs, config.inputs),
        ("output", role.outputs, config.outputs),
    ):
        for tensor, (data_type, rank) in needed.items():
            if tensor not in present:
                raise VariantError(
                    f"model {model} has no {direction} {tensor!r}: `visiongate export` of this version makes "
                    "it anew"
                )
            if present[tensor] != (data_type, rank):
                found_type, found_rank = present[tensor]
                raise VariantError(
                    f"model {model}: {direction} {tensor!r} is {found_type} of rank {found_rank}, "
                    f"not {data_type} of rank {rank}"
                )
    unknown = sorted(set(config.inputs) - set(role.inputs))
    if unknown:
        raise VariantError(
            f"model {model} needs an input that visiongate does not know: {', '.join(unknown)}"
        )
