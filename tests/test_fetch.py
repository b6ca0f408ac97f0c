import ipaddress
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest
import trustme

from gateway import fetch
from gateway.allowed_hosts import AllowedHosts
from gateway.fetch import Address, Fetcher, FetchError, UriError, is_public
from https_site import (
    PRIVATE,
    PUBLIC,
    SILENCE,
    HttpsSite,
    file_answer,
    https_site,
    redirect_answer,
    status_answer,
    trusting,
)

LIMIT = 1000
NAME = "images.example"
FILE = b"the file"
Fetch = Callable[..., Fetcher]


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
async def site(authority: trustme.CA) -> AsyncIterator[HttpsSite]:
    """The server that may be fetched from."""
    answers = {"/file": file_answer(FILE)}
    async with https_site(authority, PUBLIC, NAME, "other.example", answers=answers) as running:
        yield running


@pytest.fixture
async def inner(authority: trustme.CA) -> AsyncIterator[HttpsSite]:
    """A server of the private network, whose certificate and host name are all right."""
    names = (NAME, "inner.example", "127.0.0.1", "localhost", "::1")
    async with https_site(authority, PRIVATE, *names, answers={"/file": file_answer(FILE)}) as running:
        yield running


class Names:
    """A resolver that knows these names."""

    def __init__(self, known: dict[str, list[str]]) -> None:
        self.known = known
        self.asked: list[str] = []

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        self.asked.append(host)
        if host not in self.known:
            raise OSError("name or service not known")
        return self.known[host]


@pytest.fixture
def names() -> Names:
    return Names({NAME: [PUBLIC], "inner.example": [PRIVATE], "other.example": [PUBLIC]})


@pytest.fixture
def fetcher(authority: trustme.CA, names: Names, site: HttpsSite) -> Fetch:
    """Makes a Fetcher that may fetch from `site`, for which there are three names."""

    def make(*hosts: str, **changes: Any) -> Fetcher:
        allowed = hosts or (f"{NAME}:{site.port}", f"other.example:{site.port}")
        options: dict[str, Any] = {
            "max_bytes": LIMIT,
            "timeout_s": 20,
            "max_redirects": 3,
            "resolve": names,
            "is_allowed": as_if_public,
            "ssl_context": trusting(authority),
        }
        return Fetcher(AllowedHosts(allowed), **(options | changes))

    return make


def as_if_public(address: Address) -> bool:
    return str(address) == PUBLIC or is_public(address)


async def refusal(fetcher: Fetcher, uri: str, kind: type[Exception] = UriError) -> str:
    """What the caller is told, which is nothing of the server's network."""
    with pytest.raises(kind) as caught:
        await fetcher.fetch(uri)
    said = str(caught.value)
    assert not any(secret in said for secret in ("127.0.0", "example", "Errno", "resolve"))
    return said


async def test_a_file_is_fetched_by_name(site: HttpsSite, names: Names, fetcher: Fetch) -> None:
    path = "/signed%2Fpath?X-Signature=a%2Bb&empty="
    site.answers[path] = file_answer(FILE)
    assert await fetcher().fetch(f"https://{NAME}:{site.port}{path}#fragment") == FILE
    assert names.asked == [NAME]
    (request,) = site.requests
    assert request.startswith(f"GET {path} HTTP/1.1\r\n")
    headers = dict(line.lower().split(": ", 1) for line in request.splitlines()[1:] if line)
    assert headers["host"] == f"{NAME}:{site.port}"
    assert headers["accept-encoding"] == "identity"
    assert "cookie" not in headers


async def test_nothing_is_fetched_unless_hosts_are_allowed(names: Names) -> None:
    closed = Fetcher(AllowedHosts(()), max_bytes=1, timeout_s=1, max_redirects=0, resolve=names)
    assert "not taken by this server" in await refusal(closed, f"https://{NAME}/file")
    assert names.asked == []


