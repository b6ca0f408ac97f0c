"""What Schemathesis loads: it sends a real image in place of random bytes, which no model would get."""

import base64
from typing import Any

import schemathesis

from gateway.http.openapi_examples import picture_png


@schemathesis.hook
def map_body(context: schemathesis.HookContext, body: Any) -> Any:
    return with_images(body)


def with_images(part: Any) -> Any:
    if isinstance(part, dict):
        return {name: image_or(name, inner) for name, inner in part.items()}
    return [with_images(item) for item in part] if isinstance(part, list) else part


def image_or(name: str, value: Any) -> Any:
    """Only where the request has a valid value already: what is meant to be refused stays so."""
    if name == "encoded" and isinstance(value, str):
        return base64.b64encode(picture_png()).decode()
    return with_images(value)
