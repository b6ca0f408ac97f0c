"""Two hosts with a Triton each, two with a gateway each, and one with an edge in front of the gateways."""

import asyncio
import contextlib
import os
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import trustme

from envoy import Behind, in_front_of, write
from hosts.network import Host, hosts
from hosts.parts import (
    COMMAND,
    GRPC_PORT,
    HTTP_PORT,
    PLAIN_PORT,
    TLS_PORT,
    Edge,
    Gateway,
    Part,
    Series,
    Triton,
)

CLUSTERS = ("gateway-grpc", "gateway-http")
_WELL_S = 90.0


@dataclass(frozen=True)
class Counted:
    """What the edge, and each gateway, has counted so far."""

    edge: Series
    gateways: list[Series]


@dataclass
class Cluster:
    """The parts, and their files."""

    folder: Path
    tritons: list[Triton]
    gateways: list[Gateway]
    edge: Edge
    ca: trustme.CA
    key: str = ""
    """The API key that callers use now."""

    @property
    def address(self) -> str:
        """The edge's, for gRPC and HTTP without encryption."""
        return f"{self.edge.host.address}:{PLAIN_PORT}"

    @property
    def tls_address(self) -> str:
        return f"{self.edge.host.address}:{TLS_PORT}"

    @property
    def parts(self) -> list[Part]:
        return [self.edge, *self.gateways, *self.tritons]

    async def until_well(self) -> None:
        """Wait until the edge sends calls to all gateways, and these all models' requests to all Tritons.

        Raises TimeoutError.
        """
        await until(self.is_well, _WELL_S)

    async def is_well(self) -> bool:
        if not all([await triton.is_ready() for triton in self.tritons]):
            return False
        counted = await self.counted()
        healthy = [
            counted.edge.get(f'envoy_cluster_membership_healthy{{envoy_cluster_name="{name}"}}')
            for name in CLUSTERS
        ]
        up = [
            seen.get(f'visiongate_triton_up{{server="{triton.address}"}}')
            for seen in counted.gateways
            for triton in self.tritons
        ]
        models = [
            value
            for seen in counted.gateways
            for name, value in seen.items()
            if name.startswith("visiongate_triton_model_ready{")
        ]
        return healthy == [len(self.gateways)] * len(CLUSTERS) and all(up) and all(models)

    async def counted(self) -> Counted:
        return Counted(await self.edge.metrics(), [await gateway.metrics() for gateway in self.gateways])

    # Files

    async def add_key(self, name: str) -> str:
        """Make an API key, by the command, and return it."""
        return next(word for word in (await self._keys("add", name)).split() if word.startswith("vg_"))

    async def remove_key(self, name: str) -> None:
        await self._keys("remove", name)

    async def _keys(self, *words: str) -> str:
        command = [COMMAND, "keys", *words, "--file", str(self.folder / "keys.toml")]
        done = await asyncio.to_thread(subprocess.run, command, check=True, capture_output=True, text=True)
        return done.stdout

    def put_certificate(self) -> None:
        """Give the edge a new certificate, as cert-manager does: files are moved into the folder."""
        issued = self.ca.issue_cert(self.edge.host.address)
        folder = self.folder / "tls"
        for name, data in (
            ("tls.key", issued.private_key_pem.bytes()),
            ("tls.crt", b"".join(pem.bytes() for pem in issued.cert_chain_pems)),
        ):
            new = self.folder / f"{name}.new"
            new.write_bytes(data)
            new.rename(folder / name)

    async def certificate(self) -> str:
        """The certificate that the edge shows to new connections."""
        host, port = self.tls_address.split(":")
        return await asyncio.to_thread(ssl.get_server_certificate, (host, int(port)))


async def until(is_so: Callable[[], Awaitable[object]], timeout_s: float) -> None:
    """Ask again and again. Raises TimeoutError."""
    async with asyncio.timeout(timeout_s):
        while not await is_so():  # noqa: ASYNC110
            await asyncio.sleep(0.1)


@asynccontextmanager
async def cluster(folder: Path) -> AsyncIterator[Cluster]:
    """The hosts, with nothing started yet. At the end every process that was started is stopped.

    folder: what was there before is removed.
    """
    _empty(folder)
    with hosts("triton1", "triton2", "gateway1", "gateway2", "edge") as made:
        made_by_name: dict[str, Host] = {host.port: host for host in made}
        tritons = [Triton(made_by_name[name], folder) for name in ("triton1", "triton2")]
        gateways = [Gateway(made_by_name[name], folder, tritons) for name in ("gateway1", "gateway2")]
        behind = [Behind(gateway.host.address, GRPC_PORT, HTTP_PORT) for gateway in gateways]
        edge = Edge.on(made_by_name["edge"], folder, write(in_front_of(behind), folder))
        whole = Cluster(folder, tritons, gateways, edge, trustme.CA())
        whole.ca.cert_pem.write_to_path(str(folder / "ca.pem"))
        whole.key = await whole.add_key("callers")
        whole.put_certificate()
        try:
            yield whole
        finally:
            started = [part for part in whole.parts if part.process is not None]
            for part in started:
                with contextlib.suppress(OSError, IndexError):
                    part.thaw()
            await asyncio.gather(*(part.stop() for part in started))


def _empty(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "secret").write_bytes(os.urandom(32))
