"""A request of inference-sdk: what its body has, and the way to the gateway.

Fields that no route uses are passed over, as the SDK sends some that are for other servers.
"""

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from starlette.datastructures import QueryParams

from gateway.api_keys import MAX_KEY_LENGTH
from gateway.errors import InvalidArgumentError
from gateway.http import translation
from gateway.http.calls import Calls
from gateway.http.exchange import Exchange
from gateway.http.json_reader import read_number
from gateway.http.json_text import Tree
from gateway.http.translation import Names

KEY = "api_key"
MAX_ITEMS = 2048
"""Of a list whose items are looked at one by one here. The gateway's own limits are lower."""


@dataclass(frozen=True, slots=True)
class Images:
    """The images of a request, as the API takes them. One image by itself is answered without a list."""

    trees: list[Tree]
    paths: list[str]
    is_list: bool

    def names(self) -> Names:
        """Return the caller's names of what is wrong with the API's `images`."""
        names: dict[str, str] = {"images": "image"}
        for index, path in enumerate(self.paths):
            names |= image_names(f"images[{index}]", path)
        return names


class Asked:
    """A request whose body has been read, empty for GET."""

    def __init__(self, body: Mapping[str, Tree], calls: Calls, exchange: Exchange) -> None:
        self.body = body
        self._calls = calls
        self._exchange = exchange
        self._started_at_s = time.monotonic()

    @classmethod
    async def read(cls, calls: Calls, exchange: Exchange) -> "Asked":
        """Read a request. A key in its query goes before those in headers, one in its body comes last."""
        query = QueryParams(exchange.scope["query_string"])
        if KEY in query:
            exchange.api_key = _key(query[KEY])
        is_key_known = bool(exchange.api_key or {"authorization", "x-api-key"} & set(exchange.headers))
        if exchange.scope["method"] != "POST":
            calls.admit(exchange)
            return cls({}, calls, exchange)
        if is_key_known:
            calls.admit(exchange)
        body = await translation.read_object(exchange)
        if not is_key_known:
            exchange.api_key = _key(body.get(KEY, ""))
            calls.admit(exchange)
        return cls(body, calls, exchange)

    async def call(self, method: str, tree: Tree, names: Names) -> Any:
        """Return the gateway's answer; see `translation.ask`."""
        return await translation.ask(self._calls, self._exchange, method, tree, names)

    def seconds(self) -> float:
        """Return for how long the request has been answered until now."""
        return time.monotonic() - self._started_at_s

    def required(self, name: str) -> Tree:
        """Return a field that must be there."""
        if name not in self.body:
            raise InvalidArgumentError(name, "is missing")
        return self.body[name]

    def image(self) -> Tree:
        """Return the one image of the request, as the API takes it; see IMAGE_NAMES."""
        images = self.images()
        if len(images.trees) != 1:
            raise InvalidArgumentError("image", f"must be one image here, and is {len(images.trees)}")
        return images.trees[0]

    def images(self) -> Images:
        """Return the images of the request."""
        value = self.required("image")
        is_list = isinstance(value, list)
        if is_list:
            check_count(len(value), "image")
        paths = [f"image[{index}]" for index in range(len(value))] if is_list else ["image"]
        trees = [
            image_tree(item, path) for item, path in zip(value if is_list else [value], paths, strict=True)
        ]
        return Images(trees, paths, is_list)

    def number(self, name: str, default: float) -> float:
        """Return a number."""
        return read_number(self.body.get(name, default), name)

    def flag(self, name: str, *, default: bool) -> bool:
        """Return what is true or false."""
        value = self.body.get(name, default)
        if not isinstance(value, bool):
            raise InvalidArgumentError(name, "must be true or false")
        return value

    def choice(self, name: str, default: str, words: Collection[str]) -> str:
        """Return one of some words."""
        value = self.body.get(name, default)
        if not isinstance(value, str) or value not in words:
            raise InvalidArgumentError(name, f"must be one of {', '.join(words)}")
        return value

    def version(self, name: str, *defaults: str) -> str:
        """Return the variant that the request names; empty if it names none, or one of `defaults`."""
        value = self.body.get(name, "")
        if not isinstance(value, str):
            raise InvalidArgumentError(name, "must be the name of a model's variant")
        # Their names, such as ViT-L-14-336px and hiera_b_plus, as those of our exports.
        variant = value.lower().replace("-", "_").removesuffix("px").replace("_b_plus", "_base_plus")
        return "" if variant in defaults else variant


def check_count(count: int, path: str, most: int = MAX_ITEMS) -> None:
    """Raise InvalidArgumentError for more items than a list may have."""
    if count > most:
        raise InvalidArgumentError(path, f"has {count} items; the limit is {most}")


def image_tree(value: Tree, path: str) -> Tree:
    """Return an image as the API takes it."""
    if not isinstance(value, dict):
        raise InvalidArgumentError(path, 'must be {"type": "base64", "value": …}')
    if value.get("value") is None:
        raise InvalidArgumentError(f"{path}.value", "is missing")
    match value.get("type"):
        case "base64":
            return {"encoded": value["value"]}
        case "url":
            return {"uri": value["value"]}
        case "numpy":
            raise InvalidArgumentError(
                f"{path}.type", "numpy is a pickle, which can run code and is never read: send base64"
            )
    raise InvalidArgumentError(f"{path}.type", "must be base64 or url")


def image_names(field: str, path: str) -> Names:
    """Return the caller's names of what is wrong with an image."""
    return {f"{field}.encoded": f"{path}.value", f"{field}.uri": f"{path}.value", field: path}


IMAGE_NAMES = image_names("image", "image")


def _key(value: Tree) -> str:
    """Return a key that can be sent as metadata of gRPC."""
    if not (
        isinstance(value, str) and value.isascii() and value.isprintable() and len(value) <= MAX_KEY_LENGTH
    ):
        raise InvalidArgumentError(
            KEY, f"must be at most {MAX_KEY_LENGTH} letters, digits and signs of ASCII"
        )
    return value
