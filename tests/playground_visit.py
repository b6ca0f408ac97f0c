"""A browser that looks at the playground."""

import base64
import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from playwright.async_api import Browser, Page, Request

# Playwright's own, 30 s, is longer than a test of a page should wait for what does not come.
_PATIENCE_MS = 20_000


@dataclass
class Visit:
    """A page that is open, what it asked the server, by which names of images, and what went wrong in it."""

    page: Page
    asked: list[tuple[str, Any]] = field(default_factory=list)
    image_names: set[str] = field(default_factory=set)
    faults: list[str] = field(default_factory=list)

    def note(self, request: Request) -> None:
        if "/v1/" in request.url:
            self.asked.append((request.url.rpartition("/")[2], request.post_data_json))
            if request.method == "POST":
                self.image_names.add(request.headers.get("x-image-id", ""))

    async def open(self, url: str, tab: str = "find") -> None:
        """Open the page at a tab, and wait for its picture and the models."""
        await self.page.goto(f"{url}/#{tab}")
        await self.page.wait_for_selector("#picture-text:has-text('example.jpg')")
        await self.page.wait_for_selector("#server:has-text('Models')")

    async def says(self, words: str) -> str:
        """Wait until the status has these words; return all of it."""
        await self.page.wait_for_selector(f"#status:has-text('{words}')")
        return await self.text("#status")

    async def text(self, selector: str) -> str:
        return await self.page.text_content(selector) or ""

    async def texts(self, selector: str) -> list[str]:
        return await self.page.locator(selector).all_text_contents()

    async def press(self, *keys: str) -> None:
        for key in keys:
            await self.page.keyboard.press(key)

    async def on_screen(self, x: float, y: float) -> tuple[float, float]:
        """Return where on the screen a pixel of the picture is."""
        place = await self.page.locator("#still").bounding_box()
        assert place is not None
        size: list[int] = await self.page.eval_on_selector(
            "#still", "it => [it.naturalWidth, it.naturalHeight]"
        )
        return place["x"] + x * place["width"] / size[0], place["y"] + y * place["height"] / size[1]

    async def click(self, x: float, y: float, *, with_shift: bool = False) -> None:
        """Click on a pixel of the picture."""
        if with_shift:
            await self.page.keyboard.down("Shift")
        await self.page.mouse.click(*await self.on_screen(x, y))
        if with_shift:
            await self.page.keyboard.up("Shift")

    async def drag(self, x_min: float, y_min: float, x_max: float, y_max: float) -> None:
        """Drag a box over the picture."""
        await self.page.mouse.move(*await self.on_screen(x_min, y_min))
        await self.page.mouse.down()
        await self.page.mouse.move(*await self.on_screen(x_max, y_max), steps=3)
        await self.page.mouse.up()

    async def painted(self) -> NDArray[np.bool_]:
        """Return which pixels of the picture are painted, bool [H, W]."""
        layer: str = await self.page.eval_on_selector("#masks", "it => it.toDataURL()")
        with Image.open(io.BytesIO(base64.b64decode(layer.partition(",")[2]))) as image:
            return np.asarray(image.convert("RGBA"))[:, :, 3] > 0


@asynccontextmanager
async def visiting(browser: Browser, **options: Any) -> AsyncIterator[Visit]:
    """Open an empty page inside. A fault of its scripts, or what its policy forbids, fails the test."""
    context = await browser.new_context(**({"viewport": {"width": 1280, "height": 900}} | options))
    page = await context.new_page()
    page.set_default_timeout(_PATIENCE_MS)
    visit = Visit(page)
    page.on("request", visit.note)
    page.on("pageerror", lambda error: visit.faults.append(str(error)))
    page.on("console", lambda line: visit.faults.append(line.text) if "Policy" in line.text else None)
    try:
        yield visit
    finally:
        await context.close()
    assert not visit.faults
