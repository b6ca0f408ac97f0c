"""What `visiongate export` knows of a family of models before PyTorch is imported."""

import pkgutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

from export.weights import Options, Variant

if TYPE_CHECKING:
    from export.graph import Export


@dataclass(frozen=True, slots=True)
class ExporterFamily:
    """A family of models that can be exported."""

    name: str
    """As on the command line."""
    variants: Sequence[str]
    """The names of the variants, the default first."""
    weights: str
    """Where the weights come from, for people."""
    licence: str
    """The licence of the code and of the weights; it says so if the terms of the weights are not stated."""
    module: str
    """The exporter, which has `prepare(options) -> Export`. Importing it imports PyTorch: seconds."""
    other_variants: str = ""
    """What else `--variant` takes, for people."""
    weights_file: str = ""
    """A file name for examples, if no hub has the weights and the command needs a file of them."""
    alternative_of: str | None = None
    """The family that answers the same requests. An alternative is not part of the default set, `all`."""

    @property
    def variants_text(self) -> str:
        """Return all that `--variant` takes in one line, the default first."""
        return "; ".join(filter(None, (", ".join(self.variants), self.other_variants)))

    def prepare(self, options: Options) -> "Export":
        """Import the exporter and describe what it puts into the repository."""
        export: Export = import_module(self.module).prepare(options)
        return export


def published(variants: Mapping[str, Variant]) -> tuple[str, ...]:
    """Return the names of the variants that a hub has: not those of toys and of the demo."""
    return tuple(name for name, variant in variants.items() if variant.hub is not None)


def modules_of(package: ModuleType) -> Iterator[ModuleType]:
    """Import the modules of a package, in alphabetical order."""
    for module in pkgutil.iter_modules(package.__path__):
        yield import_module(f"{package.__name__}.{module.name}")
