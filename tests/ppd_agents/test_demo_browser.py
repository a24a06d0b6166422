"""The web demo end to end in a real, headless Chromium: clicks, attack, defence, files, keys, a phone."""

import io
import socket
import threading
import time

import numpy as np
import pytest
from demo_models import examples, studio
from demo_web import NEEDED, server, uvicorn
from PIL import Image

from experiments.demo_screenshot import find_chromium
from ppd_agents.refining import read_points

api = pytest.importorskip("playwright.sync_api", reason=NEEDED)
CHROMIUM = find_chromium()
if CHROMIUM is None:
    pytest.skip("no Chromium found: apt-get install chromium, or set CHROMIUM=PATH", allow_module_level=True)

NOTHING = "\u2013"
"""What stands where there is no number yet, an en dash."""

PATIENCE = 60_000
"""Milliseconds; a busy machine is slow."""


@pytest.fixture(scope="module")
def running():
    """The server on a free port, in a thread."""
    shown = server()
    with socket.create_server(("127.0.0.1", 0)) as door:
        config = uvicorn.Config(shown.app("127.0.0.1"), log_level="warning", lifespan="off")
        web = uvicorn.Server(config)
        thread = threading.Thread(target=web.run, kwargs={"sockets": [door]}, daemon=True)
        thread.start()
        while not web.started:
            time.sleep(0.01)
        shown.address = f"http://127.0.0.1:{door.getsockname()[1]}/"
        yield shown
        web.should_exit = True
        thread.join(10)


@pytest.fixture(scope="module")
def browser():
    with api.sync_playwright() as player:
        found = player.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture
def page(browser, running):
    """A fresh visitor who wants no animation; whatever the page complains about fails the test."""
    context = browser.new_context(
        viewport={"width": 1100, "height": 800}, reduced_motion="reduce", accept_downloads=True
    )
    found = context.new_page()
    found.set_default_timeout(PATIENCE)
    complaints = []
    found.on("pageerror", lambda error: complaints.append(str(error)))
    found.on("requestfailed", lambda request: complaints.append(f"{request.url}: {request.failure}"))
    found.on("request", lambda request: complaints.append(request.url) if is_foreign(request.url) else None)
    found.goto(running.address)
    yield found
    context.close()
    assert [said for said in complaints if "ERR_ABORTED" not in said] == []


def is_foreign(url):
    return not url.startswith(("http://127.0.0.1:", "data:", "blob:"))


def expect(page, place):
    return api.expect(page.locator(place))


def take_example(page, index=0):
    page.locator("#examples button").nth(index).click()
    expect(page, "#status").to_contain_text("shapes-test", timeout=PATIENCE)


def pixels(page):
    """What the canvas shows."""
    shot = page.locator("#canvas").screenshot()
    return np.asarray(Image.open(io.BytesIO(shot)).convert("RGB")).astype(int)


def click(page, x, y, **options):
    """Click on a pixel of the picture, 256 x 256 in size."""
    box = page.locator("#canvas").bounding_box()
    at = {"x": x / 256 * box["width"], "y": y / 256 * box["height"]}
    page.locator("#canvas").click(position=at, **options)


def score(page, name):
    return float(page.locator(name).inner_text())


def test_clicks_change_the_mask(page):
    take_example(page)
    empty = pixels(page)
    click(page, 150, 60)
    expect(page, "#count").to_have_text("1", timeout=PATIENCE)
    expect(page, "#dice").not_to_have_text(NOTHING, timeout=PATIENCE)
    wanted = studio().segment(examples()[0].picture(), [[150, 60]], [1])
    assert score(page, "#dice") == pytest.approx(wanted.dice, abs=0.03)  # a click is exact to a screen pixel
    one = pixels(page)
    changed = (np.abs(one - empty).sum(axis=2) > 20).mean()
    assert changed > 0.8 * wanted.mask.mean()
    click(page, 40, 200, button="right")
    expect(page, "#count").to_have_text("2", timeout=PATIENCE)
    assert (np.abs(pixels(page) - one).sum(axis=2) > 20).any()
    click(page, 40, 200)  # on the point: it goes
    expect(page, "#count").to_have_text("1", timeout=PATIENCE)
    page.locator("#undo").click()
    expect(page, "#count").to_have_text("2", timeout=PATIENCE)
    page.locator("#clear").click()
    expect(page, "#count").to_have_text("0", timeout=PATIENCE)
    expect(page, "#dice").to_have_text(NOTHING, timeout=PATIENCE)
    assert (np.abs(pixels(page) - empty).sum(axis=2) > 20).mean() < 0.001


