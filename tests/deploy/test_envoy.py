"""The edge of deploy/envoy: a real Envoy before a real gateway, by every way in."""

import asyncio
import base64
import logging
import struct
from collections.abc import AsyncIterator
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

import envoy
from envoy import Behind, Config, Edge
from gateway.api_keys import ApiKey, write_keys
from gateway.settings import Settings
from soak.traffic import pictures
from visiongate import AsyncClient, InvalidArgumentError, OverloadedError, UnavailableError, VisiongateError
from visiongate.operations import embedding
from visiongate.v1 import model_service_pb2

APP = "https://app.example.com"
LIST_MODELS = "/visiongate.v1.ModelService/ListModels"
MAX_MESSAGE_BYTES = 1 << 20
PHOTO = next(pictures())


@pytest.fixture(scope="module")
async def gateway(demo_settings: Settings) -> AsyncIterator[Behind]:
    """It believes every address of IPv4 to be a proxy."""
    own = {
        "max_message_bytes": MAX_MESSAGE_BYTES,
        "inference_sdk_routes": True,
        "http_origins": (APP,),
        "trusted_proxies": ("0.0.0.0/0",),
    }
    async with envoy.gateway(demo_settings.model_copy(update=own)) as running:
        yield running


@pytest.fixture(scope="module")
async def edge(gateway: Behind) -> AsyncIterator[Edge]:
    def allow(config: Config) -> None:
        manager = envoy.connection_manager(config)
        [host] = manager["route_config"]["virtual_hosts"]
        cors = host["typed_per_filter_config"]["envoy.filters.http.cors"]
        cors["allow_origin_string_match"] = [{"exact": APP}]

    async with envoy.serving([gateway], allow) as running:
        await running.until_well(1)
        yield running


@pytest.fixture(scope="module")
async def client(edge: Edge) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(edge.address) as connected:
        yield connected


@pytest.fixture(scope="module")
async def http(edge: Edge) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=edge.url, timeout=60, trust_env=False) as connected:
        yield connected


def frame(message: bytes, flags: int = 0) -> bytes:
    return struct.pack(">BI", flags, len(message)) + message


def unframe(body: bytes) -> dict[int, bytes]:
    """The frames of an answer by their flags: 0 a message, 128 the trailers."""
    frames = {}
    while body:
        flags, size = struct.unpack(">BI", body[:5])
        frames[flags] = body[5 : 5 + size]
        body = body[5 + size :]
    return frames


async def test_grpc(client: AsyncClient) -> None:
    assert [found.phrase for found in await client.detect(PHOTO, ["red circle"])]
    with pytest.raises(InvalidArgumentError) as wrong:
        await client.detect(b"\xff\xd8 no photo", ["red circle"])
    assert wrong.value.field == "image.encoded"
    with pytest.raises(VisiongateError) as large:
        await client.detect(np.zeros((700, 700, 3), np.uint8), ["red circle"])
    assert large.value.code is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_health_and_reflection(edge: Edge) -> None:
    async with grpc.aio.insecure_channel(edge.address) as channel:
        health: Any = health_pb2_grpc.HealthStub(channel)
        request = health_pb2.HealthCheckRequest(service="visiongate.v1.DetectionService")
        serving = health_pb2.HealthCheckResponse.SERVING
        assert (await health.Check(request)).status == serving
        watch = health.Watch(request)
        assert (await watch.read()).status == serving
        watch.cancel()
        questions = iter([reflection_pb2.ServerReflectionRequest(list_services="")])
        reflection: Any = reflection_pb2_grpc.ServerReflectionStub(channel)  # type: ignore[arg-type]
        [answer] = [each async for each in reflection.ServerReflectionInfo(questions)]
        names = [service.name for service in answer.list_services_response.service]
        assert "visiongate.v1.DetectionService" in names


@pytest.mark.parametrize("kind", ["application/grpc-web+proto", "application/grpc-web-text"])
async def test_grpc_web(http: httpx.AsyncClient, kind: str) -> None:
    def encode(body: bytes) -> bytes:
        return base64.b64encode(body) if kind.endswith("text") else body

    def decode(body: bytes) -> bytes:
        return base64.b64decode(body) if kind.endswith("text") else body

    headers = {"content-type": kind, "accept": kind, "x-grpc-web": "1", "origin": APP}
    answer = await http.post(LIST_MODELS, content=encode(frame(b"")), headers=headers)
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == APP
    assert "grpc-status" in answer.headers["access-control-expose-headers"]
    frames = unframe(decode(answer.content))
    assert model_service_pb2.ListModelsResponse.FromString(frames[0]).models
    assert b"grpc-status:0" in frames[128].replace(b" ", b"")
    unknown = await http.post(
        "/visiongate.v1.ModelService/Nothing", content=encode(frame(b"")), headers=headers
    )
    status = unknown.headers.get("grpc-status") or unframe(decode(unknown.content))[128].decode()
    assert str(grpc.StatusCode.UNIMPLEMENTED.value[0]) in status


