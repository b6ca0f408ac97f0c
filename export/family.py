"""Description of a family of models, which `visiongate export` reads before it imports PyTorch."""

import pkgutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
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
    """The exporter, which has `prepare(options) -> Export`. It may import PyTorch, which takes seconds."""
    extra: Callable[[Options], str] = lambda _options: "export"
    """Returns the extra of packages (see `gateway.extras`) that an export with these options needs.

    By default that is `export`, with PyTorch. A family that also takes ready ONNX files says so here.
    """
    ready_variants: Mapping[str, str] = field(default_factory=dict)
    """The exporters of variants that come from ready ONNX files, by the variants' names."""
    ready_weights: str = ""
    """Where the weights of those come from if `--weights` is not given."""
    other_variants: str = ""
    """Other values that `--variant` accepts, for people."""
    weights_file: str = ""
    """A file name for examples, if no hub has the weights and the command needs a file of them."""
    can_be_int8: bool = False
    """Whether each of its graphs has what an int8 file is held to, `Graph.int8_gate`."""
    alternative_of: str | None = None
    """The family that answers the same requests. An alternative is not part of the default set, `all`."""

    @property
    def variants_text(self) -> str:
        """Return all values that `--variant` accepts in one line, the default first."""
        return "; ".join(filter(None, (", ".join(self.variants), self.other_variants)))

    def prepare(self, options: Options) -> "Export":
        """Import the exporter and describe what it puts into the repository."""
        module = self.ready_variants.get(options.variant or "", self.module)
        export: Export = import_module(module).prepare(options)
        return export

    def default_weights(self, variant: str | None) -> str:
        """Return what `--weights` is by default."""
        return self.ready_weights if variant in self.ready_variants else "hub"


def extra_of_ready_onnx(options: Options) -> str:
    """Return the extra that a family of ready ONNX files needs: `onnx` for such a file, otherwise `export`.

    No hub has weights of such a family. Its exporter then says which file to download, and that sentence is
    not worth an installation of PyTorch.
    """
    return "onnx" if options.is_onnx or options.weights == "hub" else "export"


def published(variants: Mapping[str, Variant]) -> tuple[str, ...]:
    """Return the names of the variants that a hub has, without those of toys and of the demo."""
    return tuple(name for name, variant in variants.items() if variant.hub is not None)


def modules_of(package: ModuleType) -> Iterator[ModuleType]:
    """Import the modules of a package, in alphabetical order."""
    for module in pkgutil.iter_modules(package.__path__):
        yield import_module(f"{package.__name__}.{module.name}")
