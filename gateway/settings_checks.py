"""What settings may be, beyond their types: hosts, addresses, origins, ports."""

import re
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Self

from pydantic import BaseModel, field_validator, model_validator

from gateway import address
from gateway.allowed_hosts import AllowedHosts
from gateway.trusted_proxies import TrustedProxies


class Checks(BaseModel):
    """The checks of `Settings`, which has the fields. The text of a ValueError is for the operator."""

    if TYPE_CHECKING:  # otherwise they would come first among the settings
        host: str
        port: int
        http_host: str
        http_port: int | None
        metrics_host: str
        metrics_port: int | None

    @field_validator("uri_hosts", check_fields=False)
    @classmethod
    def _are_hosts(cls, hosts: tuple[str, ...]) -> tuple[str, ...]:
        AllowedHosts(hosts)
        return hosts

    @field_validator("trusted_proxies", check_fields=False)
    @classmethod
    def _are_networks(cls, networks: tuple[str, ...]) -> tuple[str, ...]:
        TrustedProxies(networks)
        return networks

    @field_validator("http_hosts", check_fields=False)
    @classmethod
    def _are_names(cls, hosts: tuple[str, ...]) -> tuple[str, ...]:
        for host in hosts:
            if not re.fullmatch(r"\*|\.?[A-Za-z0-9_-][A-Za-z0-9_.-]*", host):
                raise ValueError(f"{host!r} is not a name (vision.example.com), a domain (.example.com) or *")
        return hosts

    @field_validator("http_origins", check_fields=False)
    @classmethod
    def _are_origins(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        for origin in origins:
            if not re.fullmatch(r"\*|[A-Za-z][A-Za-z0-9+.-]*://[^/\s]+/?", origin):
                raise ValueError(f"{origin!r} is not an origin (https://app.example.com) or *")
        return origins

    @field_validator("repository", check_fields=False)
    @classmethod
    def _is_absolute(cls, path: Path) -> Path:
        return path.absolute()

    @field_validator("host", "http_host", "metrics_host", check_fields=False)
    @classmethod
    def _is_host(cls, host: str) -> str:
        return address.checked_host(host)

    @field_validator("triton", check_fields=False)
    @classmethod
    def _are_addresses(cls, addresses: str) -> str:
        return ",".join(address.target(part.strip()) for part in addresses.split(","))

    @field_validator("otlp_endpoint", check_fields=False)
    @classmethod
    def _has_scheme(cls, endpoint: str | None) -> str | None:
        # OpenTelemetry takes an address without a scheme for TLS, and keeps trying.
        if endpoint is not None and not endpoint.startswith(("http://", "https://")):
            raise ValueError("it must start with http:// (without TLS) or https://")
        return endpoint

    @model_validator(mode="after")
    def _check_ports(self) -> Self:
        ports = {
            "port": (self.host, self.port),
            "http_port": (self.http_host, self.http_port),
            "metrics_port": (self.metrics_host, self.metrics_port),
        }
        for (one, own), (other, its) in combinations(ports.items(), 2):
            if own[1] and own == its:
                raise ValueError(f"{one} and {other} are both {own[1]}: each needs one of its own")
        return self
