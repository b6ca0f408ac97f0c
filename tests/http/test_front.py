"""The HTTP front before a real gateway and a real Triton: what it answers is what gRPC answers."""

import asyncio
import base64
import io
import json
import ssl
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
import trustme
from google.protobuf import json_format
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from PIL import Image
from pycocotools import mask as coco

from gateway import metrics
from gateway.api_keys import ApiKey, write_keys
from gateway.http import api
from gateway.http.calls import path_of
from gateway.http.front import HttpFront
from gateway.server import Gateway
from gateway.services.registry import SERVICES
from gateway.settings import Settings
from http_front import serving
from visiongate import AsyncClient

OPERATIONS = {operation.path: operation for operation in api.operations(each.file for each in SERVICES)}


def picture(seed: int = 0) -> bytes:
    """Return a PNG file."""
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (48, 64, 3), np.uint8)).save(file, "PNG")
    return file.getvalue()


PNG = picture()
AS_TEXT = base64.b64encode(PNG).decode()
POINT = {"point": {"x": 10, "y": 12}, "label": "POINT_LABEL_FOREGROUND"}
PROMPT = {"points": [POINT]}
# A request for each path, as JSON and as a form.
REQUESTS: dict[str, tuple[Any, Any]] = {
    "/v1/objects:detect": (
        {"image": {"encoded": AS_TEXT}, "query": {"phrases": {"values": ["cat", "dog"]}, "min_score": 0.01}},
        {"image": PNG, "phrases": ["cat", "dog"], "min_score": "0.01"},
    ),
    "/v1/objects:batchDetect": (
        {
            "images": [{"encoded": AS_TEXT}] * 2,
            "query": {"phrases": {"values": ["cat", "dog"]}, "min_score": 0.01},
        },
        {"images": [PNG, PNG], "phrases": ["cat", "dog"], "min_score": "0.01"},
    ),
    "/v1/images:embed": ({"images": [{"encoded": AS_TEXT}] * 2}, {"images": [PNG, PNG]}),
    "/v1/texts:embed": (
        {"texts": ["a", "b"], "normalize": False},
        {"texts": ["a", "b"], "normalize": "false"},
    ),
    "/v1/imagesAndTexts:compare": (
        {"subject": {"text": "a"}, "candidates": [{"image": {"encoded": AS_TEXT}}, {"text": "b"}]},
        None,
    ),
    "/v1/images:classify": (
        {"images": [{"encoded": AS_TEXT}, {"encoded": ""}], "labels": ["x", "y"], "top_k": 1},
        None,
    ),
    "/v1/gaze:estimate": (
        {"image": {"encoded": AS_TEXT}, "boxes": {"boxes": [{"x_max": 32, "y_max": 32}]}},
        {"image": PNG, "boxes": '{"x_max": 32, "y_max": 32}'},
    ),
    "/v1/gaze:batchEstimate": ({"images": [{"encoded": AS_TEXT}] * 2}, {"images": [PNG, PNG]}),
    "/v1/regions:segment": (
        {"image": {"encoded": AS_TEXT}, "prompts": [PROMPT], "include_logits": True, "multimask": True},
        {"image": PNG, "prompts": json.dumps(PROMPT), "include_logits": "true", "multimask": "true"},
    ),
    "/v1/phrases:segment": (
        {
            "image": {"encoded": AS_TEXT},
            "query": {"caption": "a cat.", "min_score": 0.01, "max_detections": 3},
            "mask_format": "MASK_FORMAT_POLYGONS",
        },
        {
            "image": PNG,
            "caption": "a cat.",
            "min_score": "0.01",
            "max_detections": "3",
            "mask_format": "MASK_FORMAT_POLYGONS",
        },
    ),
    "/v1/phrases:batchSegment": (
        {
            "images": [{"encoded": AS_TEXT}] * 2,
            "query": {"phrases": {"values": ["cat"]}, "min_score": 0.01, "max_detections": 2},
        },
        {"images": [PNG, PNG], "phrases": "cat", "min_score": "0.01", "max_detections": "2"},
    ),
    "/v1/everything:batchSegment": (
        {"images": [{"encoded": AS_TEXT}] * 2, "points_per_side": 2, "min_predicted_iou": 0},
        {"images": [PNG, PNG], "points_per_side": "2", "min_predicted_iou": "0"},
    ),
    "/v1/everything:segment": (
        {
            "image": {"encoded": AS_TEXT},
            "points_per_side": 2,
            "min_predicted_iou": 0,
            "min_stability_score": 0,
            "mask_format": "MASK_FORMAT_PNG",
        },
        None,
    ),
    "/v1/images:encode": ({"image": {"encoded": AS_TEXT}}, {"image": PNG}),
    "/v1/text:recognize": ({"images": [{"encoded": AS_TEXT}]}, {"images": PNG}),
    "/v1/models": ({}, None),
}


