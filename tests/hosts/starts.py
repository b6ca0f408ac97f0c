"""Parts that start before what they need: the edge before the gateways, these before the Tritons."""

import asyncio

import httpx

from hosts.cluster import Cluster, until
from hosts.parts import Gateway
from soak.goals import Goals
from visiongate import AsyncClient, UnavailableError

_STARTED_S = 60.0


async def start(cluster: Cluster) -> Goals:
    """Start everything, what is needed last. Return whether those without it said so."""
    goals: dict[str, bool] = {}
    cluster.edge.start()
    await until(cluster.edge.metrics, _STARTED_S)
    goals["start: an edge without gateways answers UNAVAILABLE, in both protocols"] = await _is_unavailable(
        cluster
    )
    for gateway in cluster.gateways:
        gateway.start()
    readiness = await asyncio.gather(*map(_readiness, cluster.gateways))
    print(f"gateways without Tritons: {readiness}", flush=True)
    goals["start: /readyz of gateways without Tritons is 503, and says why"] = all(
        status == 503 and f"Triton {triton.address} does not answer" in words
        for status, words in readiness
        for triton in cluster.tritons
    )
    logs = [gateway.log.read_text() for gateway in cluster.gateways]
    goals["start: the log of gateways without Tritons says why"] = all(
        f"{cluster.tritons[0].address}" in log and "waiting" in log for log in logs
    )
    goals["start: with such gateways the edge answers UNAVAILABLE"] = await _is_unavailable(cluster)
    for triton in cluster.tritons:
        triton.start()
    await cluster.until_well()
    goals["start: all are well by themselves"] = not await _is_unavailable(cluster)
    return goals


async def _readiness(gateway: Gateway) -> tuple[int, str]:
    """What /readyz says some seconds after it has begun to answer: once Tritons have been asked."""

    async def answers() -> bool:
        return bool((await gateway.readiness())[0])

    await until(answers, _STARTED_S)
    await asyncio.sleep(3)
    return await gateway.readiness()


async def _is_unavailable(cluster: Cluster) -> bool:
    """Whether a call fails at once as UNAVAILABLE by gRPC, and as 503 with the same code by JSON."""
    async with AsyncClient(cluster.address, api_key=cluster.key, tls=False, wait=False, timeout=5) as client:
        try:
            await client.embed_texts(["a text"])
            return False
        except UnavailableError:
            pass
    async with httpx.AsyncClient(trust_env=False, timeout=5) as http:
        answer = await http.post(f"http://{cluster.address}/v1/texts:embed", json={"texts": ["a text"]})
    return answer.status_code == 503 and answer.json()["code"] == 14