async def test_proxies_of_the_environment_are_not_asked(
    site: HttpsSite, fetcher: Fetch, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert await fetcher().fetch(f"https://{NAME}:{site.port}/file") == FILE


@pytest.mark.parametrize(
    ("entries", "uri", "allowed"),
    [
        (["a.example"], "https://a.example/x", True),
        (["a.example"], "https://A.EXAMPLE./x", True),
        (["A.Example."], "https://a.example/x", True),
        (["a.example"], "https://a.example:443/x", True),
        (["a.example"], "https://a.example:8443/x", False),
        (["a.example:8443"], "https://a.example:8443/x", True),
        (["a.example:8443"], "https://a.example/x", False),
        (["a.example"], "https://b.a.example/x", False),
        (["a.example"], "https://aa.example/x", False),
        (["a.example"], "https://a.example.evil/x", False),
        (["a.example"], "https://a.example../x", False),
        (["a.example"], "https://%61.example/x", False),
        (["a.example"], "https://a.example\\@evil.example/x", False),
        (["a.example"], "https://evil.example/https://a.example/", False),
        (["a.example"], "https://evil.example#@a.example/", False),
        ([".a.example"], "https://b.a.example/x", True),
        ([".a.example"], "https://c.b.a.example/x", True),
        ([".a.example"], "https://a.example/x", False),
        ([".a.example"], "https://evila.example/x", False),
        (["bücher.example"], "https://xn--bcher-kva.example/x", True),
        (["xn--bcher-kva.example"], "https://BÜCHER.example/x", True),
        (["a.example"], "https://a。example/x", True),
        (["8.8.8.8"], "https://8.8.8.8/x", True),
        (["[2001:4860:4860::8888]"], "https://[2001:4860:4860::8888]/x", True),
    ],
)
async def test_only_allowed_hosts_are_asked(
    names: Names, entries: list[str], uri: str, allowed: bool
) -> None:
    fetcher = Fetcher(AllowedHosts(entries), max_bytes=1, timeout_s=20, max_redirects=0, resolve=names)
    # No name here has an address: those allowed get as far as that.
    with pytest.raises(FetchError if allowed else UriError):
        await fetcher.fetch(uri)
    assert bool(names.asked) is allowed


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "images.example/file",
        "http://images.example/file",
        "ftp://images.example/file",
        "file:///etc/passwd",
        "data:image/png;base64,AAAA",
        "https:///file",
        "https://user:password@images.example/file",
        "https://user@images.example/file",
        "https://images.example:0/file",
        "https://images.example:99999/file",
        "https://images.example\r\nHost: inner.example/file",
        "https://[::1/file",
        pytest.param("https://images.example/" + "x" * 70_000, id="very long"),
        # Other ways to write 127.0.0.1, of which getaddrinfo knows some.
        "https://127.0.0.1/",
        "https://2130706433/",
        "https://0x7f000001/",
        "https://017700000001/",
        "https://0177.0.0.1/",
        "https://127.1/",
        "https://１２７.0.0.1/",
        "https://[::1]/",
        "https://[::ffff:127.0.0.1]/",
        "https://localhost/",
    ],
)
async def test_other_uris_are_refused_before_anything_is_asked(names: Names, uri: str) -> None:
    fetcher = Fetcher(
        AllowedHosts([NAME]), max_bytes=1, timeout_s=20, max_redirects=0, resolve=names, is_allowed=is_public
    )
    await refusal(fetcher, uri)
    assert names.asked == []


@pytest.mark.parametrize("host", ["localhost", "2130706433", "0x7f000001", "017700000001", "127.1", "[::1]"])
async def test_a_private_host_is_refused_even_where_allowed(inner: HttpsSite, host: str) -> None:
    # By the true resolver, which reads numbers of any kind.
    fetcher = Fetcher(AllowedHosts([f"{host}:{inner.port}"]), max_bytes=LIMIT, timeout_s=20, max_redirects=0)
    said = await refusal(fetcher, f"https://{host}:{inner.port}/file", FetchError)
    assert "no public address" in said
    assert inner.requests == []


@pytest.mark.parametrize(
    "answers",
    [
        ["127.0.0.1"],
        [PUBLIC, "127.0.0.1"],
        ["127.0.0.1", PUBLIC],
        ["10.0.0.1"],
        ["169.254.169.254"],
        ["100.64.0.1"],
        ["0.0.0.0"],
        ["224.0.0.1"],
        ["::1"],
        ["::"],
        ["::ffff:127.0.0.1"],
        ["::127.0.0.1"],
        ["64:ff9b::7f00:1"],
        ["64:ff9b:1::7f00:1"],
        ["2002:7f00:1::"],
        ["2001:0:7f00:1::"],
        ["fc00::1"],
        ["fe80::1%1"],
        ["ff0e::1"],
        [],
    ],
)
async def test_names_of_private_addresses_are_refused(
    site: HttpsSite,
    inner: HttpsSite,
    names: Names,
    fetcher: Fetch,
    answers: list[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    names.known[NAME] = answers
    for port in (site.port, inner.port):
        with caplog.at_level(logging.WARNING, fetch.__name__):
            said = await refusal(fetcher(f"{NAME}:{port}"), f"https://{NAME}:{port}/file", FetchError)
        # A name that does not exist reads the same.
        assert said == await refusal(fetcher(f"x.{NAME}"), f"https://x.{NAME}/file", FetchError)
    assert site.requests == inner.requests == []
    assert bool(answers) is ("not public" in caplog.text)


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("8.8.8.8", True),
        ("2001:4860:4860::8888", True),
        ("::ffff:8.8.8.8", True),
        ("64:ff9b::8.8.8.8", True),
        ("192.168.0.1", False),
        ("255.255.255.255", False),
        ("2002:808:808::", False),
    ],
)
def test_public_addresses(address: str, public: bool) -> None:
    assert is_public(ipaddress.ip_address(address)) is public


