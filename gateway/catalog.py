"""Which model variants a server offers, and how requests choose among them.

A Triton model is named after its role, such as `sam_encoder`: that is the family's default variant.
Other variants of the family lie beside it, their name after a hyphen: `sam_encoder-vit_h`. If no model has
the plain name, the first variant is the default. A default that is broken stays the default.

Families can be alternatives of one another, such as `sam` and `sam2`. Requests then choose among the variants
of both, and name them without their family. The default is that of the first family that has one.

What Triton offers changes while the gateway runs: `catalog_loading` keeps a process's one catalog up to date.
"""

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from gateway.errors import InputError, NoModelError, TritonUnavailableError
from gateway.models.spec import ModelSpec

Tensors = Mapping[str, tuple[str, int]]

_SERIAL_NUMBERS = itertools.count(1)


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

    def __post_init__(self) -> None:
        for alternative in self.alternatives:
            if alternative.task != self.task:
                raise ValueError(
                    f"{alternative.name} is no alternative of {self.name}: it is for another task"
                )

    @property
    def with_alternatives(self) -> tuple["Family[S]", ...]:
        """The family and its alternatives."""
        return self, *self.alternatives


@dataclass(frozen=True, slots=True)
class Variant(Generic[S]):
    """A model variant that can be asked for.

    `triton_models` maps its roles to Triton's names, `max_batch_sizes` to the most items of one request.
    `export` is the hash of the exported files, empty if the models do not tell.

    `fingerprint` belongs into the key of whatever is kept of the variant's answers. No two that were loaded
    have the same, not even of one export: between Triton's change and the gateway's notice of it, answers of
    new weights are kept under the old fingerprint, and those weights may come back.
    """

    family: Family[S]
    name: str
    is_default: bool
    triton_models: Mapping[str, str]
    max_batch_sizes: Mapping[str, int]
    spec: S
    export: str = ""
    fingerprint: str = field(default_factory=lambda: new_fingerprint(""))


@dataclass(frozen=True, slots=True)
class Fault:
    """A model variant that is there and cannot be served. The sentence says why, for the operator."""

    family: Family[Any]
    name: str
    is_default: bool
    triton_models: Mapping[str, str]
    sentence: str


def new_fingerprint(export: str) -> str:
    """Return a fingerprint that no other variant of this process has. `export` is there for people."""
    return f"{export}#{next(_SERIAL_NUMBERS)}"


class Catalog:
    """The variants of every family that Triton offers, and which of Triton's models are ready.

    One instance a process: its contents are replaced while others hold it. A list that it has given stays as
    it was.
    """

    def __init__(self, variants: Iterable[Variant[Any]] = (), faults: Iterable[Fault] = ()) -> None:
        self.replace(variants, faults)
        self._ready_models: Set[str] = frozenset()

    def replace(self, variants: Iterable[Variant[Any]], faults: Iterable[Fault]) -> None:
        """Offer these from now on."""
        self.variants = sorted(variants, key=_order)
        self.faults = sorted(faults, key=_order)
        # Of two entries of one name the one that can be served comes first.
        self.entries: Sequence[Variant[Any] | Fault] = sorted([*self.variants, *self.faults], key=_order)

    def set_ready(self, models: Set[str]) -> None:
        """Take note of the models that Triton is ready to run."""
        self._ready_models = models

    def of(self, family: Family[S]) -> list[Variant[S]]:
        """Return the variants that answer a family's requests, its alternatives' too, the default first."""
        return [variant for variant in self.variants if variant.family in family.with_alternatives]

    def has(self, family: Family[Any]) -> bool:
        """Return whether there is any variant for the requests of a family, broken ones included."""
        return bool(self._entries_of(family))

    def choose(self, family: Family[S], name: str) -> Variant[S]:
        """Return the variant called `name`, or the default one for an empty name.

        Raises NoModelError if the family has no variant, InputError if it has none of this name, and
        TritonUnavailableError if that one is broken.
        """
        entries = self._entries_of(family)
        if not entries:
            raise NoModelError(family.task)
        chosen = next((entry for entry in entries if name in ("", entry.name)), None)
        if chosen is None:
            names = ", ".join(dict.fromkeys(entry.name for entry in entries))
            raise InputError(f"no variant {name[:64]!r} of {family.name}: there is {names}")
        if isinstance(chosen, Fault):
            # The sentence may have words of Triton's: it goes to the log alone.
            raise TritonUnavailableError(
                f"model {chosen.family.name} {chosen.name} cannot be used at present"
            ) from RuntimeError(chosen.sentence)
        return chosen

    def lacks(self, family: Family[Any]) -> list[str]:
        """Return the models that Triton must run for a family's default variant, and is not ready to run."""
        default = next(iter(self._entries_of(family)), None)
        if default is None:
            return [role.name for role in family.roles]
        return sorted(self._unready(default))

    def is_ready(self, entry: Variant[Any] | Fault) -> bool:
        """Return whether requests for a variant are answered at present."""
        return not self._unready(entry)

    def _unready(self, entry: Variant[Any] | Fault) -> Set[str]:
        models = frozenset(entry.triton_models.values())
        return models if isinstance(entry, Fault) else models - self._ready_models

    def _entries_of(self, family: Family[Any]) -> list[Variant[Any] | Fault]:
        """Return all that is there for a family's requests, the default first."""
        return [entry for entry in self.entries if entry.family in family.with_alternatives]


def _order(entry: Variant[Any] | Fault) -> tuple[str, bool, str, bool]:
    return entry.family.task, not entry.is_default, entry.name, isinstance(entry, Fault)
