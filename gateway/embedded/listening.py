"""Where a tritonserver listens: checked, as its options take it, and asked whether it is ready."""

import http.client
import ipaddress
import json
import socket
from dataclasses import dataclass

from gateway.embedded.error import EmbeddedTritonError
from gateway.ports import check_free
from visiongate.address import join

LOOPBACK = "127.0.0.1"
PORT_OPTIONS = ("--grpc-port", "--http-port", "--metrics-port")

Ports = tuple[int, int, int]
"""Of gRPC, HTTP and metrics."""


@dataclass(frozen=True, slots=True)
class Listening:
    """An IP address and the ports on it."""

    ip: str
    ports: Ports

    @classmethod
    def at(cls, host: str, ports: Ports) -> "Listening":
        """Resolve the host, and replace each port 0 by one that is free now.

        Raises ListenError where nobody can listen, and EmbeddedTritonError where Triton cannot.
        """
        ip = LOOPBACK
        for port, option in zip(ports, PORT_OPTIONS, strict=True):
            ip = check_free(host, port, option)
        if "%" in ip:
            # It would listen on every address.
            raise EmbeddedTritonError(f"{ip}: Triton cannot listen on an IPv6 address with a zone")
        return cls(ip, _filled(ip, ports))

    @property
    def is_loopback(self) -> bool:
        return ipaddress.ip_address(self.ip).is_loopback

    def address(self, index: int) -> str:
        """Return `ip:port` of the port of this index."""
        return join(self.ip, self.ports[index])

    def arguments(self) -> list[str]:
        """Return tritonserver's options. It takes no names of hosts: with one it listens nowhere."""
        grpc_port, http_port, metrics_port = self.ports
        # Of an IPv6 address, gRPC wants brackets, and Triton's HTTP library this prefix.
        is_ipv6 = ":" in self.ip
        http_ip = f"ipv6:{self.ip}" if is_ipv6 else self.ip
        return [
            f"--grpc-address={f'[{self.ip}]' if is_ipv6 else self.ip}",
            f"--grpc-port={grpc_port}",
            f"--http-address={http_ip}",
            f"--http-port={http_port}",
            f"--metrics-address={http_ip}",
            f"--metrics-port={metrics_port}",
        ]

    def is_ready(self, server_id: str) -> bool:
        """Ask whether this server, and not another one on the port, has loaded its models."""
        # A connection to 0.0.0.0 or :: is one to this machine.
        connection = http.client.HTTPConnection(self.ip, self.ports[1], timeout=2)
        try:
            connection.request("GET", "/v2")
            # Another server may have taken the port while this one is still loading its models.
            if json.load(connection.getresponse()).get("name") != server_id:
                return False
            connection.request("GET", "/v2/health/ready")
            return connection.getresponse().status == http.client.OK
        except (OSError, http.client.HTTPException, ValueError, AttributeError):
            return False
        finally:
            connection.close()


def _filled(ip: str, ports: Ports) -> Ports:
    # All are open at a time, so that no two get the same port.
    family = socket.AF_INET6 if ":" in ip else socket.AF_INET
    sockets = [socket.create_server((ip, 0), family=family) for _ in ports]
    free_ports = [opened.getsockname()[1] for opened in sockets]
    for opened in sockets:
        opened.close()
    grpc_port, http_port, metrics_port = (
        port or free_port for port, free_port in zip(ports, free_ports, strict=True)
    )
    return grpc_port, http_port, metrics_port
