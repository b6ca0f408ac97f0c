"""A page of thumbnails in a real browser, opened as a file."""

from pathlib import Path

from PIL import Image
from playwright.async_api import Request, async_playwright

from browser import launch
from visiongate.folders.page import Section, Tile, write_page

TAKE = "document.title='taken'"
EVIL = f"<img src=https://example.com/a.png onerror={TAKE}><script>{TAKE}</script>"


async def test_a_browser_shows_it_and_asks_nobody(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    pictures = [Tile(Image.new("RGB", (300, 200), "red"), EVIL, badge=EVIL, detail="long" * 40)] * 9
    write_page(path, EVIL, [Section(EVIL, EVIL, [*pictures, Tile(b"broken", "broken")])], note=EVIL)
    asked: list[str] = []
    said: list[str] = []

    def note_request(request: Request) -> None:
        asked.append(request.url)

    async with async_playwright() as playwright:
        browser = await launch(playwright.chromium)
        # As wide as a phone.
        page = await browser.new_page(viewport={"width": 390, "height": 800})
        page.on("request", note_request)
        page.on("console", lambda message: said.append(message.text))
        await page.goto(path.as_uri(), wait_until="load")
        widths = await page.eval_on_selector_all("img", "images => images.map(image => image.naturalWidth)")
        columns = await page.evaluate(
            "getComputedStyle(document.querySelector('.tiles')).gridTemplateColumns"
        )
        is_too_wide = await page.evaluate("document.documentElement.scrollWidth > innerWidth")
        title = await page.title()
        await browser.close()
    assert widths == [240] * 9
    # The style is in force: the policy knows it.
    assert len(columns.split()) == 2
    assert not is_too_wide
    assert title == EVIL
    assert [url for url in asked if not url.startswith("data:")] == [path.as_uri()]
    assert said == []
