"""Which model variants Triton's repository offers, checked once at start.

A Triton model is named after its role, such as `sam_encoder`: that is the family's default variant.
Other variants of the family lie beside it, their name after a hyphen: `sam_encoder-vit_h`.

Families can be alternatives of one another, such as `sam` and `sam2`: requests then choose among the
variants of both, and name them without their family. The default is that of the first family that has one.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Generic, TypeVar

from gateway.errors import InvalidArgumentError, NoModelError
from gateway.triton import ModelConfig, ModelState, Triton
from visiongate.command_error import CommandError

Tensors = Mapping[str, tuple[str, int]]


class CatalogError(CommandError):
    """The repository cannot be served; the message is one sentence for the operator."""


class NotReadyError(CatalogError):
    """The repository cannot be served yet."""


@dataclass(frozen=True, slots=True)
class Role:
    """A Triton model that a family needs: its tensors' types and ranks, batch dimension included."""

    name: str
    inputs: Tensors
    outputs: Tensors


@dataclass(frozen=True, slots=True, eq=False)
class Family:
    """A kind of model: the task it answers, the Triton models it consists of, and how to read its constants.

    `read_spec` takes the parameters of all roles and the folder of the first, and raises ValueError.
    `alternatives` answer the same requests: they have the same kind of spec, and are loaded with the family.
    """

    name: str
    task: str
    roles: tuple[Role, ...]
    read_spec: Callable[[Mapping[str, str], Path], object]
    alternatives: tuple["Family", ...] = ()

    @property
    def choices(self) -> tuple["Family", ...]:
        """The family and its alternatives."""
        return self, *self.alternatives


Spec = TypeVar("Spec")


@dataclass(frozen=True, slots=True)
class Variant(Generic[Spec]):
    """A model variant that can be asked for.

    `triton_models` maps its roles to Triton's names, `max_batch_sizes` to the most items of one request.
    """

    family: Family
    name: str
    is_default: bool
    triton_models: Mapping[str, str]
    max_batch_sizes: Mapping[str, int]
    spec: Spec


class Catalog:
    """The variants of every family that Triton offers."""

    def __init__(self, variants: list[Variant[object]]) -> None:
        self.variants = sorted(
            variants, key=lambda variant: (variant.family.task, not variant.is_default, variant.name)
        )

    @classmethod
    async def load(cls, triton: Triton, repository: Path, families: Sequence[Family]) -> "Catalog":
        """Reads and checks what Triton has loaded of these families.

        Raises CatalogError where a needed model is missing or failed to load, a tensor's name, type or
        rank is not what the gateway sends, or a constant or file beside the model is missing; NotReadyError
        where Triton is still loading one.
        """
        models = {state.name: state for state in await triton.models()}
        variants = []
        for family in families:
            alike = [
                await _load_variant(triton, repository, choice, suffix, models)
                for choice in family.choices
                for suffix in _suffixes(choice, models)
            ]
            _check_names(alike)
            default = next((variant for variant in alike if variant.is_default), None)
            variants += [replace(variant, is_default=variant is default) for variant in alike]
        if not variants:
            known = ", ".join(
                role.name for family in families for choice in family.choices for role in choice.roles
            )
            raise CatalogError(f"Triton has loaded none of the models that visiongate serves: {known}")
        return cls(variants)

    def of(self, family: Family) -> list[Variant[object]]:
        """The variants that answer the requests of a family, its alternatives' too, the default first."""
        return [variant for variant in self.variants if variant.family in family.choices]

    def has(self, family: Family) -> bool:
        return bool(self.of(family))

    def choose(self, family: Family, name: str, spec_type: type[Spec], field: str = "model") -> Variant[Spec]:
        """The variant called `name`, or the default one for an empty name."""
        variants = self.of(family)
        if not variants:
            raise NoModelError(family.task)
        for variant in variants:
            # The default sorts first, and answers where a repository has no variant marked so.
            if name in ("", variant.name):
                assert isinstance(variant.spec, spec_type)
                return variant  # type: ignore[return-value]
        names = ", ".join(variant.name for variant in variants)
        raise InvalidArgumentError(field, f"no variant {name[:64]!r} of {family.name}: there is {names}")


def _check_names(alike: Sequence[Variant[object]]) -> None:
    """Requests choose among these by name alone."""
    seen: dict[str, Variant[object]] = {}
    for variant in alike:
        other = seen.setdefault(variant.name, variant)
        if other is not variant:
            one, two = (sorted(each.triton_models.values())[0] for each in (other, variant))
            raise CatalogError(
                f"models {one} and {two} are both variant {variant.name!r}: export one of them under "
                "another name"
            )


def _suffixes(family: Family, models: Mapping[str, ModelState]) -> list[str]:
    """The variants' name suffixes: those that any role of the family has."""
    roles = {role.name for role in family.roles}
    found = set()
    for model in models:
        role, hyphen, variant = model.partition("-")
        if role in roles:
            found.add(hyphen + variant)
    return sorted(found)


async def _load_variant(
    triton: Triton, repository: Path, family: Family, suffix: str, models: Mapping[str, ModelState]
) -> Variant[object]:
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


def _check_tensors(model: str, role: Role, config: ModelConfig) -> None:
    for direction, needed, present in (
        ("input", role.inputs, config.inputs),
        ("output", role.outputs, config.outputs),
    ):
        for tensor, (data_type, rank) in needed.items():
            if tensor not in present:
                raise CatalogError(
                    f"model {model} has no {direction} {tensor!r}: was it exported by visiongate?"
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
