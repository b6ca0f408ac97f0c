"""The operations that the client has, found as the modules of `visiongate.operations` define them."""

import importlib
import inspect
import pkgutil
import typing
from collections.abc import Callable
from typing import Any

from visiongate import operations
from visiongate.operations import Operation


def _found() -> dict[str, Callable[..., Operation[Any]]]:
    functions: dict[str, Callable[..., Operation[Any]]] = {}
    for module in pkgutil.iter_modules(operations.__path__):
        loaded = importlib.import_module(f"{operations.__name__}.{module.name}")
        for name, function in inspect.getmembers(loaded, inspect.isfunction):
            if function.__module__ == loaded.__name__ and not name.startswith("_"):
                result = typing.get_type_hints(function).get("return")
                if typing.get_origin(result) is Operation:
                    functions[name] = function
    return functions


OPERATIONS = _found()
