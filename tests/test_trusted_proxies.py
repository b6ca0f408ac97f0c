"""Where a call comes from, as far as proxies are believed."""

import pytest

from gateway.settings import Settings
from gateway.trusted_proxies import TrustedProxies

EDGE, BALANCER, CALLER = "10.0.0.7", "192.0.2.1", "198.51.100.9"


@pytest.mark.parametrize(
    ("address", "forwarded_for", "caller"),
    [
        (EDGE, CALLER, CALLER),
        ("::ffff:10.0.0.7", CALLER, CALLER),
        (EDGE, "", EDGE),
        (EDGE, f"203.0.113.5, {CALLER}", CALLER),  # the first is what the caller itself has written
        (EDGE, f"{CALLER}, {BALANCER}", CALLER),
        (EDGE, f"{CALLER},{BALANCER},10.1.2.3", CALLER),
        (EDGE, BALANCER, BALANCER),
        (EDGE, f"unknown, {BALANCER}", BALANCER),
        (EDGE, "2001:db8::1", "2001:db8::1"),
        (CALLER, "203.0.113.5", CALLER),
        ("unix", CALLER, "unix"),
    ],
)
def test_the_last_that_is_no_trusted_proxy_is_the_caller(
    address: str, forwarded_for: str, caller: str
) -> None:
    proxies = TrustedProxies(["10.0.0.0/8", BALANCER])
    assert proxies.caller(address, {"x-forwarded-for": forwarded_for}) == caller


def test_by_default_nobody_is_believed() -> None:
    proxies = TrustedProxies(Settings().trusted_proxies)
    assert proxies.caller("127.0.0.1", {"x-forwarded-for": CALLER}) == "127.0.0.1"


@pytest.mark.parametrize("network", ["10.0.0.0/33", "10.0.0.1/8", "edge.example.com", ""])
def test_settings_are_networks(network: str) -> None:
    with pytest.raises(ValueError, match="is no IP address and no network"):
        Settings(trusted_proxies=(network,))
