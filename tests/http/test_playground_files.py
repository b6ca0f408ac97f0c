"""The playground's files: what they are served as, and that they need nothing else."""

import re
from collections.abc import Iterator

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from gateway.http.playground_files import FOLDER, playground_routes

FILES = sorted(path.relative_to(FOLDER).as_posix() for path in FOLDER.rglob("*") if path.is_file())


@pytest.fixture
def site() -> Iterator[TestClient]:
    with TestClient(Starlette(routes=playground_routes())) as client:
        yield client


def test_the_page_is_at_the_root_and_names_only_files_that_are_there(site: TestClient) -> None:
    page = site.get("/")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    named = set(re.findall(r'(?:href|src)="(playground/[^"]+)"', page.text))
    assert {"playground/main.js", "playground/style.css"} <= named
    assert {site.get(f"/{name}").status_code for name in named} == {200}


@pytest.mark.parametrize("name", FILES)
def test_each_file_is_served_as_what_it_is(site: TestClient, name: str) -> None:
    kinds = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
    answer = site.get(f"/playground/{name}")
    assert answer.content == (FOLDER / name).read_bytes()
    kind = kinds.get(name.rpartition(".")[2], "image/jpeg")
    assert answer.headers["content-type"].partition(";")[0] == kind
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "default-src 'none'" in answer.headers["content-security-policy"]


def test_a_file_that_has_not_changed_is_not_sent_again(site: TestClient) -> None:
    first = site.get("/")
    again = site.get("/", headers={"if-none-match": f'"another", {first.headers["etag"]}'})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == first.headers["etag"]
    assert site.get("/", headers={"if-none-match": '"another"'}).content == first.content
    assert site.get("/playground/main.js").headers["etag"] != first.headers["etag"]


@pytest.mark.parametrize("name", [name for name in FILES if not name.endswith(".jpg")])
def test_nothing_comes_from_other_hosts(name: str) -> None:
    text = (FOLDER / name).read_text()
    addresses = set(re.findall(r"https?://[\w.]+", text))
    # The name of SVG's elements, and what the camera's sentence says.
    assert addresses <= {"http://www.w3.org", "http://127.0.0.1", "http://localhost"}


def test_only_files_of_the_page_are_served(site: TestClient) -> None:
    for path in ("/playground", "/playground/", "/playground/../app.py", "/playground/%2e%2e/app.py"):
        assert site.get(path).status_code == 404
    assert site.post("/").status_code == 405
