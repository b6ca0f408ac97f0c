"""Who may not call is refused at the door, and nothing of the work is done for them."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
import trustme
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from prometheus_client import REGISTRY, Counter
from typer.testing import CliRunner

from gateway import metrics
from gateway.api_keys import ApiKey, write_keys
from gateway.server import Gateway
from gateway.settings import Settings
from visiongate import AsyncClient, Client, VisiongateError
from visiongate.cli import app

# No image: with a key, the answer is INVALID_ARGUMENT.
MESSAGE_OF_30_MB = b"x" * (30 << 20)


def total(counter: Counter) -> float:
    return sum(
        sample.value
        for metric in counter.collect()
        for sample in metric.samples
        if sample.name.endswith("_total")
    )


@contextmanager
def nothing_done() -> Iterator[None]:
    """No message was received, so none was read, and Triton was asked for nothing."""

    def work() -> tuple[float, float]:
        return total(metrics.REQUEST_BYTES), total(metrics.TRITON_REQUESTS)

    before = work()
    yield
    assert work() == before


async def refusal(client: AsyncClient) -> VisiongateError:
    with pytest.raises(VisiongateError) as caught, nothing_done():
        await client.embed_texts(["a cat"])
    return caught.value


async def health(channel: grpc.aio.Channel) -> int:
    stub: Any = health_pb2_grpc.HealthStub(channel)
    return int((await stub.Check(health_pb2.HealthCheckRequest())).status)


SERVING = health_pb2.HealthCheckResponse.SERVING


@dataclass(frozen=True)
class Keyed:
    """A gateway that wants an API key: one of the file, whose text is `key`."""

    address: str
    file: Path
    key: str


@pytest.fixture
async def keyed(demo_settings: Settings, tmp_path: Path) -> AsyncIterator[Keyed]:
    file = tmp_path / "keys.toml"
    entry, text = ApiKey.generate("app")
    write_keys(file, [entry])
    async with Gateway(demo_settings.model_copy(update={"api_keys": file})) as gateway:
        yield Keyed(f"127.0.0.1:{gateway.port}", file, text)


async def test_a_key_opens_the_door_and_names_the_caller(keyed: Keyed) -> None:
    def calls() -> float:
        labels = {"code": "OK", "caller": "app"}
        return REGISTRY.get_sample_value("visiongate_caller_calls_total", labels) or 0

    before = total(metrics.REQUEST_BYTES), total(metrics.TRITON_REQUESTS), calls()
    async with AsyncClient(keyed.address, api_key=keyed.key) as client:
        assert len(await client.embed_texts(["a cat"])) == 1
    # What `nothing_done` looks at does change with a call that is let in.
    assert total(metrics.REQUEST_BYTES) > before[0]
    assert total(metrics.TRITON_REQUESTS) == before[1] + 1
    assert calls() == before[2] + 1

    def embed() -> int:
        with Client(keyed.address, api_key=keyed.key) as client:
            return len(client.embed_texts(["a cat"]))

    assert await asyncio.to_thread(embed) == 1


@pytest.mark.parametrize(
    ("key", "reason"), [(None, "KEY_MISSING"), ("vg_wrong", "KEY_UNKNOWN"), ("app", "KEY_UNKNOWN")]
)
async def test_without_the_key_nothing_is_done(keyed: Keyed, key: str | None, reason: str) -> None:
    before = total(metrics.REFUSALS)
    async with AsyncClient(keyed.address, api_key=key) as client:
        error = await refusal(client)
    assert error.code is grpc.StatusCode.UNAUTHENTICATED
    assert error.reason == reason
    assert total(metrics.REFUSALS) == before + 1


async def test_a_large_message_without_the_key_is_not_read(keyed: Keyed) -> None:
    async with AsyncClient(keyed.address, api_key="vg_wrong") as client:
        for _ in range(3):
            with pytest.raises(VisiongateError) as caught, nothing_done():
                await client.detect(MESSAGE_OF_30_MB, ["cat"])
            assert caught.value.code is grpc.StatusCode.UNAUTHENTICATED
    before = total(metrics.REQUEST_BYTES)
    async with AsyncClient(keyed.address, api_key=keyed.key) as client:
        with pytest.raises(VisiongateError) as caught:
            await client.detect(MESSAGE_OF_30_MB, ["cat"])
    assert caught.value.code is grpc.StatusCode.INVALID_ARGUMENT
    assert total(metrics.REQUEST_BYTES) > before + len(MESSAGE_OF_30_MB)


async def test_a_removed_key_is_refused_without_a_restart(keyed: Keyed) -> None:
    entry, text = ApiKey.generate("other")
    async with (
        AsyncClient(keyed.address, api_key=keyed.key) as removed,
        AsyncClient(keyed.address, api_key=text) as added,
    ):
        await removed.list_models()
        await refusal(added)
        write_keys(keyed.file, [entry])
        async with asyncio.timeout(60):
            while True:
                try:
                    await removed.list_models()
                except VisiongateError:
                    break
                await asyncio.sleep(0.05)
        assert (await refusal(removed)).code is grpc.StatusCode.UNAUTHENTICATED
        assert len(await added.embed_texts(["a cat"])) == 1


async def test_health_answers_without_a_key_and_reflection_does_not(keyed: Keyed) -> None:
    async with grpc.aio.insecure_channel(keyed.address) as channel:
        assert await health(channel) == SERVING
        stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)  # type: ignore[arg-type]
        request = reflection_pb2.ServerReflectionRequest(list_services="")

        async def services(**metadata: str) -> list[Any]:
            call = stub.ServerReflectionInfo(iter([request]), metadata=tuple(metadata.items()))
            return [answer async for answer in call]

        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await services()
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
        assert len(await services(authorization=f"Bearer {keyed.key}")) == 1


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("api_keys", "cannot read the API keys in nowhere"),
        ("image_id_secret", "cannot read image_id_secret nowhere"),
        ("tls_client_ca", "tls_client_ca needs tls_certificate"),
        ("tls_key", "tls_certificate and tls_key go together"),
    ],
)
async def test_what_is_wrong_is_said_before_triton_is_waited_for(
    name: str, says: str, demo_settings: Settings
) -> None:
    wrong = demo_settings.model_copy(update={name: Path("nowhere"), "triton": "127.0.0.1:9"})
    with pytest.raises(ValueError, match=says):
        async with Gateway(wrong):
            pass


def test_no_part_of_the_door_is_left_out_by_the_command() -> None:
    """Variables reach the settings: a server that passes over one of these would run open."""
    names = "API_KEYS", "IMAGE_ID_SECRET", "TLS_CERTIFICATE", "TLS_KEY", "TLS_CLIENT_CA"
    values = {f"VISIONGATE_{name}": f"/door/{name}" for name in names}
    result = CliRunner().invoke(app, ["settings"], env=values | {"COLUMNS": "500"})
    assert [value for value in values.values() if value not in result.output] == []


@pytest.fixture(scope="module")
def ca() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def other_ca() -> trustme.CA:
    return trustme.CA()


def put_certificate(ca: trustme.CA, folder: Path) -> dict[str, Path]:
    """The settings of a new certificate, whose files replace those there."""
    leaf = ca.issue_cert("127.0.0.1")
    paths = {"tls_certificate": folder / "tls.crt", "tls_key": folder / "tls.key"}
    contents = b"".join(pem.bytes() for pem in leaf.cert_chain_pems), leaf.private_key_pem.bytes()
    for path, content in zip(paths.values(), contents, strict=True):
        new = path.with_suffix(".new")
        new.write_bytes(content)
        new.replace(path)
    return paths


def certificate_of(ca: trustme.CA, expired: bool = False) -> dict[str, Any]:
    """The arguments of a client that shows a certificate of this authority."""
    times = (datetime(2020, 1, 1, tzinfo=UTC), datetime(2021, 1, 1, tzinfo=UTC)) if expired else (None, None)
    leaf = ca.issue_cert("client@example.com", not_before=times[0], not_after=times[1])
    return {
        "client_certificate": leaf.cert_chain_pems[0].bytes(),
        "client_key": leaf.private_key_pem.bytes(),
    }


@pytest.fixture
async def mutual(demo_settings: Settings, ca: trustme.CA, tmp_path: Path) -> AsyncIterator[str]:
    """The address of a gateway that wants client certificates of `ca`, of which it has its own."""
    authorities = tmp_path / "ca.crt"
    ca.cert_pem.write_to_path(str(authorities))
    files = put_certificate(ca, tmp_path)
    async with Gateway(demo_settings.model_copy(update=files | {"tls_client_ca": authorities})) as gateway:
        yield f"127.0.0.1:{gateway.port}"


async def test_a_certificate_opens_the_door(mutual: str, ca: trustme.CA) -> None:
    roots = ca.cert_pem.bytes()
    async with AsyncClient(mutual, root_certificates=roots, **certificate_of(ca)) as client:
        assert len(await client.embed_texts(["a cat"])) == 1

    def embed() -> int:
        with Client(mutual, root_certificates=roots, **certificate_of(ca)) as client:
            return len(client.embed_texts(["a cat"]))

    assert await asyncio.to_thread(embed) == 1


@pytest.mark.parametrize(
    "shown", ["plaintext", "no certificate", "expired", "of another authority", "the server is another"]
)
async def test_without_the_certificate_nothing_is_done(
    mutual: str, ca: trustme.CA, other_ca: trustme.CA, shown: str
) -> None:
    roots = {"root_certificates": ca.cert_pem.bytes()}
    arguments: dict[str, dict[str, Any]] = {
        "plaintext": {},
        "no certificate": roots,
        "expired": roots | certificate_of(ca, expired=True),
        "of another authority": roots | certificate_of(other_ca),
        "the server is another": {"root_certificates": other_ca.cert_pem.bytes()} | certificate_of(ca),
    }
    calls = total(metrics.CALLS)
    async with AsyncClient(mutual, wait=False, **arguments[shown]) as client:
        assert (await refusal(client)).code is grpc.StatusCode.UNAVAILABLE
        with pytest.raises(VisiongateError), nothing_done():
            await client.detect(MESSAGE_OF_30_MB, ["cat"])
    assert total(metrics.CALLS) == calls


async def test_health_is_behind_tls_too(mutual: str, ca: trustme.CA) -> None:
    async with grpc.aio.insecure_channel(mutual) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await health(channel)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    shown = certificate_of(ca)
    credentials = grpc.ssl_channel_credentials(
        ca.cert_pem.bytes(), shown["client_key"], shown["client_certificate"]
    )
    async with grpc.aio.secure_channel(mutual, credentials) as channel:
        assert await health(channel) == SERVING


async def test_certificates_are_renewed_under_a_running_gateway(
    demo_settings: Settings, ca: trustme.CA, other_ca: trustme.CA, tmp_path: Path
) -> None:
    files = put_certificate(ca, tmp_path)
    async with Gateway(demo_settings.model_copy(update=files)) as gateway:
        address = f"127.0.0.1:{gateway.port}"

        def client(authority: trustme.CA) -> AsyncClient:
            return AsyncClient(address, root_certificates=authority.cert_pem.bytes())

        async with client(ca) as connected, client(ca) as late, client(other_ca) as new:
            assert len(await connected.embed_texts(["a cat"])) == 1
            put_certificate(other_ca, tmp_path)
            assert len(await new.embed_texts(["a dog"])) == 1
            assert (await refusal(late)).code is grpc.StatusCode.UNAVAILABLE
            assert len(await connected.embed_texts(["a bird"])) == 1
        files["tls_key"].write_text("broken")
        async with client(other_ca) as still:
            assert len(await still.embed_texts(["a fish"])) == 1


async def test_commands_show_key_and_certificates(
    demo_settings: Settings, ca: trustme.CA, tmp_path: Path
) -> None:
    entry, text = ApiKey.generate("app")
    write_keys(tmp_path / "keys.toml", [entry])
    authorities = tmp_path / "ca.crt"
    ca.cert_pem.write_to_path(str(authorities))
    own = put_certificate(ca, tmp_path) | {"tls_client_ca": authorities, "api_keys": tmp_path / "keys.toml"}
    shown = certificate_of(ca)
    (tmp_path / "client.crt").write_bytes(shown["client_certificate"])
    (tmp_path / "client.key").write_bytes(shown["client_key"])
    certificates = ["--ca", str(authorities), "--cert", str(tmp_path / "client.crt")]
    certificates += ["--cert-key", str(tmp_path / "client.key")]
    async with Gateway(demo_settings.model_copy(update=own)) as gateway:
        command = ["models", "--json", "--server", f"127.0.0.1:{gateway.port}", *certificates]

        async def run(**environment: str) -> Any:
            return await asyncio.to_thread(CliRunner().invoke, app, command, env=environment)

        answer = await run(VISIONGATE_API_KEY=text)
        assert answer.exit_code == 0, answer.output
        assert "grounding_dino" in answer.stdout
        refused = await run()
        assert "UNAUTHENTICATED" in str(refused.exception)