async def test_json_form_and_png(http: httpx.AsyncClient) -> None:
    vector = await http.post(
        "/v1/texts:embed", json={"texts": ["a red circle"]}, headers={"x-request-id": "mine"}
    )
    assert vector.status_code == 200
    assert vector.headers.get_list("x-request-id") == ["mine"]
    assert len(vector.json()["results"]) == 1
    files, data = {"image": PHOTO}, {"phrases": "red circle"}
    found = await http.post("/v1/objects:detect", files=files, data=data)
    assert [each["phrase"] for each in found.json()["detections"]]
    mask = await http.post("/v1/phrases:segment", files=files, data=data, headers={"accept": "image/png"})
    assert mask.content.startswith(b"\x89PNG")


@pytest.mark.parametrize("path", ["/", "/docs", "/openapi.json", "/v1/models", "/info"])
async def test_pages_and_the_paths_of_inference_sdk(http: httpx.AsyncClient, path: str) -> None:
    assert (await http.get(path)).status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/v1/texts:embed", b'{"text": 1}', 400),
        ("GET", "/v1/nothing", b"", 404),
        ("GET", "/v1/texts:embed", b"", 405),
        ("POST", "/v1/texts:embed", b" " * (4 * MAX_MESSAGE_BYTES), 413),
    ],
)
async def test_the_gateways_errors_arrive_as_they_are(
    http: httpx.AsyncClient, method: str, path: str, body: bytes, status: int
) -> None:
    answer = await http.request(method, path, content=body, headers={"content-type": "application/json"})
    assert answer.status_code == status
    details = {detail["@type"].rpartition(".")[2]: detail for detail in answer.json()["details"]}
    assert details["RequestInfo"]["request_id"] == answer.headers["x-request-id"]


@pytest.mark.parametrize("path", [LIST_MODELS, "/v1/models"])
async def test_browsers_ask_whether_they_may(http: httpx.AsyncClient, path: str) -> None:
    def ask(origin: str) -> dict[str, str]:
        wish = {
            "access-control-request-method": "POST",
            "access-control-request-headers": "content-type,x-image-id",
        }
        return {"origin": origin, **wish}

    allowed = await http.options(path, headers=ask(APP))
    assert allowed.headers["access-control-allow-origin"] == APP
    assert "x-image-id" in allowed.headers["access-control-allow-headers"]
    foreign = await http.options(path, headers=ask("https://evil.example.com"))
    assert "access-control-allow-origin" not in foreign.headers


async def test_a_caller_orders_no_retries_and_no_limits(http: httpx.AsyncClient, edge: Edge) -> None:
    before = await edge.stats("cluster.gateway-http.upstream_rq_retry")
    orders = {"x-envoy-retry-on": "retriable-4xx,retriable-status-codes", "x-envoy-max-retries": "5"}
    orders |= {"x-envoy-retriable-status-codes": "404", "x-envoy-upstream-rq-timeout-ms": "1"}
    assert (await http.get("/v1/nothing", headers=orders)).status_code == 404
    assert await edge.stats("cluster.gateway-http.upstream_rq_retry") == before


async def test_the_gateway_knows_who_asked(
    http: httpx.AsyncClient, edge: Edge, caplog: pytest.LogCaptureFixture
) -> None:
    """The caller's own word about itself counts only here, where all of IPv4 is believed."""
    caller = "2001:db8::7"
    caplog.set_level(logging.INFO, "gateway.calls")
    assert (await http.get("/v1/models", headers={"x-forwarded-for": caller})).status_code == 200
    async with grpc.aio.insecure_channel(edge.address) as channel:
        list_models: Any = channel.unary_unary(LIST_MODELS)
        await list_models(b"", metadata=(("x-forwarded-for", caller),))
    await http.post("/v1/texts:embed", headers={"x-forwarded-for": caller}, content=b"")
    peers = [record.fields["peer"] for record in caplog.records if hasattr(record, "fields")]
    assert peers == [caller] * 3


