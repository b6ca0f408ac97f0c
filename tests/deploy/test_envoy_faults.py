"""The edge before several gateways: who is asked, and what becomes of calls when one of them goes."""

import asyncio
import os
import signal
import socket
import ssl
import struct
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
import trustme
from grpc_health.v1 import health_pb2_grpc
from prometheus_client import REGISTRY

import envoy
from envoy import GRPC, HTTP, Behind, Config, Edge
from gateway.connections import close_connection
from gateway.embedded import EmbeddedTriton
from gateway.health import Health
from gateway.settings import Settings
from soak.service import Service, free_port, serving
from soak.traffic import Tally, asking, pictures
from visiongate import AsyncClient, ImageHandle, ImageNotCachedError
from visiongate.operations import segmentation

LIST_MODELS = "/visiongate.v1.ModelService/ListModels"
BOX: Any = [[5, 5, 40, 40]]
FILES = pictures()


@asynccontextmanager
async def standing_in(answer: Any) -> AsyncIterator[Behind]:
    """A server in a gateway's place that is well, and answers gRPC as a test wants."""
    server = grpc.aio.server()
    handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(answer)
    server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler("visiongate.v1.ModelService", {"ListModels": handler})]
    )
    health = Health()
    health.set("", True)
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield Behind("127.0.0.1", port, free_port())
    finally:
        await server.stop(None)


@asynccontextmanager
async def edge_of(answer: Any, count: int) -> AsyncIterator[Any]:
    """The method that several such servers have, through the edge."""
    async with AsyncExitStack() as stack:
        behind = [await stack.enter_async_context(standing_in(answer)) for _ in range(count)]
        edge = await stack.enter_async_context(envoy.serving(behind))
        await edge.until_well(count, GRPC)
        yield (await stack.enter_async_context(grpc.aio.insecure_channel(edge.address))).unary_unary(
            LIST_MODELS
        )


async def test_no_error_that_a_gateway_answers_is_asked_for_again() -> None:
    """A gateway repeats requests to Triton itself, and one that is full must not take others along."""
    codes = [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK]
    asked: Counter[grpc.StatusCode] = Counter()

    async def fail(request: bytes, context: Any) -> bytes:
        code = codes[int(dict(context.invocation_metadata())["number"])]
        asked[code] += 1
        await context.abort(code, "no")
        return b""

    async with edge_of(fail, 2) as call:
        for number, code in enumerate(codes):
            with pytest.raises(grpc.aio.AioRpcError) as failed:
                await call(b"", metadata=(("number", str(number)),))
            assert failed.value.code() is code
    assert asked == dict.fromkeys(codes, 1)


async def test_a_request_that_kills_gateways_gets_three_at_most() -> None:
    killed = []

    async def die(request: bytes, context: Any) -> bytes:
        killed.append(context.peer())
        close_connection(context.peer(), "answer")
        await asyncio.sleep(1)
        return b""

    async with edge_of(die, 5) as call:
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await call(b"")
        assert failed.value.code() is grpc.StatusCode.UNAVAILABLE
    assert len(killed) == 3


@pytest.fixture(scope="module")
def mortal(demo_triton: EmbeddedTriton) -> Iterator[tuple[Service, Behind]]:
    """A gateway in a process of its own, which the test kills."""
    port = free_port()
    with (
        pytest.raises(RuntimeError, match="ended with -9"),
        serving(demo_triton.grpc_address, "--http-port", str(port)) as service,
    ):
        yield service, Behind("127.0.0.1", int(service.address.rpartition(":")[2]), port)


async def test_a_gateway_that_stops_or_dies_under_load_costs_no_call(
    mortal: tuple[Service, Behind], demo_settings: Settings
) -> None:
    service, dying = mortal
    calls = Tally()
    async with AsyncExitStack() as stack:
        staying = await stack.enter_async_context(envoy.gateway(demo_settings))
        stopping = envoy.gateway(demo_settings.model_copy(update={"drain_s": 5, "grace_s": 5}))
        leaving = await stopping.__aenter__()
        edge = await stack.enter_async_context(envoy.serving([staying, leaving, dying]))
        await edge.until_well(3)
        client = await stack.enter_async_context(AsyncClient(edge.address, wait=False, timeout=30))
        http = await stack.enter_async_context(
            httpx.AsyncClient(base_url=edge.url, timeout=30, trust_env=False)
        )

        async def ask() -> None:
            await calls.count(client.detect(next(FILES), ["red circle"]))
            answer = await http.post(
                "/v1/objects:detect", files={"image": next(FILES)}, data={"phrases": "red circle"}
            )
            calls.codes[str(answer.status_code)] += 1

        async with asking(8, ask):
            await asyncio.sleep(0.5)
            stop = asyncio.create_task(stopping.__aexit__(None, None, None))
            await edge.until_well(2)
            assert not stop.done(), "it is left only once it is gone"
            await stop
            os.kill(service.process.pid, signal.SIGKILL)
            await edge.until_well(1)
        asked = await edge.stats("cluster.gateway-")
    assert set(calls.codes) == {"OK", "200"}, calls

    def count(name: str) -> int:
        return sum(asked[f"cluster.{cluster}.{name}"] for cluster in (GRPC, HTTP))

    assert count("upstream_cx_destroy_remote_with_active_rq") > 0, "no call was with the one that died"
    assert count("upstream_rq_retry_success") > 0


