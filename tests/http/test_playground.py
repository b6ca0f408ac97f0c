"""The playground in a real browser, before a real gateway with the demo models."""

import asyncio
import contextlib
import io
import json
from collections.abc import AsyncIterator
from pathlib import Path
from subprocess import PIPE

import numpy as np
import pytest
from playwright.async_api import Browser, async_playwright

from browser import launch
from gateway.api_keys import ApiKey, write_keys
from gateway.http.front import HttpFront
from gateway.http.playground_files import FOLDER
from gateway.server import Gateway
from gateway.settings import Settings
from http_front import serving
from playground_visit import Visit, visiting
from visiongate import AsyncClient

EXAMPLE = FOLDER / "example.jpg"
CIRCLE = (136, 252)
"""Where the red circle of the example picture is, x and y."""
TABS = ("find", "cut", "everything", "text", "gaze", "labels")


@pytest.fixture(scope="module")
async def browser(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Browser]:
    # A film of one picture, with a face in it.
    film = tmp_path_factory.mktemp("camera") / "film.mjpeg"
    film.write_bytes(EXAMPLE.read_bytes())
    async with async_playwright() as playwright:
        browser = await launch(
            playwright.chromium,
            f"--use-file-for-fake-video-capture={film}",
            # A name by which the page comes from another machine, as far as the browser knows.
            "--host-resolver-rules=MAP elsewhere 127.0.0.1",
        )
        yield browser
        await browser.close()


@pytest.fixture(scope="module")
async def site(demo_settings: Settings) -> AsyncIterator[HttpFront]:
    async with serving(demo_settings) as front:
        yield front


@pytest.fixture(scope="module")
async def grpc_address(demo_settings: Settings) -> AsyncIterator[str]:
    """Where another gateway has the same models over gRPC."""
    async with Gateway(demo_settings) as gateway:
        yield f"127.0.0.1:{gateway.port}"


@pytest.fixture(scope="module")
async def client(grpc_address: str) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(grpc_address) as connected:
        yield connected


@pytest.fixture
async def visit(browser: Browser) -> AsyncIterator[Visit]:
    async with visiting(browser) as opened:
        yield opened


async def test_words_become_boxes_and_masks(site: HttpFront, client: AsyncClient, visit: Visit) -> None:
    await visit.open(site.url)
    await visit.page.fill("#find-words", "red circle, yellow star")
    await visit.press("Enter")
    await visit.says("Found 2 things")
    found = await client.segment_phrases(EXAMPLE, ["red circle", "yellow star"])
    captions = [f"{item.phrase} {item.score:.2f}" for item in found]
    assert await visit.texts("#overlay .caption") == captions
    assert await visit.texts("#items li span:not(.detail)") == [item.phrase for item in found]
    masks = [item.mask.pixels for item in found if item.mask]
    np.testing.assert_array_equal(await visit.painted(), masks[0] | masks[1])
    # A thing that is looked at in the list is shown alone.
    for index, mask in enumerate(masks):
        await visit.page.hover(f"#items li:nth-child({index + 1})")
        np.testing.assert_array_equal(await visit.painted(), mask)
        assert await visit.texts("#overlay .caption") == captions[index : index + 1]


async def test_the_layers_lie_exactly_on_the_picture(site: HttpFront, visit: Visit) -> None:
    await visit.open(site.url)
    for width in (1280, 500):
        await visit.page.set_viewport_size({"width": width, "height": 800})
        places = [await visit.page.locator(it).bounding_box() for it in ("#still", "#masks", "#overlay")]
        assert places[0] == places[1] == places[2]
        assert places[0] is not None
        assert places[0]["width"] / places[0]["height"] == pytest.approx(800 / 600, rel=0.01)