async def test_the_address_that_was_checked_is_the_one_that_is_asked(
    site: HttpsSite, names: Names, fetcher: Fetch
) -> None:
    class Rebinding(Names):
        async def __call__(self, host: str, port: int) -> Sequence[str]:
            found = await super().__call__(host, port)
            self.known[NAME] = [PRIVATE]
            return found

    rebinding = Rebinding({NAME: [PUBLIC]})
    assert await fetcher(resolve=rebinding).fetch(f"https://{NAME}:{site.port}/file") == FILE
    assert rebinding.asked == [NAME]


async def test_the_next_address_is_asked_where_one_does_not_connect(
    site: HttpsSite, names: Names, fetcher: Fetch
) -> None:
    names.known[NAME] = ["127.0.0.3", PUBLIC]
    patient = fetcher(is_allowed=lambda address: address.is_loopback)
    assert await patient.fetch(f"https://{NAME}:{site.port}/file") == FILE


@pytest.mark.parametrize("certified", ["wrong.example", PUBLIC, f"*.{NAME}"])
async def test_a_certificate_for_another_name_is_refused(
    authority: trustme.CA, fetcher: Fetch, certified: str
) -> None:
    async with https_site(authority, PUBLIC, certified, answers={"/file": file_answer(FILE)}) as wrong:
        said = await refusal(fetcher(f"{NAME}:{wrong.port}"), f"https://{NAME}:{wrong.port}/file", FetchError)
    assert "does not connect securely" in said
    assert wrong.requests == []


async def test_a_certificate_of_an_unknown_authority_is_refused(site: HttpsSite, fetcher: Fetch) -> None:
    await refusal(fetcher(ssl_context=trusting(trustme.CA())), f"https://{NAME}:{site.port}/file", FetchError)
    assert site.requests == []


async def test_a_certificate_is_checked_for_each_name_of_an_address(
    authority: trustme.CA, fetcher: Fetch
) -> None:
    # A connection that is kept for its address would let the second through.
    async with https_site(authority, PUBLIC, NAME, answers={"/file": file_answer(FILE)}) as site:
        site.stays = True
        both = fetcher(f"{NAME}:{site.port}", f"other.example:{site.port}")
        assert await both.fetch(f"https://{NAME}:{site.port}/file") == FILE
        await refusal(both, f"https://other.example:{site.port}/file", FetchError)
    assert site.paths == ["/file"]


@pytest.mark.parametrize(
    "status", ["301 Moved", "302 Found", "303 See Other", "307 Temporary", "308 Permanent"]
)
async def test_redirects_are_followed(site: HttpsSite, fetcher: Fetch, status: str) -> None:
    site.answers["/here"] = redirect_answer("there?now", status)
    site.answers["/there?now"] = redirect_answer(f"https://other.example:{site.port}/file", status)
    assert await fetcher().fetch(f"https://{NAME}:{site.port}/here") == FILE
    assert site.paths == ["/here", "/there?now", "/file"]
    assert "cookie" not in site.requests[-1].lower()


@pytest.mark.parametrize(
    ("location", "says"),
    [
        ("http://images.example/file", "does not start with https"),
        ("file:///etc/passwd", "does not start with https"),
        ("//user:password@images.example:{site}/file", "password"),
        ("https://127.0.0.1:{inner}/file", "does not allow"),
        ("//localhost:{inner}/file", "does not allow"),
        ("https://inner.example:{inner}/file", "does not allow"),
        ("https://[::ffff:7f00:1]:{inner}/file", "does not allow"),
        ("https://images.example:1/file", "does not allow"),
    ],
)
async def test_redirects_are_checked_like_the_uri(
    site: HttpsSite, inner: HttpsSite, fetcher: Fetch, location: str, says: str
) -> None:
    site.answers["/"] = redirect_answer(location.format(site=site.port, inner=inner.port))
    said = await refusal(fetcher(), f"https://{NAME}:{site.port}/")
    assert said.startswith("redirects to a URI that ")
    assert says in said
    assert (site.paths, inner.requests) == (["/"], [])


