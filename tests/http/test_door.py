"""Who may ask over HTTP."""

import pytest
from starlette.datastructures import Headers

from gateway.http.door import Door
from gateway.http.statuses import HttpError


def check(door: Door, host: str | None, origin: str | None = None) -> None:
    pairs = [("host", host), ("origin", origin)]
    door.check(Headers(raw=[(n.encode(), v.encode()) for n, v in pairs if v is not None]))


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "localhost:8080",
        "LOCALHOST",
        "app.localhost:1",
        "127.0.0.1:8080",
        "[::1]:8080",
        "10.1.2.3",
        "gateway",
    ],
)
def test_names_that_nobody_can_own(host: str) -> None:
    check(Door([], []), host)


@pytest.mark.parametrize(
    "host",
    [
        "evil.com",
        "evil.com:8080",
        "localhost.evil.com",
        "127.0.0.1.evil.com",
        "",
        None,
        "a@evil.com",
        "[::1",
        "evil.com.",
        "1.2.3.4@evil.com",
        "a b",
        "a\xff",
    ],
)
def test_other_names_are_refused(host: str | None) -> None:
    with pytest.raises(HttpError, match=r"^host: ") as refused:
        check(Door(["vision.example.com", ".cluster.local"], []), host)
    assert refused.value.http_status == 403


@pytest.mark.parametrize(
    "host", ["vision.example.com", "Vision.Example.com:443", "vision.example.com.", "a.b.cluster.local"]
)
def test_names_that_the_settings_list(host: str) -> None:
    check(Door(["vision.example.com", ".cluster.local"], []), host)


def test_any_name() -> None:
    check(Door(["*"], []), "evil.com")


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("localhost:8080", "http://localhost:8080"),
        ("10.0.0.1", "http://10.0.0.1"),
        ("10.0.0.1", "https://10.0.0.1"),  # a proxy has taken off TLS
        ("10.0.0.1:443", "https://10.0.0.1"),
        ("[::1]:8080", "http://[::1]:8080"),
    ],
)
def test_pages_of_this_server(host: str, origin: str) -> None:
    check(Door([], []), host, origin)


@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.com",
        "https://localhost:8080.evil.com",
        "http://localhost:8081",
        "http://localhost",
        "null",
        "",
        "file://",
        "chrome-extension://localhost:8080",
        "http://localhost:99999",
        "http://[::1",
    ],
)
def test_other_pages_are_refused(origin: str) -> None:
    with pytest.raises(HttpError, match=r"^origin: "):
        check(Door([], ["https://app.example.com"]), "localhost:8080", origin)


def test_pages_that_the_settings_list() -> None:
    door = Door([], ["https://app.example.com/"])
    check(door, "localhost:8080", "https://app.example.com")
    with pytest.raises(HttpError):
        check(door, "localhost:8080", "http://app.example.com")
    check(Door([], ["*"]), "localhost:8080", "null")


def test_two_hosts_are_none() -> None:
    with pytest.raises(HttpError):
        Door([], []).check(Headers(raw=[(b"host", b"localhost"), (b"host", b"localhost")]))
