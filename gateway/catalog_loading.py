"""The catalog, read from Triton and checked once at start."""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from gateway.catalog import Catalog, Family, Role, Variant
from gateway.errors import StatusError
from gateway.triton import ModelConfig, ModelState, Triton
from visiongate.command_error import CommandError

logger = logging.getLogger(__name__)

_PAUSE_S = 0.25


class CatalogError(CommandError):
    """The repository cannot be served. The message is one sentence for the operator."""


class NotReadyError(CatalogError):
    """The repository cannot be served yet."""


async def load_when_ready(
    triton: Triton, address: str, repository: Path, families: Sequence[Family[Any]], *, wait_s: float
) -> Catalog:
    """Load the catalog as soon as Triton answers at its address and has loaded its models.

    Raises NotReadyError after `wait_s` seconds, and CatalogError as `load` does.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + wait_s
    logged = ""
    while True:
        absence = await triton.absence()
        try:
            if absence:
                raise NotReadyError(
                    f"no Triton answers at {address}: is it running there? --triton names another"
                )
            return await load(triton, repository, families)
        except NotReadyError as error:
            reason = str(error)
        except StatusError as error:
            # Triton went away again between two requests.
            reason = f"Triton at {address}: {error.message}"
        detail = f" ({absence})" if absence else ""
        if loop.time() >= deadline:
            raise NotReadyError(reason + detail)
        if logged != reason:
            # As a warning, so that it is seen even if nobody has set up a log.
            logger.warning("waiting: %s%s", reason, detail)
            logged = reason
        await asyncio.sleep(_PAUSE_S)


async def load(triton: Triton, repository: Path, families: Sequence[Family[Any]]) -> Catalog:
    """Read and check what Triton has loaded of these families.

    Raises CatalogError if a needed model is missing or failed to load, if a tensor's name, type or rank is
    not what the gateway sends, or if a constant or a file beside the model is missing. Raises NotReadyError
    if Triton is still loading a model.
    """
    models = {state.name: state for state in await triton.models()}
    variants: list[Variant[Any]] = []
    for family in families:
        loaded = [
            await _load_variant(triton, repository, member, suffix, models)
            for member in family.with_alternatives
            for suffix in _suffixes(member, models)
        ]
        _check_names(loaded)
        # A plain name makes a variant the default. Without one it is the first: requests need not name one.
        default = next((variant for variant in loaded if variant.is_default), next(iter(loaded), None))
        variants += [replace(variant, is_default=variant is default) for variant in loaded]
    if not variants:
        known = ", ".join(
            role.name for family in families for member in family.with_alternatives for role in member.roles
        )
        raise CatalogError(f"Triton has loaded none of the models that visiongate serves: {known}")
    return Catalog(variants)


def _check_names(variants: Sequence[Variant[Any]]) -> None:
    """Raise CatalogError if two variants have one name: requests choose among them by name alone."""
    seen: dict[str, Variant[Any]] = {}
    for variant in variants:
        other = seen.setdefault(variant.name, variant)
        if other is not variant:
            first, second = (sorted(each.triton_models.values())[0] for each in (other, variant))
            raise CatalogError(
                f"models {first} and {second} are both variant {variant.name!r}: export one of them under "
                "another name"
            )


def _suffixes(family: Family[Any], models: Mapping[str, ModelState]) -> list[str]:
    """Return the suffixes of the variants' names: those that any role of the family has."""
    roles = {role.name for role in family.roles}
    suffixes = set()
    for model in models:
        role, hyphen, variant = model.partition("-")
        if role in roles:
            suffixes.add(hyphen + variant)
    return sorted(suffixes)


async def _load_variant(
    triton: Triton, repository: Path, family: Family[Any], suffix: str, models: Mapping[str, ModelState]
) -> Variant[Any]:
    parameters: dict[str, str] = {}
    max_batch_sizes: dict[str, int] = {}
    for role in family.roles:
        name = role.name + suffix
        state = models.get(name)
        if state is None:
            others = " and ".join(other.name + suffix for other in family.roles if other is not role)
            raise CatalogError(f"model {name} is not loaded in Triton, but {others} needs it")
        if not state.ready and state.is_changing:
            raise NotReadyError(f"Triton has not loaded model {name} yet")
        if not state.ready:
            raise CatalogError(f"Triton could not load model {name}: {state.reason or 'no reason given'}")
        config = await triton.config(name)
        _check_tensors(name, role, config)
        _check_agreement(family, suffix, parameters, name, config.parameters)
        parameters |= config.parameters
        max_batch_sizes[role.name] = config.max_batch_size
    folder = repository / (family.roles[0].name + suffix)
    try:
        spec = family.read_spec(parameters, folder)
    except (ValueError, OSError) as error:
        raise CatalogError(f"model {family.roles[0].name + suffix}: {error}") from error
    return Variant(
        family=family,
        name=suffix.removeprefix("-") or parameters.get("variant", family.name),
        is_default=not suffix,
        triton_models={role.name: role.name + suffix for role in family.roles},
        max_batch_sizes=max_batch_sizes,
        spec=spec,
    )


def _check_agreement(
    family: Family[Any], suffix: str, seen: Mapping[str, str], model: str, own: Mapping[str, str]
) -> None:
    """Raise CatalogError if a parameter that several models of a variant have is not the same in all.

    Halves of different variants may have tensors that fit, and answers that mean nothing.
    """
    for parameter in sorted(seen.keys() & own.keys()):
        if seen[parameter] != own[parameter]:
            others = " and ".join(role.name + suffix for role in family.roles if role.name + suffix != model)
            raise CatalogError(
                f"models {others} and {model} are not of one export: parameter {parameter} is "
                f"{seen[parameter]!r} and {own[parameter]!r}; `visiongate export {family.name}` makes "
                "them anew"
            )


def _check_tensors(model: str, role: Role, config: ModelConfig) -> None:
    for direction, needed, present in (
        ("input", role.inputs, config.inputs),
        ("output", role.outputs, config.outputs),
    ):
        for tensor, (data_type, rank) in needed.items():
            if tensor not in present:
                raise CatalogError(
                    f"model {model} has no {direction} {tensor!r}: `visiongate export` of this version makes "
                    "it anew"
                )
            if present[tensor] != (data_type, rank):
                found_type, found_rank = present[tensor]
                raise CatalogError(
                    f"model {model}: {direction} {tensor!r} is {found_type} of rank {found_rank}, "
                    f"not {data_type} of rank {rank}"
                )
    unknown = sorted(set(config.inputs) - set(role.inputs))
    if unknown:
        raise CatalogError(
            f"model {model} needs an input that visiongate does not know: {', '.join(unknown)}"
        )
