"""Pictures of the panel: ``python tests/panel/shot.py FOLDER``; ``docs/panel.png`` is its ``dark-now.png``."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

VIEWS = ("now", "play", "presets", "devices", "midi")


def main(target: Path) -> None:
    """Every view, dark and light, and on a phone."""
    here = Path(__file__).resolve().parent
    sys.path[:0] = [str(here), str(here.parent)]
    from playwright.sync_api import sync_playwright
    from stage import CHROMIUM, FLAGS, playing, speech
    from support import Jack

    target.mkdir(parents=True, exist_ok=True)
    os.environ["RTGAN_CONFIG_DIR"] = tempfile.mkdtemp()
    work = Path(tempfile.mkdtemp())
    jack = Jack(256, wait=True)
    try:
        with playing(jack, work) as stage, speech(jack, work), sync_playwright() as play:
            browser = play.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
            for name, (width, height), theme in (
                ("dark", (1280, 800), "dark"),
                ("light", (1280, 800), "light"),
                ("phone", (390, 844), "dark"),
            ):
                page = browser.new_page(
                    viewport={"width": width, "height": height}, color_scheme=theme, reduced_motion="reduce"
                )
                page.goto(stage.url)
                page.wait_for_selector("#strips .control", state="attached")
                time.sleep(11)  # until the spectrograms are full
                stage.do("reset")
                time.sleep(0.5)
                for view in VIEWS:
                    page.click(f"#tab-{view}")
                    page.mouse.move(0, 0)
                    time.sleep(0.3)
                    page.screenshot(path=target / f"{name}-{view}.png")
                page.close()
            browser.close()
    finally:
        jack.end_clients()
        jack.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
