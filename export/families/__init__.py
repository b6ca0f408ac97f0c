"""The families of models that can be exported, each in a module of its own here.

The modules import no PyTorch, so that help and lists take no seconds. A module that is added here with a
`FAMILY` is found.
"""

import sys
from collections.abc import Mapping

from export.family import ExporterFamily, modules_of

FAMILIES: Mapping[str, ExporterFamily] = {
    module.FAMILY.name: module.FAMILY for module in modules_of(sys.modules[__name__])
}
DEFAULT_SET = tuple(name for name, family in FAMILIES.items() if family.alternative_of is None)
"""What `all` stands for."""
