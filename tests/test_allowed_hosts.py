import httpx
import pytest

from gateway.allowed_hosts import HTTPS_PORT, AllowedHosts


@pytest.mark.parametrize(
    ("entry", "host", "port"),
    [
        ("a.example", "a.example", HTTPS_PORT),
        ("A.Example.", "a.example", HTTPS_PORT),
        ("a.example:8443", "a.example", 8443),
        ("bücher.example", "xn--bcher-kva.example", HTTPS_PORT),
        ("BÜCHER.example", "xn--bcher-kva.example", HTTPS_PORT),
        ("a。example", "a.example", HTTPS_PORT),
        ("my_host-1", "my_host-1", HTTPS_PORT),
        ("8.8.8.8:1", "8.8.8.8", 1),
        ("[2001:4860::8888]", "2001:4860::8888", HTTPS_PORT),
        ("[2001:4860::8888]:65535", "2001:4860::8888", 65535),
        # Other ways to write 127.0.0.1: their addresses are looked at later.
        ("2130706433", "2130706433", HTTPS_PORT),
        ("0x7f000001", "0x7f000001", HTTPS_PORT),
        ("127.1", "127.1", HTTPS_PORT),
    ],
)
def test_a_host_is_allowed_on_its_port_alone(entry: str, host: str, port: int) -> None:
    hosts = AllowedHosts([entry])
    assert hosts.allow(host, port)
    assert not hosts.allow(host, port - 1)
    assert not hosts.allow(f"b.{host}", port)
    assert not hosts.allow(f"b{host}", port)
    # A URI's host is read by httpx, and must come out the same.
    url = httpx.URL(f"https://{entry}")
    assert (url.raw_host.decode().removesuffix("."), url.port or HTTPS_PORT) == (host, port)


def test_a_domain_allows_all_below_it() -> None:
    hosts = AllowedHosts([".a.example", ".bücher.example:8443"])
    assert hosts.allow("b.a.example", HTTPS_PORT)
    assert hosts.allow("c.b.a.example", HTTPS_PORT)
    assert hosts.allow("a.xn--bcher-kva.example", 8443)
    assert not hosts.allow("a.example", HTTPS_PORT)
    assert not hosts.allow("evila.example", HTTPS_PORT)


def test_no_entries_allow_nothing() -> None:
    assert not AllowedHosts([])
    assert not AllowedHosts([]).allow("a.example", HTTPS_PORT)


@pytest.mark.parametrize(
    "entry",
    [
        "",
        ".",
        "..a.example",
        "*",
        "*.example.com",
        "https://a.example",
        "a.example/x",
        "a.example?x",
        "a.example#x",
        "a b",
        "a.example\n",
        "u@a.example",
        "a\\b",
        "a%62",
        "1.2.3.400",
        "[::1",
        "::1",
        "[a.example]",
        "a.example:0",
        "a.example:65536",
        "a.example:x",
        "a\u00ad.example",
    ],
)
def test_what_is_no_host_is_named(entry: str) -> None:
    with pytest.raises(ValueError, match="is not a host") as caught:
        AllowedHosts(["good.example", entry])
    assert str(caught.value).startswith(repr(entry))
