"""The families in the demo, each in a module of its own here.

The modules import no PyTorch: the demo runs without it. A module that is added here with a `FAMILY` is found.
"""

import sys
from collections.abc import Mapping

from export.demo.family import DemoFamily
from export.family import modules_of

_FOUND: list[DemoFamily] = [module.FAMILY for module in modules_of(sys.modules[__name__])]
FAMILIES: Mapping[str, DemoFamily] = {
    family.name: family for family in sorted(_FOUND, key=lambda family: family.place)
}
"""By name, in the order of the tables."""
