"""The page /docs: the OpenAPI document for people to read. It has no script, and loads nothing."""

import base64
import hashlib
import json
import shlex
from collections.abc import Iterable, Iterator
from functools import lru_cache
from html import escape
from importlib import resources

from gateway.http.docs_text import inline, prose
from gateway.http.exchange import Answer, Exchange
from gateway.http.openapi import document_json
from gateway.http.openapi_schemas import Schema

_STYLE = resources.files("gateway.http").joinpath("docs.css").read_text()
_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
CONTENT_SECURITY_POLICY = (
    f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""The header that this page is to be sent with."""
_HEADERS = {"content-security-policy": CONTENT_SECURITY_POLICY, "x-content-type-options": "nosniff"}

_HEAD = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
"""


async def answer(exchange: Exchange) -> Answer:
    """Answer with the page of this server's document."""
    html = _own_page(f"{exchange.scope['scheme']}://{exchange.headers.get('host', '')}")
    return Answer([html], "text/html; charset=utf-8", headers=_HEADERS)


# A server has few names.
@lru_cache(8)
def _own_page(url: str) -> bytes:
    return page(json.loads(document_json()), url).encode()


def page(document: Schema, url: str) -> str:
    """Return the page of an OpenAPI document as HTML.

    url: the server's address, such as http://127.0.0.1:8080, for the commands on the page.
    """
    return "\n".join(_page(document, url.removesuffix("/")))


def _page(document: Schema, url: str) -> Iterator[str]:
    info, schemas = document["info"], document["components"]["schemas"]
    title = escape(info["title"])
    yield f"{_HEAD}<title>{title}: API</title>\n<style>{_STYLE}</style>\n</head>\n<body>"
    yield f"<h1>{title} {escape(info['version'])}: API</h1>"
    yield prose(info["description"])
    yield "<p>In the commands, <code>photo.png</code> stands for an image of yours.</p>"
    yield '<p>The same for programs: <a href="openapi.json">openapi.json</a>.</p>'
    yield from _contents(document)
    for tag in document["tags"]:
        yield _heading(2, tag["name"], escape(tag["name"]))
        yield prose(tag["description"])
        for verb, path, operation in _operations(document):
            if tag["name"] in operation["tags"]:
                yield from _operation(verb, url, path, operation, schemas)
    yield from _errors(document)
    yield _heading(2, "types", "Types")
    shown = {_name(schema) for _, _, operation in _operations(document) for schema in _own(operation)}
    for name, schema in schemas.items():
        if name not in shown:
            yield _heading(3, f"type-{name}", f"<code>{escape(name)}</code>")
            yield prose(schema["description"])
            yield from _fields(schema)
    yield "</body>\n</html>"


def _operations(document: Schema) -> Iterator[tuple[str, str, Schema]]:
    for path, item in document["paths"].items():
        for verb, operation in item.items():
            yield verb.upper(), path, operation


def _contents(document: Schema) -> Iterator[str]:
    yield '<nav aria-label="Contents">\n<ul>'
    for _, _, operation in _operations(document):
        yield f"<li>{_link(operation['operationId'], operation['operationId'])}</li>"
    yield f"<li>{_link('errors', 'Errors')}</li>\n<li>{_link('types', 'Types')}</li>\n</ul>\n</nav>"


def _operation(verb: str, url: str, path: str, operation: Schema, schemas: Schema) -> Iterator[str]:
    name = operation["operationId"]
    yield _heading(3, name, f"{escape(name)}: <code>{escape(f'{verb} {path}')}</code>")
    yield prose(operation["description"])
    yield from _commands(url + path, operation)
    if "requestBody" in operation:
        yield "<h4>Request</h4>"
        yield from _fields(_resolve(_json_schema(operation["requestBody"]), schemas))
    answer = operation["responses"]["200"]
    yield "<h4>Answer</h4>"
    yield from _fields(_resolve(_json_schema(answer), schemas))
    for kind, content in answer["content"].items():
        if kind != "application/json":
            description = inline(content["schema"]["description"])
            yield f"<p>With <code>accept: {escape(kind)}</code>: {description}</p>"
    statuses = ", ".join(status for status in operation["responses"] if status != "200")
    yield f"<p>{_link('errors', 'Errors')}: {escape(statuses)}.</p>"


def _commands(url: str, operation: Schema) -> Iterator[str]:
    """Yield commands that can be pasted into a shell."""
    if "requestBody" not in operation:
        yield _command("curl", url)
        return
    content = operation["requestBody"]["content"]
    parts = [
        word
        for name, value in content["multipart/form-data"]["example"].items()
        for item in (value if isinstance(value, list) else [value])
        for word in ("-F", f"{name}={item if isinstance(item, str) else json.dumps(item)}")
    ]
    yield _command("curl", url, *parts)
    body = json.dumps(content["application/json"]["example"])
    as_json = _command("curl", url, "-H", "content-type: application/json", "-d", body)
    yield f"<details><summary>As JSON, with a small picture</summary>{as_json}</details>"


def _command(*words: str) -> str:
    return f'<pre class="command">{escape(shlex.join(words))}</pre>'


def _errors(document: Schema) -> Iterator[str]:
    yield _heading(2, "errors", "Errors")
    yield f"<p>Every error has a body: {_link('type-google.rpc.Status', 'google.rpc.Status')}.</p>"
    statuses = {
        _name(answer): status
        for _, _, operation in _operations(document)
        for status, answer in operation["responses"].items()
        if "$ref" in answer
    }
    rows = []
    for name, status in sorted(statuses.items(), key=lambda each: each[1]):
        response = document["components"]["responses"][name]
        example = response["content"]["application/json"].get("example")
        shown = f"<pre>{escape(json.dumps(example, indent=2))}</pre>" if example else ""
        headers = " ".join(f"<code>{escape(header)}</code>" for header in response["headers"])
        rows.append((escape(status), inline(response["description"]) + shown, headers))
    yield _table(("Status", "Meaning", "Headers"), rows)


def _fields(schema: Schema) -> Iterator[str]:
    if not schema.get("properties"):
        return
    required = schema.get("required", [])
    # Of answers, nothing is required: these fields are never left out.
    word = "required" if schema.get("additionalProperties") is False else "always there"
    rows = [
        (
            f"<code>{escape(name)}</code>",
            _type(field) + (f' <span class="required">{word}</span>' if name in required else ""),
            prose(field["description"]),
        )
        for name, field in schema["properties"].items()
    ]
    yield _table(("Field", "Type", "Meaning"), rows)
    for choice in schema.get("allOf", []):
        names = [way["required"][0] for way in choice["oneOf"] if "required" in way]
        words = ", ".join(f"<code>{escape(name)}</code>" for name in names)
        yield f"<p>Of {words} at most one may be set. {inline(choice['description'])}</p>"


def _table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head = "".join(f"<th>{cell}</th>" for cell in heads)
    body = "\n".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>"


def _type(schema: Schema) -> str:
    """Say in words, as HTML, what a value of this schema is."""
    if "$ref" in schema:
        name = _name(schema)
        return _link(f"type-{name}", name)
    if "oneOf" in schema:
        return " or ".join(_type(way) for way in schema["oneOf"])
    if "allOf" in schema:
        return _type(schema["allOf"][0])
    if schema["type"] == "array":
        return f"list of {_type(schema['items'])}"
    return _plain_type(schema)


def _plain_type(schema: Schema) -> str:
    if "contentEncoding" in schema:
        return f"bytes ({escape(schema['contentEncoding'])})"
    if "additionalProperties" in schema:
        return f"object, each value: {_type(schema['additionalProperties'])}"
    limits = f" from {schema['minimum']} to {schema['maximum']}" if "maximum" in schema else ""
    return escape(schema["type"] + limits)


def _own(operation: Schema) -> list[Schema]:
    """Return the schemas of its request and its answer, which are shown with it."""
    parts = [operation["responses"]["200"], operation.get("requestBody")]
    return [_json_schema(part) for part in parts if part]


def _json_schema(part: Schema) -> Schema:
    schema: Schema = part["content"]["application/json"]["schema"]
    return schema


def _resolve(schema: Schema, schemas: Schema) -> Schema:
    found: Schema = schemas[_name(schema)]
    return found


def _name(schema: Schema) -> str:
    return str(schema["$ref"]).rpartition("/")[2]


def _heading(level: int, name: str, html: str) -> str:
    anchor = escape(name)
    return f'<h{level} id="{anchor}"><a href="#{anchor}">{html}</a></h{level}>'


def _link(anchor: str, text: str) -> str:
    return f'<a href="#{escape(anchor)}">{escape(text)}</a>'
