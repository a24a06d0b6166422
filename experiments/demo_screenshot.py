"""Take the pictures of the web demo for its page of the docs: ``python -m experiments.demo_screenshot``."""

from __future__ import annotations

import io
import os
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image

from ppd_agents.serve_command import Serve, address, listening
from ppd_env.errors import PPDError

OUT = Path(__file__).parents[1] / "docs" / "images"
EXAMPLE, BUDGET = 3, 6
"""Which example is attacked, and with how many steps."""

CHROMIUMS = ("chromium", "chromium-headless-shell", "chromium-browser", "google-chrome")
"""Names of programs that are one."""

_PATIENCE = 120_000


@contextmanager
def serving(options: Serve) -> Iterator[str]:
    """Serve the demo on a free port meanwhile; yields its address."""
    import uvicorn

    from ppd_agents.serve_command import make_app

    with listening(options.host, 0) as door:
        server = uvicorn.Server(uvicorn.Config(make_app(options), log_level="warning", lifespan="off"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [door]}, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.05)
        yield address(options.host, door.getsockname()[1])
        server.should_exit = True
        thread.join(10)


def find_chromium() -> str | None:
    """Return the Chromium to drive: that of the variable CHROMIUM, else one on the path, or None."""
    return os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, CHROMIUMS)), None)


def take(out: Path) -> list[Path]:
    """Play one attack and one defence, and take a picture after each.

    Args:
        out: Folder of the pictures.

    Returns:
        The files.

    Raises:
        PPDError: There is no Chromium.
    """
    from playwright.sync_api import expect, sync_playwright

    browser = find_chromium()
    if browser is None:
        raise PPDError("No Chromium was found: apt-get install chromium, or set CHROMIUM=PATH.")
    files = []
    with serving(Serve()) as place, sync_playwright() as player:
        page = player.chromium.launch(executable_path=browser, args=["--no-sandbox"]).new_page(
            viewport={"width": 1180, "height": 1080}, reduced_motion="reduce"
        )
        page.set_default_timeout(_PATIENCE)
        page.goto(place)
        page.locator("#examples button").nth(EXAMPLE).click()
        expect(page.locator("#status")).to_contain_text("pixels", timeout=_PATIENCE)
        page.locator("#budget").fill(str(BUDGET))
        for name, told in (("attack", "The attacker"), ("defend", "The defender")):
            page.locator(f"#{name}").click()
            expect(page.locator("#status")).to_contain_text(told, timeout=_PATIENCE)
            files.append(_kept(page.screenshot(), out / f"demo-{name}.webp"))
    return files


def _kept(shot: bytes, path: Path) -> Path:
    """Keep a screenshot as a small WebP."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture, stored = Image.open(io.BytesIO(shot)).convert("RGB"), io.BytesIO()
    picture.save(stored, "WEBP", quality=80, method=6)
    aside = path.with_suffix(".tmp")
    aside.write_bytes(stored.getvalue())
    aside.replace(path)
    return path


if __name__ == "__main__":
    for written in take(OUT):
        print(written)