async def test_a_redirect_to_a_name_of_a_private_address_is_refused(
    site: HttpsSite, inner: HttpsSite, fetcher: Fetch
) -> None:
    site.answers["/"] = redirect_answer(f"https://inner.example:{inner.port}/file")
    both = fetcher(f"{NAME}:{site.port}", f"inner.example:{inner.port}")
    await refusal(both, f"https://{NAME}:{site.port}/", FetchError)
    assert inner.requests == []


async def test_redirects_end(site: HttpsSite, fetcher: Fetch) -> None:
    site.answers["/"] = redirect_answer("/")
    said = await refusal(fetcher(), f"https://{NAME}:{site.port}/", FetchError)
    assert "more than 3 times" in said
    assert site.paths == ["/"] * 4


@pytest.mark.parametrize("location", ["https://[::1", "https://a\u00ad.example/", "https://x:y/"])
async def test_a_redirect_to_nowhere(site: HttpsSite, fetcher: Fetch, location: str) -> None:
    site.answers["/"] = redirect_answer(location)
    await refusal(fetcher(), f"https://{NAME}:{site.port}/", FetchError)


ENDLESS = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + 20 * (b"64\r\n" + bytes(100) + b"\r\n")


@pytest.mark.parametrize(
    ("answer", "kind", "says"),
    [
        (file_answer(bytes(LIMIT + 1)), UriError, f"{LIMIT + 1} bytes; the limit is {LIMIT}"),
        (file_answer(b"", Content_Length="9" * 18) + SILENCE, UriError, f"limit is {LIMIT}"),
        (ENDLESS + SILENCE, UriError, f"limit of {LIMIT}"),
        (b"HTTP/1.0 200 OK\r\n\r\n" + bytes(LIMIT + 1) + SILENCE, UriError, f"limit of {LIMIT}"),
        (file_answer(FILE, Content_Encoding="gzip"), FetchError, "compressed"),
        (file_answer(FILE, Content_Encoding="identity, br"), FetchError, "compressed"),
        (file_answer(FILE, Content_Length="9"), FetchError, "broke off"),
        (file_answer(FILE, Content_Length="-1"), FetchError, "broke off"),
        (file_answer(FILE, Content_Length="9" * 5000), FetchError, "broke off"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", FetchError, "broke off"),
        (b"HTTP/1.1 200 OK\r\nX: " + bytes(200_000), FetchError, "broke off"),
        (b"", FetchError, "broke off"),
        (status_answer("404 Not Found"), FetchError, "status 404"),
        (status_answer("206 Partial Content"), FetchError, "status 206"),
        (status_answer("302 Without Location"), FetchError, "status 302"),
        (status_answer("500 Oh"), FetchError, "status 500"),
    ],
    ids=lambda value: str(value[:40]) if isinstance(value, bytes) else None,
)
async def test_answers_that_are_refused(
    site: HttpsSite, fetcher: Fetch, answer: bytes, kind: type[Exception], says: str
) -> None:
    site.answers["/"] = answer
    assert says in await refusal(fetcher(), f"https://{NAME}:{site.port}/", kind)


async def test_a_file_may_be_as_large_as_the_limit(site: HttpsSite, fetcher: Fetch) -> None:
    site.answers["/"] = file_answer(bytes(LIMIT), Content_Encoding="Identity")
    site.answers["/chunked"] = ENDLESS[: -10 * 106] + b"0\r\n\r\n"
    for path in ("/", "/chunked"):
        assert await fetcher().fetch(f"https://{NAME}:{site.port}{path}") == bytes(LIMIT)


@pytest.mark.parametrize("spoken", [b"", b"HTTP/1.1 200 OK\r\n", file_answer(b"some", Content_Length="99")])
async def test_a_slow_host_is_not_waited_for(site: HttpsSite, fetcher: Fetch, spoken: bytes) -> None:
    site.answers["/"] = spoken + SILENCE
    said = await refusal(fetcher(timeout_s=0.3), f"https://{NAME}:{site.port}/", FetchError)
    assert said == "took longer than 0.3 seconds to fetch"