def parts(form: dict[str, Any]) -> list[tuple[str, Any]]:
    pairs = [
        (name, one) for name, value in form.items() for one in (value if isinstance(value, list) else [value])
    ]
    return [(name, ("p.png", one) if isinstance(one, bytes) else (None, one)) for name, one in pairs]


def tree_of(message: Message) -> Any:
    return without_ids(json_format.MessageToDict(message, preserving_proto_field_name=True))


def without_ids(tree: Any) -> Any:
    """Return a tree without the ids of requests, which differ."""
    if isinstance(tree, dict):
        return {
            name: without_ids(value) for name, value in tree.items() if name not in ("request_id", "image_id")
        }
    return [without_ids(each) for each in tree] if isinstance(tree, list) else tree


async def by_grpc(channel: grpc.aio.Channel, path: str, tree: Any) -> Message:
    """Return gRPC's answer to the same request, whose JSON protobuf's own reader reads."""
    method = OPERATIONS[path].method
    request = json_format.ParseDict(tree, GetMessageClass(method.input_type)())
    answer = GetMessageClass(method.output_type)
    call = channel.unary_unary(
        path_of(method),
        request_serializer=type(request).SerializeToString,
        response_deserializer=answer.FromString,
    )
    return await call(request)


@pytest.fixture(scope="session")
async def channel(gateway: Gateway) -> Any:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{gateway.port}") as channel:
        yield channel


def test_every_method_is_tried() -> None:
    assert set(REQUESTS) == set(OPERATIONS)


@pytest.mark.parametrize("path", REQUESTS)
async def test_json_is_answered_as_grpc_is(
    path: str, http: httpx.AsyncClient, channel: grpc.aio.Channel
) -> None:
    tree, form = REQUESTS[path]
    if OPERATIONS[path].http_method == "GET":
        answer = await http.get(path)
    else:
        answer = await http.post(path, json=tree)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/json"
    expected = await by_grpc(channel, path, tree)
    read = json_format.ParseDict(answer.json(), type(expected)())
    assert tree_of(read) == tree_of(expected)
    if form is not None:
        by_form = await http.post(path, files=parts(form))
        assert by_form.status_code == 200, by_form.text
        assert without_ids(by_form.json()) == without_ids(answer.json())


async def test_a_mask_as_a_picture(http: httpx.AsyncClient) -> None:
    tree, form = REQUESTS["/v1/regions:segment"]
    picture = await http.post("/v1/regions:segment", files=parts(form), headers={"accept": "image/png"})
    assert picture.headers["content-type"] == "image/png"
    mask = (await http.post("/v1/regions:segment", json=tree)).json()["regions"][0]["masks"][0]["rle"]
    runs = {"size": [mask["height"], mask["width"]], "counts": mask["counts"]}
    with Image.open(io.BytesIO(picture.content)) as image:
        assert np.array_equal(np.asarray(image), coco.decode(runs) * 255)


async def test_masks_of_several_objects_are_one_picture(http: httpx.AsyncClient) -> None:
    tree, _ = REQUESTS["/v1/phrases:segment"]
    tree = tree | {"mask_format": "MASK_FORMAT_RLE"}
    picture = await http.post("/v1/phrases:segment", json=tree, headers={"accept": "image/png, */*;q=0.1"})
    objects = (await http.post("/v1/phrases:segment", json=tree)).json()["objects"]
    union = np.zeros((48, 64), np.uint8)
    for each in objects:
        union |= coco.decode({"size": [48, 64], "counts": each["mask"]["rle"]["counts"]})
    with Image.open(io.BytesIO(picture.content)) as image:
        assert np.array_equal(np.asarray(image), union * 255)


