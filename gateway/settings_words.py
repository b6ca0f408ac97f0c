"""What people read about a setting's values, from its JSON schema."""

from collections.abc import Mapping
from typing import Any


def allowed(schema: Mapping[str, Any]) -> str:
    """Say in words which values a setting can have. A key `optional` says that it may be None."""
    if "enum" in schema:
        return "one of " + ", ".join(schema["enum"])
    words = {
        "integer": "a whole number",
        "number": "a number",
        "boolean": "true or false",
        "array": "a list of texts (with commas between them)",
        "string": "a path" if schema.get("format") == "path" else "a text",
    }[schema["type"]]
    if "minimum" in schema and "maximum" in schema:
        words += f" from {schema['minimum']} to {schema['maximum']}"
    elif "minimum" in schema:
        words += f" of at least {schema['minimum']}"
    elif "exclusiveMinimum" in schema:
        words += f" above {schema['exclusiveMinimum']}"
    return words + (", or empty for none" if schema.get("optional") else "")


def metavar(schema: Mapping[str, Any]) -> str:
    """Return the placeholder of a setting's value in help."""
    if "enum" in schema:
        return "|".join(schema["enum"])
    if schema["type"] == "array":
        return "A,B,…"
    if schema.get("format") == "path":
        return "PATH"
    return "TEXT" if schema["type"] == "string" else str(schema["type"]).upper()
