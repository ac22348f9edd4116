"""The moving spectrogram: the graphics processor's picture is the plain canvas'."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rtgan.panel

STATIC = Path(rtgan.panel.__file__).parent / "static"
PAGE = """<!doctype html><html data-theme="dark"><body style="margin:0">
<canvas id="one" style="width:600px;height:160px;display:block"></canvas>
<script type="module">
import { Spectrogram } from "/scope.js";
const picture = new Spectrogram(document.getElementById("one"));
// More columns than there is room for: ramps in frequency, brighter with time.
for (let k = 0; k < 750; k++) picture.add(Uint8Array.from({ length: 160 }, (_, b) => ((b + k) / 910) * 255));
window.picture = picture;
window.pixels = () => {
  picture.draw();
  const copy = new OffscreenCanvas(600, 160).getContext("2d");
  copy.drawImage(picture.canvas, 0, 0, 600, 160);
  return [...copy.getImageData(0, 0, 600, 160).data];
};
</script>"""
FLAGS = ["--no-sandbox", "--no-first-run", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
#: A processor that only imitates one passes for one.
ALLOWED = """
const get = WebGL2RenderingContext.prototype.getParameter;
WebGL2RenderingContext.prototype.getParameter = function (name) {
  return name === 0x9246 ? "A graphics card" : get.call(this, name);
};
"""


def picture(browser: Any, script: str, ink: str, theme: str = "") -> np.ndarray[Any, Any]:
    page = browser.new_page()
    page.add_init_script(script)
    page.route("http://panel.test/", lambda route: route.fulfill(content_type="text/html", body=PAGE))
    page.route("http://panel.test/scope.js", lambda route: route.fulfill(path=STATIC / "scope.js"))
    page.goto("http://panel.test/")
    page.wait_for_function("window.pixels")
    assert page.eval_on_selector("#one", "c => c.dataset.ink") == ink
    if theme:
        page.evaluate("theme => { document.documentElement.dataset.theme = theme; picture.recolour(); }", theme)
    if ink == "gpu":
        # What a driver that starts again does.
        page.evaluate(
            """async () => {
              const lost = picture.ink.gl.getExtension("WEBGL_lose_context");
              const back = new Promise((done) => picture.canvas.addEventListener("webglcontextrestored", done));
              const gone = new Promise((done) => picture.canvas.addEventListener("webglcontextlost", done));
              lost.loseContext();
              await gone;
              picture.draw();
              await new Promise((done) => setTimeout(done));
              lost.restoreContext();
              await back;
            }"""
        )
    found = np.array(page.evaluate("pixels()"), np.int32).reshape(160, 600, 4)[..., :3]
    page.close()
    return found


@pytest.mark.slow
@pytest.mark.parametrize("theme", ["dark", "light"])
def test_both_inks_draw_the_same_picture(chromium: Any, theme: str) -> None:
    plain = picture(chromium, "", "plain", theme)
    assert np.abs(plain[0, 300] - plain[-1, 0]).max() > 50, "there is a picture"
    assert np.abs(picture(chromium, ALLOWED, "gpu", theme) - plain).max() <= 6
