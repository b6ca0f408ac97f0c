"""Serves the playground: a page at `/`, part of the package, to try every model in a browser."""

import hashlib
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

FOLDER = Path(__file__).parent / "playground"

_CONTENT_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".jpg": "image/jpeg",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}

_HEADERS = {
    # A new version of the package is seen at once; what has not changed costs an answer without a body.
    "cache-control": "no-cache",
    # The page loads nothing from other hosts, runs no scripts but its own files, and is in nobody's frame.
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "permissions-policy": "camera=(self), microphone=(), geolocation=()",
    "referrer-policy": "same-origin",
    "x-content-type-options": "nosniff",
}


def playground_routes() -> list[Route]:
    """Return the routes of the page and its files: `/`, and `/playground/NAME` for each of them."""
    files = sorted(path for path in FOLDER.rglob("*") if path.suffix in _CONTENT_TYPES)
    routes = [_route(f"/playground/{path.relative_to(FOLDER).as_posix()}", path) for path in files]
    return [_route("/", FOLDER / "index.html"), *routes]


def _route(address: str, path: Path) -> Route:
    content = path.read_bytes()
    etag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    headers = {**_HEADERS, "etag": etag}

    async def endpoint(request: Request) -> Response:
        known = request.headers.get("if-none-match", "").split(",")
        if etag in {tag.strip().removeprefix("W/") for tag in known}:
            return Response(status_code=304, headers=headers)
        return Response(content, media_type=_CONTENT_TYPES[path.suffix], headers=headers)

    return Route(address, endpoint, methods=["GET"])
