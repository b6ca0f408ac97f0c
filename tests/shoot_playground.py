"""Takes the picture of the playground that gateway/HTTP.md shows."""

import asyncio
import io
from pathlib import Path

from PIL import Image
from playwright.async_api import async_playwright

from browser import launch
from export.demo.serving import REPOSITORY
from gateway.embedded import EmbeddedTriton
from gateway.settings import Settings
from http_front import serving
from playground_visit import visiting

PICTURE = Path(__file__).parents[1] / "gateway" / "playground.png"


async def shoot(triton: EmbeddedTriton) -> bytes:
    """Return a PNG of the page with an answer."""
    settings = Settings(triton=triton.grpc_address, repository=REPOSITORY, port=0, grace_s=0)
    async with async_playwright() as playwright, serving(settings) as site:
        browser = await launch(playwright.chromium)
        async with visiting(browser, viewport={"width": 1280, "height": 800}) as visit:
            await visit.open(site.url)
            # The second answer shows the times of a server that is warm.
            for _ in range(2):
                async with visit.page.expect_response(lambda answer: answer.ok):
                    await visit.page.click("#find .main")
                await visit.says("Found 4 things")
            await visit.page.mouse.move(0, 0)
            return await visit.page.screenshot()


if __name__ == "__main__":
    with EmbeddedTriton(REPOSITORY) as server:
        picture = asyncio.run(shoot(server))
    with Image.open(io.BytesIO(picture)) as screen:
        screen.convert("RGB").save(PICTURE, optimize=True)
