"""Which model variants a server offers, and how requests choose among them.

A Triton model is named after its role, such as `sam_encoder`: that is the family's default variant.
Other variants of the family lie beside it, their name after a hyphen: `sam_encoder-vit_h`. If no model has
the plain name, the first variant is the default.

Families can be alternatives of one another, such as `sam` and `sam2`. Requests then choose among the variants
of both, and name them without their family. The default is that of the first family that has one.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from gateway.errors import InputError, NoModelError
from gateway.models.spec import ModelSpec

Tensors = Mapping[str, tuple[str, int]]


S = TypeVar("S", bound=ModelSpec)


@dataclass(frozen=True, slots=True)
class Role:
    """A Triton model that a family needs: its tensors' types and ranks, batch dimension included.

    finite: outputs of which nothing can be made if a number is none, or infinite.
    """

    name: str
    inputs: Tensors
    outputs: Tensors
    finite: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Family(Generic[S]):
    """A kind of model: the task it answers, the Triton models it consists of, and how to read its constants.

    `read_spec` takes the parameters of all roles and the folder of the first one, and raises ValueError.
    `characters` returns all that a model which reads text can read, each once, and nothing for others.
    `alternatives` answer the same requests: they have the same kind of spec, and are loaded with the family.
    """

    name: str
    task: str
    roles: tuple[Role, ...]
    read_spec: Callable[[Mapping[str, str], Path], S]
    characters: Callable[[S], str] = lambda _spec: ""
    alternatives: tuple["Family[S]", ...] = ()

    @property
    def with_alternatives(self) -> tuple["Family[S]", ...]:
        """The family and its alternatives."""
        return self, *self.alternatives


@dataclass(frozen=True, slots=True)
class Variant(Generic[S]):
    """A model variant that can be asked for.

    `triton_models` maps its roles to Triton's names, `max_batch_sizes` to the most items of one request.
    """

    family: Family[S]
    name: str
    is_default: bool
    triton_models: Mapping[str, str]
    max_batch_sizes: Mapping[str, int]
    spec: S


class Catalog:
    """The variants of every family that Triton offers."""

    def __init__(self, variants: Sequence[Variant[Any]]) -> None:
        self.variants = sorted(
            variants, key=lambda variant: (variant.family.task, not variant.is_default, variant.name)
        )

    def of(self, family: Family[S]) -> list[Variant[S]]:
        """Return the variants that answer a family's requests, its alternatives' too, the default first."""
        return [variant for variant in self.variants if variant.family in family.with_alternatives]

    def has(self, family: Family[Any]) -> bool:
        """Return whether any variant answers the requests of a family."""
        return bool(self.of(family))

    def choose(self, family: Family[S], name: str) -> Variant[S]:
        """Return the variant called `name`, or the default one for an empty name.

        Raises NoModelError if the family has no variant, and InputError if it has none of this name.
        """
        variants = self.of(family)
        if not variants:
            raise NoModelError(family.task)
        for variant in variants:
            # The default sorts first.
            if name in ("", variant.name):
                return variant
        names = ", ".join(variant.name for variant in variants)
        raise InputError(f"no variant {name[:64]!r} of {family.name}: there is {names}")
