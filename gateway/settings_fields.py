"""The fields of settings: the help's group and words of each, and what its JSON schema says."""

from functools import cache
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, Field

T = TypeVar("T")
Group = Literal[
    "Serving",
    "HTTP",
    "Triton",
    "Who may call",
    "Limits",
    "Images by URI",
    "Caches, batches, threads",
    "Metrics, traces, log",
]


def setting(
    group: Group, default: T, description: str, *, ge: float | None = None, le: float | None = None
) -> T:
    """Return pydantic's field of a setting. `group` is the heading that help shows the setting under."""
    return Field(default, description=description, ge=ge, le=le, json_schema_extra={"group": group})


def schema_of(settings: type[BaseModel], name: str) -> dict[str, Any]:
    """Return the JSON schema of a setting, with `optional` if the setting may be None."""
    schema: dict[str, Any] = _whole_schema(settings)["properties"][name]
    types = [kind for kind in schema.get("anyOf", ()) if kind["type"] != "null"]
    return {**schema, **types[0], "optional": True} if types else schema


@cache
def _whole_schema(settings: type[BaseModel]) -> dict[str, Any]:
    return settings.model_json_schema()
