"""The page says what the document says, and is safe to show."""

import asyncio
import base64
import hashlib
import json
import re
import shlex
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.http.docs import CONTENT_SECURITY_POLICY, page
from gateway.http.openapi import document
from gateway.http.openapi_examples import picture_png
from gateway.services.registry import SERVICES

OPENAPI = document(service.file for service in SERVICES)
URL = "http://127.0.0.1:8080"
PAGE = page(OPENAPI, URL + "/")


class Reader(HTMLParser):
    """Collects the elements with their attributes, and the text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def text(self) -> str:
        return "".join(self.texts)


READ = Reader(PAGE)
OPERATIONS = [(path, operation) for path, item in OPENAPI["paths"].items() for operation in item.values()]


def test_every_element_is_closed() -> None:
    assert READ.open == []


@pytest.mark.parametrize(
    ("path", "operation"), OPERATIONS, ids=lambda part: part if isinstance(part, str) else ""
)
def test_every_operation_is_named_and_told(path: str, operation: dict[str, Any]) -> None:
    assert f" {path}" in READ.text
    for paragraph in operation["description"].split("\n\n"):
        assert paragraph.replace("`", "") in READ.text


def test_every_field_and_value_is_named() -> None:
    for schema in OPENAPI["components"]["schemas"].values():
        for name in [*schema.get("properties", {}), *schema.get("enum", [])]:
            assert f"<code>{name}</code>" in PAGE


def test_links_lead_to_headings() -> None:
    anchors = [attributes["id"] for _, attributes in READ.elements if "id" in attributes]
    links = {attributes["href"] for tag, attributes in READ.elements if tag == "a"}
    assert len(anchors) == len(set(anchors))
    assert links - {f"#{anchor}" for anchor in anchors} == {"openapi.json"}
    assert {f"#{operation['operationId']}" for _, operation in OPERATIONS} <= links


def test_errors_have_their_statuses() -> None:
    rows = re.findall(r"<tr><td>(\d+)</td>", PAGE)
    assert {int(row) for row in rows} >= {400, 401, 404, 413, 415, 429, 500, 501, 503, 504}


@pytest.mark.parametrize(
    ("path", "operation"), OPERATIONS, ids=lambda part: part if isinstance(part, str) else ""
)
def test_commands_can_be_pasted(path: str, operation: dict[str, Any]) -> None:
    commands = [shlex.split(text) for text in READ.texts if text.startswith("curl ")]
    commands = [command for command in commands if command[1] == URL + path]
    if "requestBody" not in operation:
        assert commands == [["curl", URL + path]]
        return
    form, as_json = commands
    content = operation["requestBody"]["content"]
    assert as_json[2:5] == ["-H", "content-type: application/json", "-d"]
    assert json.loads(as_json[5]) == content["application/json"]["example"]
    assert set(form[2::2]) == {"-F"}
    names = {part.partition("=")[0] for part in form[3::2]}
    assert names == set(content["multipart/form-data"]["example"])


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
async def test_commands_of_the_served_page_work(demo_http: httpx.AsyncClient, tmp_path: Path) -> None:
    """As they are on the page, given a photo.png: with the demo models they find what the picture has."""
    served = await demo_http.get("/docs")
    assert served.headers["content-security-policy"] == CONTENT_SECURITY_POLICY
    assert served.headers["content-type"] == "text/html; charset=utf-8"
    (tmp_path / "photo.png").write_bytes(picture_png())
    commands = [text for text in Reader(served.text).texts if text.startswith("curl http")]
    assert len(commands) == 2 * len(OPERATIONS) - 1
    answers = [await run(command, tmp_path) for command in commands]
    found = [answer["detections"] for answer in answers if "detections" in answer]
    assert [{each["phrase"] for each in detections} for detections in found] == [
        {"red circle", "blue square"}
    ] * 2


async def run(command: str, folder: Path) -> dict[str, Any]:
    process = await asyncio.create_subprocess_shell(
        f"{command} --silent --show-error --fail-with-body --noproxy '*'",
        cwd=folder,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, (command, output)
    answer: dict[str, Any] = json.loads(output)
    return answer


async def test_the_document_is_served(demo_http: httpx.AsyncClient) -> None:
    served = await demo_http.get("/openapi.json")
    assert served.headers["content-type"] == "application/json"
    assert served.json() == OPENAPI
    assert "x-request-id" in served.headers


def test_it_needs_no_more_than_its_policy_allows() -> None:
    kinds = {tag for tag, _ in READ.elements}
    assert kinds.isdisjoint({"script", "link", "img", "iframe", "form", "object", "base"})
    attributes = {name for _, found in READ.elements for name in found}
    assert attributes <= {"id", "href", "class", "charset", "name", "content", "lang", "aria-label"}
    [style] = re.findall(r"<style>(.*?)</style>", PAGE, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = dict(part.strip().split(" ", 1) for part in CONTENT_SECURITY_POLICY.split(";"))
    assert policy["default-src"] == "'none'"
    assert policy["style-src"] == f"'sha256-{digest}'"
    assert not re.search(r"url\(|@import", style)


def test_everything_is_escaped() -> None:
    """Whatever the document says and however the server is called, the page has only its own elements."""
    evil = "'\"><script onload=a>&"

    def poison(part: Any, key: str = "") -> Any:
        if isinstance(part, dict):
            free = key in ("properties", "paths", "schemas")
            return {(name + evil if free else name): poison(inner, name) for name, inner in part.items()}
        if isinstance(part, list):
            return [poison(item, key) for item in part]
        is_free = isinstance(part, str) and key != "type" and "/responses/" not in part
        return part + evil if is_free else part

    poisoned = poison(OPENAPI)
    read = Reader(page(poisoned, URL + evil))
    assert {tag for tag, _ in read.elements} == {tag for tag, _ in READ.elements}
    assert {name for _, found in read.elements for name in found} == {
        name for _, found in READ.elements for name in found
    }
    assert read.text.count("<script onload=a>&") > len(OPERATIONS)
