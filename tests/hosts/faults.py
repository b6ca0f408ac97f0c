"""What befalls hosts and their parts. Each fault is made, held, and mended, while callers call."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from hosts.cluster import Cluster, until
from hosts.network import Host
from hosts.parts import DRAIN_S, Part, ended

HOLD_S = 15.0
"""How long a host is frozen, cut or slow: longer than a call may wait for it."""
MAX_DELAY_S = 8.0
"""Of a call that a frozen or cut host costs time."""
JSON = frozenset({"JSON", "JSON, once"})

Happen = Callable[[Cluster], Awaitable[None]]


@dataclass(frozen=True)
class Fault:
    """No call may fail.

    max_s: what the slowest may take, if it matters. patient: ways whose calls may take longer.
    """

    name: str
    happen: Happen
    max_s: float | None = None
    patient: frozenset[str] = frozenset()


async def nothing(_: Cluster) -> None:
    await asyncio.sleep(12)


async def stop_gateway(cluster: Cluster) -> None:
    await _restart(cluster.gateways[0])


async def kill_gateway(cluster: Cluster) -> None:
    await _kill(cluster.gateways[0])
    cluster.gateways[0].start()


async def kill_triton(cluster: Cluster) -> None:
    # `visiongate triton` starts it anew.
    await _kill(cluster.tritons[0])


async def restart_triton(cluster: Cluster) -> None:
    await _restart(cluster.tritons[1])


def freeze(choose: Callable[[Cluster], Part]) -> Happen:
    async def happen(cluster: Cluster) -> None:
        part = choose(cluster)
        part.freeze()
        await asyncio.sleep(HOLD_S)
        part.thaw()

    return happen


def cut(choose: Callable[[Cluster], Part]) -> Happen:
    return _for_a_while(choose, Host.cut, Host.connect)


def slow(choose: Callable[[Cluster], Part]) -> Happen:
    return _for_a_while(choose, Host.slow, Host.fast)


async def roll_gateways(cluster: Cluster) -> None:
    for gateway in cluster.gateways:
        await _restart(gateway)
        await cluster.until_well()


async def roll_tritons(cluster: Cluster) -> None:
    for triton in cluster.tritons:
        await _restart(triton)
        await cluster.until_well()


async def roll_edge(cluster: Cluster) -> None:
    code = await ended(cluster.edge.replace())
    if code:
        raise RuntimeError(f"the edge that was replaced ended with {code}")


async def renew_certificate(cluster: Cluster) -> None:
    before = await cluster.certificate()
    cluster.put_certificate()

    async def is_new() -> bool:
        return await cluster.certificate() != before

    await until(is_new, 10)
    # Until every caller has connected anew.
    await asyncio.sleep(DRAIN_S + 5)


async def renew_keys(cluster: Cluster) -> None:
    """As README says it: the new key is added, callers take it, the old one is removed."""
    new = await cluster.add_key("callers-2")
    await asyncio.sleep(2)
    cluster.key = new
    # Until every caller has connected anew.
    await asyncio.sleep(DRAIN_S + 5)
    await cluster.remove_key("callers")
    await asyncio.sleep(3)


async def _restart(part: Part) -> None:
    code = await part.stop()
    if code:
        raise RuntimeError(f"{part.host.port} ended with {code} when it was told to stop")
    part.start()


async def _kill(part: Part) -> None:
    part.kill()
    await asyncio.sleep(1)


def _for_a_while(
    choose: Callable[[Cluster], Part], begin: Callable[[Host], None], end: Callable[[Host], None]
) -> Happen:
    async def happen(cluster: Cluster) -> None:
        host = choose(cluster).host
        begin(host)
        await asyncio.sleep(HOLD_S)
        end(host)

    return happen


def _a_gateway(cluster: Cluster) -> Part:
    return cluster.gateways[1]


def _a_triton(cluster: Cluster) -> Part:
    return cluster.tritons[1]


FAULTS = (
    Fault("balance", nothing),
    Fault("stop-gateway", stop_gateway),
    Fault("kill-gateway", kill_gateway),
    Fault("kill-triton", kill_triton),
    Fault("restart-triton", restart_triton),
    # JSON goes to the gateways by HTTP/1.1, which has no pings: such calls wait until it goes on, or dies.
    Fault("freeze-gateway", freeze(_a_gateway), MAX_DELAY_S, JSON),
    Fault("freeze-triton", freeze(_a_triton), MAX_DELAY_S),
    Fault("cut-gateway", cut(_a_gateway), MAX_DELAY_S),
    Fault("cut-triton", cut(_a_triton), MAX_DELAY_S),
    Fault("slow-gateway", slow(_a_gateway)),
    Fault("slow-triton", slow(_a_triton)),
    Fault("roll-gateways", roll_gateways),
    Fault("roll-tritons", roll_tritons),
    Fault("roll-edge", roll_edge),
    Fault("renew-certificate", renew_certificate),
    Fault("renew-keys", renew_keys),
)