async def test_no_object_is_a_black_picture(http: httpx.AsyncClient) -> None:
    answer = await http.post(
        "/v1/regions:segment", json={"image": {"encoded": AS_TEXT}}, headers={"accept": "image/png"}
    )
    with Image.open(io.BytesIO(answer.content)) as image:
        assert np.array_equal(np.asarray(image), np.zeros((48, 64), np.uint8))


@pytest.mark.parametrize(
    ("path", "more", "kind"),
    [
        ("/v1/texts:embed", {}, np.float32),
        ("/v1/images:embed", {}, np.float32),
        ("/v1/images:embed", {"embedding_format": "EMBEDDING_FORMAT_FLOAT16"}, np.float16),
    ],
)
async def test_embeddings_as_an_array(path: str, more: Any, kind: Any, http: httpx.AsyncClient) -> None:
    tree = REQUESTS[path][0]
    answer = await http.post(path, json=tree | more, headers={"accept": "application/x-npy"})
    assert answer.headers["content-type"] == "application/x-npy"
    array = np.load(io.BytesIO(answer.content))
    assert array.dtype == kind
    values = [each["embedding"]["values"] for each in (await http.post(path, json=tree)).json()["results"]]
    assert np.array_equal(array, np.array(values, np.float32).astype(kind))


async def test_an_empty_array_and_one_that_cannot_be(http: httpx.AsyncClient) -> None:
    wants = {"accept": "application/x-npy"}
    empty = await http.post("/v1/texts:embed", json={"texts": []}, headers=wants)
    assert np.load(io.BytesIO(empty.content)).shape[0] == 0
    broken = await http.post("/v1/images:embed", files=parts({"images": [PNG, b"no"]}), headers=wants)
    assert broken.status_code == 400
    assert broken.json()["message"].startswith("images[1].encoded")


async def test_errors_are_those_of_grpc(http: httpx.AsyncClient, channel: grpc.aio.Channel) -> None:
    tree = {"image": {"image_id": "no"}, "prompts": [PROMPT]}
    answer = await http.post("/v1/regions:segment", json=tree, headers={"x-request-id": "mine"})
    assert answer.status_code == 404
    assert answer.headers["x-request-id"] == "mine"
    reasons = [each.get("reason") for each in answer.json()["details"]]
    assert "IMAGE_NOT_CACHED" in reasons
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await by_grpc(channel, "/v1/regions:segment", tree)
    assert answer.json()["message"] == error.value.details()
    assert answer.json()["code"] == error.value.code().value[0]


@pytest.mark.parametrize(
    ("method", "path", "headers", "body", "status", "says"),
    [
        (
            "POST",
            "/v1/texts:embed",
            {"content-type": "text/plain"},
            b"{}",
            415,
            "content-type: must be application/json",
        ),
        ("POST", "/v1/texts:embed", {}, b"{}", 415, "content-type: must be"),
        (
            "POST",
            "/v1/texts:embed",
            {"content-type": "application/json", "content-encoding": "gzip"},
            b"{}",
            415,
            "content-encoding",
        ),
        (
            "POST",
            "/v1/texts:embed",
            {"content-type": "application/json", "accept": "image/png"},
            b"{}",
            406,
            "accept: the answer can be application/json or application/x-npy",
        ),
        (
            "POST",
            "/v1/texts:embed",
            {"content-type": "application/json", "x-timeout-s": "soon"},
            b"{}",
            400,
            "x-timeout-s: must be a number",
        ),
        (
            "POST",
            "/v1/texts:embed",
            {"content-type": "application/json", "host": "evil.com"},
            b"{}",
            403,
            "host: ",
        ),
        (
            "POST",
            "/v1/texts:embed",
            {"content-type": "application/json", "origin": "http://evil.com"},
            b"{}",
            403,
            "origin: ",
        ),
        ("GET", "/v1/texts:embed", {}, b"", 405, "this path takes POST"),
        ("POST", "/v1/models", {}, b"", 405, "this path takes GET"),
        ("HEAD", "/v1/texts:embed", {}, b"", 405, ""),
        ("OPTIONS", "/v1/texts:embed", {}, b"", 405, "this path takes POST"),
        ("GET", "/v1/nothing", {}, b"", 404, "there is nothing at this path"),
    ],
)
async def test_what_is_refused(
    method: str, path: str, headers: Any, body: bytes, status: int, says: str, http: httpx.AsyncClient
) -> None:
    answer = await http.request(method, path, headers=headers, content=body)
    assert answer.status_code == status
    assert answer.headers["x-request-id"]
    if status == 405:
        assert set(answer.headers["allow"].replace(" ", "").split(",")) <= {"GET", "HEAD", "POST"}
    if method != "HEAD":
        assert answer.json()["message"].startswith(says)