async def test_clicks_cut_out_a_thing_and_refine_it(
    site: HttpFront, client: AsyncClient, visit: Visit
) -> None:
    await visit.open(site.url, "cut")
    await visit.says("Ready")
    await visit.click(*CIRCLE)
    await visit.says("object 1")
    sent = visit.asked[-1][1]["prompts"][0]["points"]
    first = [[point["point"]["x"], point["point"]["y"]] for point in sent]
    assert first == [pytest.approx(CIRCLE, abs=1)]
    [[mask]] = await client.segment(EXAMPLE, points=[first])
    np.testing.assert_array_equal(await visit.painted(), mask.pixels)
    assert await visit.text("#status") == f"object 1: {mask.area:,} pixels"

    await visit.click(180, 300, with_shift=True)
    await visit.page.wait_for_selector("#curl:has-text('BACKGROUND')")
    sent = visit.asked[-1][1]["prompts"][0]["points"]
    assert [point["label"] for point in sent] == ["POINT_LABEL_FOREGROUND", "POINT_LABEL_BACKGROUND"]
    both = [[point["point"]["x"], point["point"]["y"]] for point in sent]
    [[refined]] = await client.segment(EXAMPLE, points=[both], labels=[[1, 0]])
    np.testing.assert_array_equal(await visit.painted(), refined.pixels)
    assert refined.area != mask.area
    # The picture was sent once, to be read ahead of time.
    assert ["encoded" in request["image"] for _, request in visit.asked if request] == [True, False, False]

    await visit.page.click("text=Undo")
    await visit.says(f"{mask.area:,}")
    np.testing.assert_array_equal(await visit.painted(), mask.pixels)


async def test_a_box_is_dragged_and_another_object_is_added(
    site: HttpFront, client: AsyncClient, visit: Visit
) -> None:
    await visit.open(site.url, "cut")
    await visit.says("Ready")
    await visit.drag(325, 110, 515, 300)
    await visit.says("object 1")
    await visit.page.click("text=Next object")
    await visit.click(*CIRCLE)
    await visit.says("object 2")
    [star, circle] = visit.asked[-1][1]["prompts"]
    box = [star["box"][name] for name in ("x_min", "y_min", "x_max", "y_max")]
    assert box == pytest.approx([325, 110, 515, 300], abs=1)
    point = circle["points"][0]["point"]
    [[one], [two]] = await client.segment(
        EXAMPLE, boxes=[box, None], points=[None, [[point["x"], point["y"]]]]
    )
    np.testing.assert_array_equal(await visit.painted(), one.pixels | two.pixels)
    await visit.page.click("#cut >> text=Clear")
    await visit.says("Nothing is pointed at")
    assert not (await visit.painted()).any()


async def test_the_keyboard_does_what_the_mouse_does(
    site: HttpFront, client: AsyncClient, visit: Visit
) -> None:
    await visit.open(site.url)
    await visit.page.focus("#tab-find")
    await visit.press("ArrowRight")
    await visit.says("Ready")
    await visit.page.focus("#save")
    await visit.press("Tab")
    assert await visit.page.evaluate("document.activeElement.id") == "stage"
    # From the middle (400, 300) to the star, by steps of 16 pixels.
    await visit.press("ArrowRight", *["ArrowUp"] * 5, "Enter")
    await visit.says("object 1")
    [[mask]] = await client.segment(EXAMPLE, points=[[[416, 220]]])
    np.testing.assert_array_equal(await visit.painted(), mask.pixels)
    await visit.press("Escape")
    await visit.says("Nothing is pointed at")
    await visit.press("b", *["ArrowRight"] * 3, *["ArrowDown"] * 3, "Control+ArrowDown", "b")
    await visit.says("object 1")
    assert visit.asked[-1][1]["prompts"] == [
        {"box": {"x_min": 416, "y_min": 220, "x_max": 464, "y_max": 269}}
    ]


async def test_everything_text_gaze_and_labels(site: HttpFront, client: AsyncClient, visit: Visit) -> None:
    await visit.open(site.url, "everything")
    await visit.page.select_option("#everything select", "8")
    await visit.page.click("#everything .main")
    everything = await client.segment_everything(EXAMPLE, points_per_side=8, min_mask_area=100)
    await visit.says(f"Cut out {len(everything)} thing")
    union = np.any([item.mask.pixels for item in everything], axis=0)
    np.testing.assert_array_equal(await visit.painted(), union)

    await visit.page.click("#tab-text")
    await visit.page.click("#text .main")
    [page] = await client.recognize_text([EXAMPLE])
    await visit.says(f"Read {len(list(page.words()))} words")
    assert await visit.text("#plain-text") == page.text
    assert await visit.page.locator("#overlay polygon").count() == len(list(page.words()))

    await visit.page.click("#tab-gaze")
    await visit.page.click("#gaze .main")
    await visit.says("Found 1 face")
    [face] = await client.estimate_gaze(EXAMPLE)
    yaw, pitch = (round(abs(np.degrees(angle))) for angle in (face.yaw, face.pitch))
    assert face.yaw > 0 > face.pitch
    assert await visit.texts("#overlay .caption") == [f"looks {yaw}° left, {pitch}° down"]

    await visit.page.click("#tab-labels")
    await visit.page.fill("#labels-words", "shapes and a face, a dog")
    await visit.page.click("#labels .main")
    await visit.says("Compared the picture with 2 labels")
    [scores] = await client.classify(
        [EXAMPLE], ["shapes and a face", "a dog"], prompt_template="a photo of {}."
    )
    bars = await visit.page.eval_on_selector_all("#items progress", "all => all.map(it => it.value)")
    assert bars == pytest.approx([score.probability for score in scores], abs=1e-6)
    # One picture, sent once, whatever was asked.
    assert ["encoded" in json.dumps(request) for _, request in visit.asked if request] == [True, *[False] * 3]