def test_attack_breaks_the_mask_and_defence_removes_points_one_by_one(page):
    take_example(page)
    expect(page, "#defend").to_be_disabled()
    page.locator("#budget").fill("5")
    expect(page, "#budget-value").to_have_text("5")
    page.locator("#attack").click()
    expect(page, "#status").to_contain_text("The attacker added 5 points", timeout=PATIENCE)
    lines = page.locator("#steps li:not(.phase)")
    assert lines.count() == 5
    steps = [float(text) for text in page.locator("#steps b").all_inner_texts()]
    assert score(page, "#dice") == steps[-1]
    assert steps[-1] < 0.5
    points = int(page.locator("#count").inner_text())
    page.locator("#defend").click()
    expect(page, "#status").to_contain_text("The defender removed points in", timeout=PATIENCE)
    removed = points - int(page.locator("#count").inner_text())
    assert 1 <= removed <= 5
    assert lines.count() == 5 + removed
    assert "removed" in lines.last.inner_text()
    assert page.locator("#chart polyline").count() == 2
    expect(page, "#attack").to_be_enabled()


def test_steps_can_be_watched_and_stopped(page, browser, running):
    page.emulate_media(reduced_motion="no-preference")
    take_example(page)
    page.locator("#budget").fill("60")
    page.locator("#attack").click()
    expect(page, "#steps li:nth-child(3)").to_be_visible(timeout=PATIENCE)
    expect(page, "#attack").to_be_hidden()
    page.locator("#stop").click()
    expect(page, "#status").to_contain_text("stopped by you", timeout=PATIENCE)
    expect(page, "#attack").to_be_enabled()
    assert page.locator("#steps li").count() < 40


def test_downloads_fit_ppd_refine(page, tmp_path):
    take_example(page)
    click(page, 150, 60)
    click(page, 30, 220, modifiers=["Shift"])
    expect(page, "#count").to_have_text("2", timeout=PATIENCE)
    saved = {}
    for name in ("points.json", "mask.png", "overlay.png"):
        with page.expect_download() as waiting:
            page.locator(f'[data-download="{name}"]').click()
        assert waiting.value.suggested_filename == name
        saved[name] = tmp_path / name
        waiting.value.save_as(saved[name])
    points, labels = read_points(saved["points.json"])
    assert np.abs(points - [[150, 60], [30, 220]]).max() < 1
    assert labels.tolist() == [1, 0]
    mask = np.asarray(Image.open(saved["mask.png"]))
    wanted = studio().segment(examples()[0].picture(), points, labels).mask
    assert ((mask == 255) != wanted).mean() < 1e-3  # sums of another thread may differ in their last bit
    alone = studio().segment(examples()[0].picture(), points[:1], labels[:1]).mask
    assert ((mask == 255) != alone).mean() > 1e-2
    assert Image.open(saved["overlay.png"]).size[0] == 512


def test_own_files_and_bad_ones(page, tmp_path):
    picture = Image.fromarray(examples()[0].scene().image)
    picture.save(tmp_path / "mine.png")
    (tmp_path / "bad.png").write_bytes(b"no picture")
    Image.fromarray(examples()[0].scene().mask).save(tmp_path / "mask.png")
    page.locator("#file").set_input_files(tmp_path / "bad.png")
    expect(page, "#error").to_contain_text("bad.png: is not an image", timeout=PATIENCE)
    page.locator("#file").set_input_files(tmp_path / "mine.png")
    expect(page, "#status").to_contain_text("mine.png, 256 \u00d7 256 pixels", timeout=PATIENCE)
    expect(page, "#error").to_be_hidden()
    expect(page, "#attack").to_be_disabled()
    click(page, 150, 60)
    expect(page, "#iou").not_to_have_text(NOTHING, timeout=PATIENCE)
    page.locator("#defend").click()  # without a ground truth it is watched by the predicted IoU
    expect(page, "#status").to_contain_text("Predicted IoU", timeout=PATIENCE)
    page.locator("#truth-file").set_input_files(tmp_path / "mask.png")
    expect(page, "#dice").not_to_have_text(NOTHING, timeout=PATIENCE)
    expect(page, "#attack").to_be_enabled()