async def test_a_deadline(http: httpx.AsyncClient) -> None:
    answer = await http.post(
        "/v1/images:embed", files=parts({"images": picture(5)}), headers={"x-timeout-s": "0.0001"}
    )
    assert (answer.status_code, answer.json()["code"]) == (504, 4)


async def test_refusals_are_counted_and_logged_as_calls(http: httpx.AsyncClient) -> None:
    def count() -> float:
        method = "/visiongate.v1.EmbeddingService/EmbedTexts"
        return float(metrics.CALLS.labels(method, "INVALID_ARGUMENT", "", "caller")._value.get())

    before = count()
    await http.post("/v1/texts:embed", json={"foo": 1})
    assert count() == before + 1


async def test_a_body_over_the_limit(settings: Settings) -> None:
    small = settings.model_copy(update={"max_message_bytes": 1000})
    async with serving(small) as front, httpx.AsyncClient(base_url=front.url) as http:
        body = b" " * (1000 * 4 // 3 + (512 << 10) + 1)
        answer = await http.post(
            "/v1/texts:embed", content=body, headers={"content-type": "application/json"}
        )
        assert (answer.status_code, answer.json()["code"]) == (413, 8)

        async def chunks() -> Any:
            yield body

        answer = await http.post(
            "/v1/texts:embed", content=chunks(), headers={"content-type": "application/json"}
        )
        assert answer.status_code == 413
        # This fits, and what is made of it does not: the gateway says so.
        answer = await http.post("/v1/images:embed", files=parts({"images": b"x" * 2000}))
        assert answer.status_code == 413, answer.text
        assert (await http.post("/v1/texts:embed", json={"texts": ["a"]})).status_code == 200


async def test_before_the_gateway_is_ready(settings: Settings) -> None:
    front = HttpFront(settings.model_copy(update={"http_port": 0}))
    async with front, httpx.AsyncClient(base_url=front.url) as http:
        answer = await http.post("/v1/texts:embed", json={"texts": ["a"]})
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert answer.json()["message"] == "the server is starting: its models are not loaded yet"
        assert (await http.get("/readyz")).status_code == 503
        assert (await http.get("/livez")).status_code == 200
        async with Gateway(settings, loopback=front.loopback) as gateway:
            front.begin(gateway)
            assert (await http.post("/v1/texts:embed", json={"texts": ["a"]})).status_code == 200
            assert (await http.get("/readyz")).status_code == 200
        assert (await http.post("/v1/texts:embed", json={"texts": ["a"]})).status_code == 503
        assert (await http.get("/readyz")).status_code == 503


async def test_keys_tls_and_certificates(settings: Settings, tmp_path: Path) -> None:
    key, text = ApiKey.generate("somebody")
    write_keys(tmp_path / "keys.toml", [key])
    authority = trustme.CA()
    server = authority.issue_cert("127.0.0.1")
    server.private_key_pem.write_to_path(str(tmp_path / "key"))
    for pem in server.cert_chain_pems:
        pem.write_to_path(str(tmp_path / "certificate"), append=True)
    authority.cert_pem.write_to_path(str(tmp_path / "ca"))
    guarded = settings.model_copy(
        update={
            "tls_certificate": tmp_path / "certificate",
            "tls_key": tmp_path / "key",
            "tls_client_ca": tmp_path / "ca",
            "api_keys": tmp_path / "keys.toml",
        }
    )
    context = ssl.create_default_context(cafile=str(tmp_path / "ca"))
    mine = ssl.create_default_context(cafile=str(tmp_path / "ca"))
    authority.issue_cert("client.example.com").configure_cert(mine)
    async with serving(guarded) as front:
        assert front.url.startswith("https://")
        async with httpx.AsyncClient(base_url=front.url, verify=context) as nobody:
            with pytest.raises(httpx.TransportError):
                await nobody.get("/v1/models")
        async with httpx.AsyncClient(base_url=front.url, verify=mine) as http:
            for headers, status, reason in (
                ({}, 401, "KEY_MISSING"),
                ({"x-api-key": "no"}, 401, "KEY_UNKNOWN"),
                ({"x-api-key": text}, 200, ""),
                ({"authorization": f"Bearer {text}"}, 200, ""),
            ):
                answer = await http.post("/v1/texts:embed", json={"texts": ["a"]}, headers=headers)
                assert answer.status_code == status
                if reason:
                    assert answer.json()["details"][0]["reason"] == reason
                    assert answer.headers["www-authenticate"] == "Bearer"


async def test_a_renewed_certificate(settings: Settings, tmp_path: Path) -> None:
    first, second = trustme.CA(), trustme.CA()

    def write(authority: trustme.CA) -> None:
        server = authority.issue_cert("127.0.0.1")
        server.private_key_pem.write_to_path(str(tmp_path / "key"))
        server.cert_chain_pems[0].write_to_path(str(tmp_path / "certificate"))

    write(first)
    tls = {"tls_certificate": tmp_path / "certificate", "tls_key": tmp_path / "key"}
    async with serving(settings.model_copy(update=tls)) as front:
        for authority in (first, second):
            context = ssl.create_default_context()
            authority.configure_trust(context)
            write(authority)
            async with httpx.AsyncClient(base_url=front.url, verify=context) as http:
                assert (await http.get("/livez")).status_code == 200


async def test_pages_that_may_use_it(settings: Settings) -> None:
    open_ = settings.model_copy(update={"http_origins": ("https://app.example.com",)})
    async with serving(open_) as front, httpx.AsyncClient(base_url=front.url) as http:
        asks = {
            "origin": "https://app.example.com",
            "access-control-request-method": "POST",
            "access-control-request-headers": "content-type, x-api-key, x-timeout-s, x-image-id",
        }
        answer = await http.options("/v1/texts:embed", headers=asks)
        assert answer.status_code == 200
        assert answer.headers["access-control-allow-origin"] == "https://app.example.com"
        headers = {"origin": "https://app.example.com"}
        answer = await http.post("/v1/texts:embed", json={"texts": ["a"]}, headers=headers)
        assert answer.headers["access-control-allow-origin"] == "https://app.example.com"
        assert (
            await http.options("/v1/texts:embed", headers=asks | {"origin": "https://evil.com"})
        ).status_code == 403


async def test_the_loopback_is_for_the_front_alone(settings: Settings) -> None:
    async with serving(settings) as front, AsyncClient(front.loopback.address) as other:
        with pytest.raises(Exception, match="this socket is for the server's own HTTP front"):
            await other.embed_texts(["a"])


async def test_who_calls_is_known(settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    """Limits and log lines are about the front's caller, and not about the front."""
    caplog.set_level("INFO", "gateway.calls")
    async with serving(settings) as front, httpx.AsyncClient(base_url=front.url) as http:
        await http.post("/v1/texts:embed", json={"texts": ["a"]}, headers={"x-request-id": "whose"})
    (record,) = (record for record in caplog.records if record.getMessage() == "call ended")
    assert record.__dict__["fields"]["peer"] == "127.0.0.1"


async def test_several_at_once_on_one_event_loop(http: httpx.AsyncClient) -> None:
    answers = await asyncio.gather(
        *(http.post("/v1/images:embed", files=parts({"images": picture(seed)})) for seed in range(20))
    )
    assert all(answer.status_code == 200 for answer in answers)


async def test_a_proxy_of_the_environment_does_not_matter(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The front asks its own gateway, which no proxy can reach."""
    for name in ("http_proxy", "https_proxy", "grpc_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    async with (
        serving(settings) as front,
        httpx.AsyncClient(base_url=front.url, trust_env=False) as http,
    ):
        assert (await http.post("/v1/texts:embed", json={"texts": ["a"]})).status_code == 200