async def test_calls_can_be_copied_to_a_shell_and_to_python(
    site: HttpFront, grpc_address: str, visit: Visit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VISIONGATE_SERVER", grpc_address)
    await visit.open(site.url)
    async with visit.page.expect_download() as download:
        await visit.page.click("#save")
    await (await download.value).save_as(tmp_path / "example.jpg")
    assert (tmp_path / "example.jpg").read_bytes() == EXAMPLE.read_bytes()
    for tab in TABS:
        await visit.page.click(f"#tab-{tab}")
        await _ask(visit, tab)
        path, request = visit.asked[-1]
        shown = await (await visit.page.request.post(f"{site.url}/v1/{path}", data=request)).json()
        curl = await asyncio.create_subprocess_exec("bash", "-c", await visit.text("#curl"), stdout=PIPE)
        printed, _ = await curl.communicate()
        assert {**json.loads(printed), "timings": None} == {**shown, "timings": None}
        with contextlib.redirect_stdout(io.StringIO()) as output:
            await asyncio.to_thread(exec, await visit.text("#python"), {})
        assert output.getvalue()


async def _ask(visit: Visit, tab: str) -> None:
    """Ask what a tab asks, and wait for the answer."""
    if tab == "cut":
        await visit.says("Ready")
        await visit.drag(325, 110, 515, 300)
        await visit.page.click("text=Next object")
        await visit.click(*CIRCLE)
        await visit.says("object 2")
        return
    if tab in ("find", "labels"):
        # With what a shell, a form or Python would take for something else.
        await visit.page.fill(f"#{tab}-words", 'red circle, it\'s $HOME; `a` "b" \\, @c')
    if tab == "everything":
        await visit.page.select_option("#everything select", "8")
    await visit.page.click(f"#{tab} .main")
    await visit.page.wait_for_selector("#results:not([hidden])")


async def test_the_camera_is_watched_and_gives_a_picture(site: HttpFront, visit: Visit) -> None:
    await visit.open(site.url, "gaze")
    await visit.page.click("#camera")
    await visit.says("Found 1 face")
    # One frame after the other.
    async with visit.page.expect_response("**/gaze:estimate"):
        pass
    async with visit.page.expect_response("**/gaze:estimate"):
        pass
    assert all("encoded" in request["image"] for path, request in visit.asked if path == "gaze:estimate")
    assert (await visit.text("#overlay .caption")).startswith("looks ")

    await visit.page.click("#tab-find")
    await visit.says("Found 4 things")
    # Masks take too long for a camera.
    assert visit.asked[-1][0] == "objects:detect"
    await visit.page.click("#tab-text")
    await visit.says("Take the picture first")
    count = len(visit.asked)
    await visit.page.click("#snap")
    await visit.page.wait_for_selector("#picture-text:has-text('camera.jpg, 800 × 600')")
    await visit.page.click("#text .main")
    await visit.says("Read 3 words")
    assert [path for path, _ in visit.asked[count:]] == ["text:recognize"]
    assert await visit.page.evaluate("document.getElementById('live').srcObject") is None


async def test_a_page_from_another_machine_says_why_it_has_no_camera(site: HttpFront, visit: Visit) -> None:
    await visit.open(site.url.replace("127.0.0.1", "elsewhere"), "gaze")
    await visit.page.click("#camera")
    assert "only to pages that come over https" in await visit.text("#error-text")
    # The picture stays, and can be asked about.
    await visit.page.click("#gaze .main")
    await visit.says("Found 1 face")
    assert not await visit.page.is_visible("#error")


async def test_what_is_wrong_is_said_in_words(site: HttpFront, visit: Visit, tmp_path: Path) -> None:
    await visit.open(site.url)
    await visit.page.fill("#find-words", " , ")
    await visit.press("Enter")
    assert await visit.text("#error-text") == "Write at least one word to find."
    await visit.page.fill("#find-words", "word " * 300)
    await visit.press("Enter")
    # The server's own sentence, and the name by which its log knows the call.
    await visit.page.wait_for_selector("#error-text:has-text('query.phrases')")
    assert "256" in await visit.text("#error-text")
    assert (await visit.text("#error-id")).startswith("The server's log knows it as ")

    (tmp_path / "notes.txt").write_text("no picture")
    await visit.page.set_input_files("#file", tmp_path / "notes.txt")
    await visit.page.wait_for_selector("#error-text:has-text('cannot show notes.txt')")
    assert "example.jpg" in await visit.text("#picture-text")


async def test_a_page_waits_for_a_server_that_starts(demo_settings: Settings, visit: Visit) -> None:
    front = HttpFront(demo_settings.model_copy(update={"http_port": 0}))
    async with front:
        await visit.page.goto(f"{front.url}/")
        await visit.page.wait_for_selector("#server:has-text('The models are loading')")
        async with Gateway(demo_settings, loopback=front.loopback) as gateway:
            front.begin(gateway)
            await visit.page.wait_for_selector("#server:has-text('Models: ')")
            await visit.page.click("#find .main")
            await visit.says("Found 4 things")
        # And one that is gone, until the user tries again.
    await visit.page.click("#find .main")
    await visit.page.wait_for_selector("#error-text:has-text('cannot be reached')")
    assert await visit.page.is_visible("#again")


async def test_a_key_is_asked_for_and_a_forgotten_picture_is_sent_again(
    demo_settings: Settings, browser: Browser, tmp_path: Path
) -> None:
    key, text = ApiKey.generate("visitor")
    write_keys(tmp_path / "keys.toml", [key])
    forgetful = {"api_keys": tmp_path / "keys.toml", "image_cache_bytes": 0}
    async with serving(demo_settings.model_copy(update=forgetful)) as site, visiting(browser) as visit:
        await visit.page.goto(site.url)
        await visit.page.wait_for_selector("#error-text:has-text('asks for an API key')")
        assert await visit.page.evaluate("document.activeElement.id") == "key"
        await visit.page.keyboard.type("wrong")
        await visit.press("Enter")
        await visit.page.wait_for_selector("#error-text:has-text('does not know that API key')")
        await visit.page.fill("#key", text)
        await visit.press("Enter")
        await visit.page.wait_for_selector("#server:has-text('Models')")
        for _ in range(2):
            visit.asked.clear()
            async with visit.page.expect_response(lambda answer: answer.ok):
                await visit.page.click("#find .main")
            await visit.says("Found 4 things")
        # The second time by its name, which the server does not keep, and then once more in full.
        assert [list(request["image"]) for _, request in visit.asked] == [["image_id"], ["encoded"]]
        # Proxies send all of these calls to one server.
        [name] = visit.image_names
        assert name
        assert "$VISIONGATE_API_KEY" in await visit.text("#curl")
        assert text not in await visit.page.content()


async def test_tabs_without_a_model_say_so(site: HttpFront, visit: Visit) -> None:
    models = [{"task": "text", "family": "doctr", "variant": "demo", "is_default": True}]
    await visit.page.route("**/v1/models", lambda route: route.fulfill(json={"models": models}))
    await visit.open(site.url)
    assert await visit.text("#missing") == ("This server has no model for detection. It has models for text.")
    assert not await visit.page.is_visible("#find .main")
    await visit.page.click("#tab-text")
    await visit.page.click("#text .main")
    await visit.says("Read 3 words")
    assert not await visit.page.is_visible("#missing")


async def test_a_phone_shows_all_of_it(site: HttpFront, browser: Browser) -> None:
    phone = {"viewport": {"width": 360, "height": 740}, "device_scale_factor": 2, "has_touch": True}
    async with visiting(browser, **phone) as visit:
        await visit.open(site.url)
        for tab in TABS:
            await visit.page.tap(f"#tab-{tab}")
            if tab == "cut":
                await visit.says("Ready")
                await visit.page.touchscreen.tap(*await visit.on_screen(*CIRCLE))
                await visit.says("object 1")
            else:
                await _ask(visit, tab)
            # Nothing is wider than the screen, and no caption than the picture.
            assert await visit.page.evaluate("document.documentElement.scrollWidth") == 360
            stage = await visit.page.locator("#stage").bounding_box()
            assert stage
            for tag in await visit.page.locator("#overlay .caption rect").all():
                place = await tag.bounding_box()
                assert place
                assert stage["x"] - 1 < place["x"]
                assert place["x"] + place["width"] < stage["x"] + stage["width"] + 1
