import pytest

from gateway.address import checked_host, split, target
from gateway.settings import Settings
from gateway.settings_sources import SettingsError, load
from visiongate.address import join


@pytest.mark.parametrize(
    ("written", "host"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("0.0.0.0", "0.0.0.0"),
        ("::1", "::1"),
        ("[::1]", "::1"),
        ("::", "::"),
        ("[::]", "::"),
        ("fe80::1%eth0", "fe80::1%eth0"),
        ("localhost", "localhost"),
        ("my_triton.svc.cluster.local.", "my_triton.svc.cluster.local."),
    ],
)
def test_hosts(written: str, host: str) -> None:
    assert checked_host(written) == host
    for name in ("host", "metrics_host"):
        assert getattr(load({name: written}, {}, None).settings, name) == host
    assert split(join(host, 7)) == (host, 7)
    assert split(f"{written}:7") == (host, 7)
    assert target(f"{written}:7") == join(host, 7)


@pytest.mark.parametrize(
    "written",
    ["localhost:80", "http://localhost", "1.2.3", "1.2.3.400", "a b", "[::1", "[localhost]", "-a", "*"],
)
def test_what_is_no_host(written: str) -> None:
    with pytest.raises(SettingsError, match=r"^--host is .*: it must be the name of a host or an IP address"):
        load({"host": written}, {}, None)


@pytest.mark.parametrize(
    "written", ["here", "here:", "here:0", "here:65536", "here:x", ":1", "::1", "fe80::1"]
)
def test_what_is_no_address_of_triton(written: str) -> None:
    for addresses in (written, f"127.0.0.1:8001,{written}"):
        with pytest.raises(SettingsError, match=r"^--triton is .*is not host:port"):
            load({"triton": addresses}, {}, None)


@pytest.mark.parametrize("address", ["dns:///triton:8001", "unix:/run/triton", "ipv4:10.0.0.7:8001"])
def test_grpcs_own_schemes_stay(address: str) -> None:
    assert load({"triton": address}, {}, None).settings.triton == address


def test_both_forms_of_a_host_are_one() -> None:
    with pytest.raises(SettingsError, match="are both 7"):
        load({"host": "[::1]", "metrics_host": "::1", "port": "7", "metrics_port": "7"}, {}, None)
    assert Settings(host="[::]").host == "::"