@pytest.fixture(scope="module")
async def pair(demo_settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Edge]:
    """The edge before two gateways that know each other's image ids."""
    secret = tmp_path_factory.mktemp("secret") / "secret"
    secret.write_bytes(os.urandom(32))
    own = demo_settings.model_copy(update={"image_id_secret": secret, "max_send_s": 1.0})

    def give_up_soon(config: Config) -> None:
        [option] = envoy.listeners(config)[envoy.PLAIN]["socket_options"]
        option["int_value"] = 2000

    async with (
        envoy.gateway(own) as one,
        envoy.gateway(own) as other,
        envoy.serving([one, other], give_up_soon) as edge,
    ):
        await edge.until_well(2)
        yield edge


async def test_calls_about_an_image_go_to_the_gateway_that_keeps_it(pair: Edge) -> None:
    async with AsyncClient(pair.address) as client:
        images = [await client.encode_image(next(FILES)) for _ in range(12)]
        for image in images:
            assert len(await client.segment(image, boxes=BOX)) == 1

        async def is_found(number: int, image: ImageHandle) -> bool:
            misled = client.with_options(metadata={"x-image-id": f"another {number}"})
            try:
                await misled.segment(image, boxes=BOX)
            except ImageNotCachedError:
                return False
            return True

        assert not all([await is_found(number, image) for number, image in enumerate(images)])


async def test_the_same_over_http_by_any_name(pair: Edge) -> None:
    async with httpx.AsyncClient(base_url=pair.url, timeout=60, trust_env=False) as http:
        for number in range(8):
            name = {"x-image-id": f"mine {number}"}
            sent = await http.post("/v1/images:encode", files={"image": next(FILES)}, headers=name)
            image_id = sent.json()["image"]["image_id"]
            prompts = [{"box": {"x_min": 5, "y_min": 5, "x_max": 40, "y_max": 40}}]
            body = {"image": {"image_id": image_id}, "prompts": prompts}
            assert (await http.post("/v1/regions:segment", json=body, headers=name)).status_code == 200


def cut_off() -> float:
    """How many connections gateways of this process have closed because an answer was not taken."""
    return REGISTRY.get_sample_value("visiongate_connections_closed_total", {"reason": "answer"}) or 0.0


async def test_who_does_not_take_an_answer_harms_nobody_else(pair: Edge) -> None:
    """The gateways would cut off the connection with all its calls: the edge takes the answer from them."""
    request = segmentation.segment(next(FILES), boxes=BOX * 100, multimask=True, include_logits=True).request
    message = struct.pack(">BI", 0, request.ByteSize()) + request.SerializeToString()
    head = (
        "POST /visiongate.v1.SegmentationService/SegmentRegions HTTP/1.1\r\nhost: edge\r\n"
        f"content-type: application/grpc-web+proto\r\ncontent-length: {len(message)}\r\n\r\n"
    )
    before = cut_off()

    def is_slow(line: dict[str, object]) -> bool:
        # Calls of other tests are there too: they are by HTTP/2.
        return str(line["path"]).endswith("SegmentRegions") and line["protocol"] == "HTTP/1.1"

    with socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.connect(("127.0.0.1", pair.ports[envoy.PLAIN]))
        slow.sendall(head.encode() + message)
        async with asyncio.timeout(30):
            while (await pair.stats("http.edge"))["http.edge.downstream_cx_active"]:  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        slow.settimeout(5)
        taken = 0
        with suppress(ConnectionResetError):
            while part := slow.recv(1 << 20):
                taken += len(part)
    async with asyncio.timeout(10):
        while not (lines := [line for line in pair.lines() if is_slow(line)]):  # noqa: ASYNC110
            await asyncio.sleep(0.1)
    assert taken < lines[-1]["bytes_out"], "the caller got all, so it was no test"
    assert cut_off() == before
    assert not any((await pair.stats(f"cluster.{GRPC}.upstream_cx_destroy_with_active_rq")).values())


async def test_certificates_are_renewed_without_a_restart(demo_settings: Settings, tmp_path: Path) -> None:
    authority = trustme.CA()
    ca = authority.cert_pem.bytes()

    def issue(edge: Edge) -> str:
        """Put a new certificate where the edge looks, as Kubernetes does; return it."""
        issued = authority.issue_cert("127.0.0.1")
        issued.private_key_pem.write_to_path(tmp_path / "tls.key")
        (tmp_path / "tls.crt").write_bytes(b"".join(part.bytes() for part in issued.cert_chain_pems))
        for name in ("tls.key", "tls.crt"):
            (tmp_path / name).rename(edge.tls_folder / name)
        return issued.cert_chain_pems[0].bytes().decode().strip()

    async with envoy.gateway(demo_settings) as behind, envoy.serving([behind]) as edge:
        await edge.until_well(1)
        place = "127.0.0.1", edge.ports[envoy.TLS]

        async def until_shown(certificate: str) -> None:
            async with asyncio.timeout(20):
                while True:
                    try:
                        shown = await asyncio.to_thread(ssl.get_server_certificate, place, timeout=5)
                    except OSError:
                        shown = ""
                    if shown.strip() == certificate:
                        return
                    await asyncio.sleep(0.05)

        await until_shown(issue(edge))
        context = ssl.create_default_context(cadata=ca.decode())
        async with (
            AsyncClient(f"127.0.0.1:{place[1]}", root_certificates=ca) as client,
            httpx.AsyncClient(
                base_url=f"https://127.0.0.1:{place[1]}", verify=context, trust_env=False
            ) as http,
        ):
            for _ in range(2):
                assert await client.list_models()
                assert (await http.get("/v1/models")).status_code == 200
                await until_shown(issue(edge))