async def test_operators_see_metrics_and_the_administration_is_out_of_reach(edge: Edge) -> None:
    async with httpx.AsyncClient(base_url=edge.metrics_url, trust_env=False) as metrics:
        assert "envoy_cluster_upstream_rq_retry" in (await metrics.get("/stats/prometheus")).text
        assert (await metrics.get("/ready")).text.strip() == "LIVE"
        for path in ("/quitquitquit", "/config_dump", "/stats/../quitquitquit", "//quitquitquit"):
            assert (await metrics.post(path)).status_code == 404
    assert envoy.read_config()["admin"]["address"]["socket_address"]["address"] == "127.0.0.1"


async def test_without_a_gateway_an_error_comes_at_once_and_then_all_is_well(demo_settings: Settings) -> None:
    grpc_port, http_port = envoy.free_ports(2)
    async with (
        envoy.serving([Behind("127.0.0.1", grpc_port, http_port)]) as edge,
        AsyncClient(edge.address, wait=False) as client,
        httpx.AsyncClient(base_url=edge.url, trust_env=False) as http,
    ):
        answer = await http.get("/v1/models")
        assert (answer.status_code, answer.json()["code"]) == (503, grpc.StatusCode.UNAVAILABLE.value[0])
        assert answer.headers["content-type"] == "application/json"
        assert "no healthy upstream" in answer.json()["message"]
        with pytest.raises(UnavailableError):
            await client.list_models()
        own = demo_settings.model_copy(update={"port": grpc_port, "http_port": http_port})
        async with envoy.gateway(own):
            await edge.until_well(1)
            assert await client.list_models()
            assert (await http.get("/v1/models")).status_code == 200


async def test_each_key_has_its_rate_and_no_key_is_logged(
    demo_settings: Settings, tmp_path_factory: pytest.TempPathFactory
) -> None:
    made = [ApiKey.generate(name) for name in ("greedy", "modest")]
    file = tmp_path_factory.mktemp("keys") / "keys.toml"
    write_keys(file, [key for key, _ in made])
    greedy, modest = (text for _, text in made)

    def limit(config: Config) -> None:
        for descriptor in envoy.http_filter(config, "envoy.filters.http.local_ratelimit")["descriptors"]:
            if descriptor["entries"] != [{"key": "remote_address"}]:
                descriptor["token_bucket"] = {"max_tokens": 3, "tokens_per_fill": 3, "fill_interval": "600s"}

    async with (
        envoy.gateway(demo_settings.model_copy(update={"api_keys": file})) as behind,
        envoy.serving([behind], limit) as edge,
        httpx.AsyncClient(base_url=edge.url, trust_env=False) as http,
        AsyncClient(edge.address, api_key=greedy, wait=False) as client,
    ):
        await edge.until_well(1)

        assert (await http.get("/v1/models")).status_code == 401
        statuses = [
            (await http.get("/v1/models", headers={"x-api-key": greedy})).status_code for _ in range(4)
        ]
        assert statuses == [200, 200, 200, 429]
        refusal = await http.get(f"/v1/models?api_key={greedy}", headers={"x-api-key": greedy})
        assert refusal.json()["code"] == grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]
        assert refusal.headers["retry-after"] == "1"
        for _ in range(3):
            assert await client.list_models()
        with pytest.raises(OverloadedError):
            await client.list_models()
        assert (await http.get("/v1/models", headers={"x-api-key": modest})).status_code == 200
        async with asyncio.timeout(10):
            while len(edge.lines()) < 11:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        assert [line["status"] for line in edge.lines()].count(429) == 2
        for place in (edge.log.read_text(), (await edge.ask_admin("/stats")).text):
            assert not any(text in place for text in (greedy, modest))


async def test_streams_go_through(client: AsyncClient) -> None:
    """Theirs is a route without a time limit, however long they last."""
    config = envoy.connection_manager(envoy.read_config())
    [host] = config["route_config"]["virtual_hosts"]
    first = host["routes"][0]
    assert first["match"] == {"prefix": "/visiongate.v1.StreamService/"}
    assert (first["route"]["timeout"], "retry_policy" in first["route"]) == ("0s", False)
    results = [
        result
        async for _, result in client.stream(
            (embedding.embed_texts([f"text {number}"]) for number in range(50)), ordered=True
        )
    ]
    expected = await client.embed_texts([f"text {number}" for number in range(50)])
    np.testing.assert_allclose(np.concatenate(results), expected, atol=1e-5)  # type: ignore[arg-type]
