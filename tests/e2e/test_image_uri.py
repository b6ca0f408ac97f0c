"""Images by URI through a real gateway, from a real HTTPS server."""

import io
from collections.abc import AsyncIterator
from functools import partial

import grpc
import numpy as np
import pytest
import trustme
from PIL import Image

from gateway.fetch import Fetcher
from gateway.pipelines import image_loading
from gateway.server import Gateway
from gateway.settings import Settings
from https_site import PRIVATE, PUBLIC, HttpsSite, file_answer, https_site, status_answer, trusting
from visiongate import AsyncClient, VisiongateError

ADDRESSES = {"images.example": [PUBLIC], "inner.example": [PRIVATE]}


def png(colour: tuple[int, int, int]) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (40, 30), colour).save(file, "PNG")
    return file.getvalue()


PHOTO = png((200, 30, 30))


async def resolve(host: str, port: int) -> list[str]:
    return ADDRESSES[host]


@pytest.fixture
async def client(
    demo_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[AsyncClient, HttpsSite]]:
    """A client of a gateway that may fetch from a site."""
    authority = trustme.CA()
    answers = {
        "/photo.png": file_answer(PHOTO),
        "/page.html": file_answer(b"<html>", Content_Type="text/html"),
        "/large.png": file_answer(PHOTO + bytes(2000)),
        "/gone.png": status_answer("404 Not Found"),
    }
    fetcher = partial(
        Fetcher,
        resolve=resolve,
        is_allowed=lambda address: str(address) == PUBLIC,
        ssl_context=trusting(authority),
    )
    monkeypatch.setattr(image_loading, "Fetcher", fetcher)
    async with https_site(authority, PUBLIC, *ADDRESSES, answers=answers) as site:
        hosts = tuple(f"{name}:{site.port}" for name in ADDRESSES)
        settings = demo_settings.model_copy(update={"uri_hosts": hosts, "max_image_bytes": 2000})
        async with Gateway(settings) as gateway, AsyncClient(f"127.0.0.1:{gateway.port}") as connected:
            yield connected, site


async def test_a_uri_is_the_image_it_leads_to(client: tuple[AsyncClient, HttpsSite]) -> None:
    connected, site = client
    uri = f"https://images.example:{site.port}/photo.png"
    by_uri = await connected.encode_image(uri)
    assert (by_uri.width, by_uri.height) == (40, 30)
    assert by_uri.image_id == (await connected.encode_image(PHOTO)).image_id
    # Kept like one that was sent.
    (mask,), (again,) = [
        (await connected.segment(image, boxes=[[5, 5, 20, 20]]))[0] for image in (by_uri, PHOTO)
    ]
    assert mask.rle == again.rle
    assert site.paths == ["/photo.png"]
    embeddings = await connected.embed_images([uri, PHOTO])
    np.testing.assert_array_equal(embeddings[0], embeddings[1])


@pytest.mark.parametrize(
    ("uri", "code", "reason", "says"),
    [
        ("https://evil.example:{port}/photo.png", "INVALID_ARGUMENT", "", "does not allow"),
        ("https://images.example:{port}/page.html", "INVALID_ARGUMENT", "", "not an image"),
        ("https://images.example:{port}/large.png", "INVALID_ARGUMENT", "", "limit is 2000"),
        ("https://images.example:{port}/gone.png", "FAILED_PRECONDITION", "IMAGE_NOT_FETCHED", "404"),
        ("https://inner.example:{port}/photo.png", "FAILED_PRECONDITION", "IMAGE_NOT_FETCHED", "public"),
    ],
)
async def test_what_is_wrong_with_a_uri(
    client: tuple[AsyncClient, HttpsSite], uri: str, code: str, reason: str, says: str
) -> None:
    connected, site = client
    with pytest.raises(VisiongateError) as caught:
        await connected.embed_images([PHOTO, uri.format(port=site.port)])
    assert caught.value.code is grpc.StatusCode[code]
    assert (caught.value.field, caught.value.reason) == ("images[1].uri", reason)
    assert says in caught.value.message


async def test_uris_are_off_by_default(demo_client: AsyncClient) -> None:
    with pytest.raises(VisiongateError) as caught:
        await demo_client.detect("https://images.example/photo.png", ["dog"])
    assert (caught.value.code, caught.value.field) == (grpc.StatusCode.INVALID_ARGUMENT, "image.uri")
    assert "not taken by this server" in caught.value.message