def test_points_are_proposed_from_a_reference(page, tmp_path):
    scene = examples()[1].scene()
    Image.fromarray(scene.image).save(tmp_path / "reference.png")
    Image.fromarray(scene.mask).save(tmp_path / "its mask.png")
    take_example(page)
    expect(page, "#propose").to_be_disabled()
    page.locator("#reference").select_option(label=examples()[1].name)
    expect(page, "#reference-shown img:last-child").to_be_visible(timeout=PATIENCE)
    page.locator("#propose").click()
    expect(page, "#status").to_contain_text("points proposed by matching", timeout=PATIENCE)
    proposed = page.locator("#count").inner_text()
    wanted = studio().propose(examples()[0].picture(), "matching", examples()[1].picture())
    assert proposed == str(len(wanted.labels))
    expect(page, "#matched").to_be_checked()
    page.locator("#defend").click()
    expect(page, "#status").to_contain_text("The defender removed points in", timeout=PATIENCE)
    *_, left, _ = studio().defend(examples()[0].picture(), wanted.points, wanted.labels, 10, matched=True)
    expect(page, "#count").to_have_text(str(len(left.labels)))
    for button in ("#clear", "#attack"):
        page.locator(button).click()
        expect(page, "#matched").not_to_be_checked(timeout=PATIENCE)
        expect(page, "#undo").to_be_enabled(timeout=PATIENCE)
        page.locator("#undo").click()
        expect(page, "#matched").to_be_checked()
        expect(page, "#count").to_have_text(str(len(left.labels)), timeout=PATIENCE)
    page.locator("#clear").click()
    page.locator("#reference").select_option("own")
    expect(page, "#propose").to_be_disabled()
    page.locator("#reference-image-file").set_input_files(tmp_path / "reference.png")
    expect(page, "#reference-mask").to_be_enabled(timeout=PATIENCE)
    page.locator("#reference-mask-file").set_input_files(tmp_path / "its mask.png")
    page.locator("#propose").click()
    expect(page, "#count").to_have_text(proposed, timeout=PATIENCE)


def test_the_keyboard_is_enough(page):
    page.locator("#examples button").first.focus()
    page.keyboard.press("Enter")
    expect(page, "#status").to_contain_text("shapes-test", timeout=PATIENCE)
    page.locator("#canvas").focus()
    for key in ("ArrowRight", "ArrowUp", "Shift+ArrowUp", "Enter"):
        page.keyboard.press(key)
    expect(page, "#count").to_have_text("1", timeout=PATIENCE)
    page.keyboard.press("n")
    expect(page, '[name="sign"][value="0"]').to_be_checked()
    page.keyboard.press("Shift+ArrowDown")
    page.keyboard.press("Shift+ArrowDown")
    page.keyboard.press("Space")
    expect(page, "#count").to_have_text("2", timeout=PATIENCE)
    page.keyboard.press("Backspace")
    expect(page, "#count").to_have_text("1", timeout=PATIENCE)


def test_a_picture_put_away_by_the_server_is_brought_again(page, running):
    take_example(page)
    click(page, 150, 60)
    expect(page, "#count").to_have_text("1", timeout=PATIENCE)
    running.shelf._held.clear()
    click(page, 40, 200, button="right")
    expect(page, "#count").to_have_text("2", timeout=PATIENCE)
    expect(page, "#error").to_be_hidden()


def test_two_visitors_see_their_own_pictures(page, browser, running):
    other = browser.new_context(viewport={"width": 900, "height": 700}).new_page()
    other.goto(running.address)
    take_example(page, 0)
    take_example(other, 1)
    click(page, 150, 60)
    click(other, 100, 100, button="right")
    click(other, 120, 120)
    expect(page, "#count").to_have_text("1", timeout=PATIENCE)
    expect(other, "#count").to_have_text("2", timeout=PATIENCE)
    assert examples()[0].name in page.locator("#status").inner_text()
    assert examples()[1].name in other.locator("#status").inner_text()
    other.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_everything_without_scrolling_sideways(browser, running, scheme):
    phone = browser.new_context(
        viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True, color_scheme=scheme
    ).new_page()
    phone.goto(running.address)
    phone.locator("#examples button").first.tap()
    expect(phone, "#status").to_contain_text("shapes-test", timeout=PATIENCE)
    phone.locator("#canvas").tap(position={"x": 150, "y": 80})
    expect(phone, "#count").to_have_text("1", timeout=PATIENCE)
    for place in ("main", "#canvas", "#attack", "#propose", "#examples"):
        box = phone.locator(place).bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 360.5, place
    shot = np.asarray(Image.open(io.BytesIO(phone.screenshot())).convert("L"))
    assert (shot[-5:, :5].mean() > 128) == (scheme == "light")
    phone.context.close()
