"""The panel as a person meets it: a real Chromium, a real ``rtgan live``, a real JACK server."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tarfile
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from stage import Stage, control, shown

from rtgan import presets

pytestmark = [pytest.mark.jack, pytest.mark.slow]

Page = Any
AXE = "https://registry.npmjs.org/axe-core/-/axe-core-4.10.3.tgz"


def heard_db(stage: Stage, seconds: int = 2) -> float:
    """Level of what the host puts out now, captured by JACK's own recorder."""
    file = stage.folder / "heard.wav"
    subprocess.run(
        ["jack_rec", "-f", str(file), "-d", str(seconds), "-b", "24", "PortAudio:out_0"],
        env=stage.jack.env, check=True, capture_output=True, timeout=60,
    )  # fmt: skip
    samples, _ = soundfile.read(file, dtype="float32")
    return float(10 * np.log10(np.mean(samples**2) + 1e-12))


def test_a_control_that_is_turned_is_heard_and_all_pages_show_it(stage: Stage, open_page: Callable[..., Page]) -> None:
    first, second = open_page(), open_page()
    first.click("#tab-play")
    before = heard_db(stage)
    drive = control(first, "host.volume_db", "range")
    drive.focus()
    volume = 0.0
    for _ in range(4):
        first.keyboard.press("PageDown")
        volume = stage.wait("/api/values", lambda v, at=volume: v["host.volume_db"] < at - 5)["host.volume_db"]
    assert before - heard_db(stage) == pytest.approx(-volume, abs=6)
    shown(second, "#volume .value").to_have_value(f"{volume:g}")
    # Text, with its range; what is out of range is not taken.
    field = first.locator("#strips [data-name='denoise.amount_db'] .value")
    field.fill("12,5")
    field.press("Enter")
    stage.wait("/api/values", lambda v: v["denoise.amount_db"] == 12.5)
    for each in first.locator("[data-name='denoise.amount_db'] .value").all():
        assert each.input_value() in ("12,5", "12.5"), "wherever it stands"
    field.fill("1000")
    field.press("Enter")
    assert field.get_attribute("aria-invalid") is not None
    field.press("Escape")
    assert field.input_value() == "12.5"
    # Double-click brings the default back; a switch is a switch; what others change is shown.
    control(first, "denoise.amount_db", "range").dblclick()
    default = stage.ask("/api/chain")[1]["strips"][1]["params"]["denoise.amount_db"]["default"]
    stage.wait("/api/values", lambda v: v["denoise.amount_db"] == default)
    control(first, "denoise.bypass", "checkbox").click()
    stage.wait("/api/values", lambda v: v["denoise.bypass"] == 1)
    stage.do("set", name="highpass.cutoff_hz", value=200)
    for page in (first, second):
        shown(page, "#strips [data-name='highpass.cutoff_hz'] .value").to_have_value("200")
        shown(page, "#strips [data-name='denoise.bypass'] input").to_be_checked()
        shown(page, "#edited").to_be_visible()


def test_what_is_always_in_reach(stage: Stage, open_page: Callable[..., Page]) -> None:
    page = open_page(viewport={"width": 390, "height": 844})
    for view in ("now", "play", "presets", "midi"):
        page.click(f"#tab-{view}")
        for button in ("panic", "mute", "bypass", "record", "lock"):
            box = page.locator(f"#{button}").bounding_box()
            assert box["y"] + box["height"] <= 844
            assert box["height"] >= 44
        assert page.evaluate("Math.max(...['html', 'main'].map((e) => document.querySelector(e).scrollWidth))") <= 390
    page.click("#mute")
    page.wait_for_selector("#mute[aria-pressed=true]")
    stage.wait("/api/values", lambda v: v["host.mute"] == 1)
    assert heard_db(stage, 1) < -100
    page.click("#mute")
    page.click("#bypass")
    stage.wait("/api/values", lambda v: v["host.mute"] == 0 and v["host.bypass"] == 1)
    page.click("#panic")
    page.click("#record")
    page.wait_for_selector("#record[aria-pressed=true]")
    assert page.locator("#record-text").inner_text().startswith("00:0")
    for button in ("record", "mark", "lock", "bypass", "mute", "panic"):
        assert page.locator(f"#{button}").bounding_box()["width"] >= 44
    page.click("#mark")
    page.click("#record")
    stage.wait("/api/stats", lambda s: s["recording"] is None)
    assert soundfile.info(next((stage.folder / "takes").glob("take-*.wav"))).frames > 0
    page.click("#lock")
    page.click("#tab-play")
    page.wait_for_selector("#strips [data-name='denoise.amount_db'] input[type=range]:disabled")
    assert page.locator("#volume input[type=range]").is_enabled()


def test_presets_are_found_loaded_and_saved(stage: Stage, open_page: Callable[..., Page]) -> None:
    page, other = open_page(), open_page()
    page.click("#tab-presets")
    page.fill("#search", "low-lat")
    assert page.locator("#list button").count() == 1
    page.locator("#list button").click()
    for each in (page, other):
        shown(each, "h1").to_have_text("Stage")
    page.fill("#search", "")
    page.wait_for_selector("#list [aria-current]:has-text('Stage')")
    assert page.locator("#save").is_disabled()
    stage.do("set", name="denoise.amount_db", value=7)
    page.wait_for_selector("#edited:visible")
    page.fill("#save-name", "My stage")
    page.click("text=Save as")
    page.wait_for_selector("#edited", state="hidden")
    page.wait_for_selector("#list [aria-current]:has-text('My stage'):has-text('yours')")
    assert presets.load("my-stage").values()["denoise.amount_db"] == 7
    page.fill("#save-name", "My stage")
    page.click("text=Save as")
    page.wait_for_selector("#toasts:has-text('there is a preset my-stage already')")
    page.click("#next")
    shown(page, "h1").not_to_have_text("My stage")


def test_presets_are_renamed_deleted_and_brought_back(stage: Stage, open_page: Callable[..., Page]) -> None:
    page, other = open_page(), open_page()
    page.click("#tab-presets")
    page.fill("#save-name", "Club")
    page.click("text=Save as")
    page.click("[aria-label='Rename Club']")
    page.keyboard.type("The Bar")
    page.keyboard.press("Enter")
    for each in (page, other):
        shown(each, "h1").to_have_text("The Bar")
    page.wait_for_selector("#list [aria-current]:has-text('The Bar')")
    page.click("[aria-label='Rename The Bar']")
    page.keyboard.press("Escape")
    page.click("[aria-label='Delete The Bar']")
    page.wait_for_selector("[data-id='the-bar']", state="detached")
    shown(page, "#save").to_be_disabled()
    shown(other, "#undo").to_have_attribute("title", "Undo: delete the-bar")
    other.click("#undo")
    page.wait_for_selector("#list [aria-current]:has-text('The Bar')")
    page.keyboard.press("Control+z")
    shown(page, "h1").to_have_text("Club")
    page.keyboard.press("Control+Shift+z")
    shown(page, "h1").to_have_text("The Bar")
    # The factory's have no such buttons; one's own of the same name says that it stands in front.
    assert page.locator("[aria-label='Delete Clean']").count() == 0
    page.fill("#save-name", "Clean")
    page.click("text=Save as")
    page.wait_for_selector("[data-id='clean']:has-text('in front of the factory')")
    page.fill("#search", "front no such")
    shown(page, "#none").to_be_visible()
    page.fill("#search", "")
    page.click("#lock")
    shown(page, "[aria-label='Delete Clean']").to_be_disabled()
    shown(page, "#undo").to_be_disabled()


def test_a_and_b_are_compared_and_keep_their_edits(stage: Stage, open_page: Callable[..., Page]) -> None:
    page, other = open_page(), open_page()
    page.click("#tab-play")
    stage.do("morph", position=40)
    shown(page, ".morph input").to_have_value("40")
    # Somebody else moves the fader that a hand has just let go.
    move = "fader => { fader.value = 20; fader.dispatchEvent(new Event('input', { bubbles: true })) }"
    page.locator(".morph input").evaluate(move)
    stage.wait("/api/morph", lambda m: m["position"] == 20)
    stage.do("morph", position=40)
    shown(page, ".morph input").to_have_value("40")
    page.click("#side-b")
    shown(other, "#side-b[aria-pressed=true]").to_be_visible()
    field = page.locator("#strips [data-name='denoise.amount_db'] .value")
    field.fill("3")
    field.press("Enter")
    other.click("#side-a")
    shown(page, "#strips [data-name='denoise.amount_db'] .value").not_to_have_value("3")
    page.click("#side-b")
    shown(page, "#strips [data-name='denoise.amount_db'] .value").to_have_value("3")
    page.click("#tab-presets")
    page.click("[data-id='bypass']")
    page.click("#tab-play")
    shown(page, "#holds-b").to_contain_text("B Bypass")
    shown(page, "#holds-a").to_contain_text("A Clean")
    # Both run and are weighed; the louder one is turned down.
    found = stage.wait("/api/compare", lambda c: c["known"] and min(c["trim_db"]) < 0, 30)
    louder = "ab"[found["trim_db"].index(min(found["trim_db"]))]
    shown(page, f"#holds-{louder}").to_have_text(re.compile("\u2212[0-9.]+ dB$"))
    page.click("#match")
    shown(page, f"#holds-{louder}").to_have_text(re.compile(" 0 dB$"))
    page.click("#copy")
    shown(page, "#holds-a").to_contain_text("A Bypass")


def test_keys_pressed_faster_than_the_host_answers_all_count(stage: Stage, open_page: Callable[..., Page]) -> None:
    page, other = open_page(), open_page()
    volume = control(page, "host.volume_db", "range")
    volume.focus()
    # Without a pause, and in the rhythm in which what the host has told comes back.
    for pause in (0, 20, 33, 50):
        stage.do("set", name="host.volume_db", value=12)
        shown(page, "#volume .value").to_have_value("12")
        page.wait_for_timeout(400)
        for _ in range(9):
            page.keyboard.press("PageDown")
            page.wait_for_timeout(pause)
        stage.wait("/api/values", lambda v: abs(v["host.volume_db"] + 52.8) < 0.01)
        for each in (page, other):
            shown(each, "#volume .value").to_have_value("-52.8")
    for _ in range(4):
        page.keyboard.press("PageUp")
    stage.wait("/api/values", lambda v: abs(v["host.volume_db"] + 24) < 0.01)


def test_now_shows_what_sounds(stage: Stage, open_page: Callable[..., Page]) -> None:
    page = open_page()
    shown(page, "#input-state").to_have_text("present")
    shown(page, ".meter:first-child .bar").to_have_attribute("aria-valuenow", re.compile("-[1-3]?[0-9]"))
    page.wait_for_timeout(3000)
    for side in ("before", "after"):
        ink = f"(c => new Set(c.getContext('2d').getImageData(0, 0, c.width, c.height).data).size)({side})"
        assert page.evaluate(ink) > 50
    shown(page, "#latency").to_have_text("21.0 ms")
    shown(page, "#load").to_have_text(re.compile("%"))
    shown(page, "#voice-tile").to_be_visible()
    stage.do("load", name="podcast")
    shown(page, "#reduction-parts").to_have_text(re.compile(r"compressor \d"))
    page.click("#tab-play")
    shown(page, "[data-label=compressor] .readings").to_have_text(re.compile("gain reduction.*dB"))
    page.click("#theme")
    assert page.evaluate("document.documentElement.dataset.theme") in ("dark", "light")


def turn(stage: Stage, *values: int) -> None:
    """A controller that is not ours turns its knob 74."""
    sender = (
        "import sys, time, mido\nmido.set_backend('mido.backends.rtmidi/UNIX_JACK')\n"
        "name = next(n for n in mido.get_output_names() if 'midi_in' in n and n.startswith('rtgan'))\n"
        "with mido.open_output(name) as port:\n"
        "    time.sleep(0.3)\n"
        "    for value in sys.argv[1:]:\n"
        "        port.send(mido.Message('control_change', control=74, value=int(value))); time.sleep(0.1)\n"
        "    time.sleep(0.3)\n"
    )
    command = [sys.executable, "-c", sender, *map(str, values)]
    subprocess.run(command, env=stage.jack.env, check=True, timeout=60)


def test_a_controller_is_learned_by_a_click(stage: Stage, open_page: Callable[..., Page]) -> None:
    page = open_page()
    page.click("#tab-play")
    page.click("#pick")
    page.click("#volume .chip")
    shown(page, "#volume .chip").to_have_text("move a control")
    page.click("#tab-midi")
    page.wait_for_selector("#learn.live")
    turn(stage, 100, 90, 80, 70, 64)
    page.wait_for_selector("#map tr:has-text('cc 74'):has-text('host.volume_db')")
    turn(stage, 20, 10, 0)
    stage.wait("/api/values", lambda v: v["host.volume_db"] == -60)
    page.wait_for_selector("#volume .chip:has-text('cc 74')")
    shown(page, "#midi-last").to_contain_text("control 74 0")
    page.click("#map tr:has-text('cc 74') button")
    page.wait_for_selector("#map tr:has-text('cc 74')", state="detached")


def test_a_page_lives_through_a_reload_and_the_end_of_the_host(stage: Stage, open_page: Callable[..., Page]) -> None:
    page = open_page()
    assert stage.token not in page.url, "whoever looks at the screen need not see it"
    page.click("#tab-play")
    page.reload()
    page.wait_for_selector("#strips .control")
    assert page.locator("#play").is_visible()
    # The panel's own process is lost: the host starts it again, and the page comes back by itself.
    tasks = Path(f"/proc/{stage.host.pid}/task").glob("*/children")
    (panel,) = [int(pid) for task in tasks for pid in task.read_text().split()]
    os.kill(panel, signal.SIGKILL)
    page.wait_for_selector("#gone:visible")
    page.wait_for_selector("#gone", state="hidden")
    page.click("#mute")
    stage.wait("/api/values", lambda v: v["host.mute"] == 1)
    stage.host.send_signal(signal.SIGINT)
    page.wait_for_selector("#gone:visible")
    assert "The host has gone" in page.locator("#gone").inner_text()


def test_strangers_see_nothing(stage: Stage, chromium: Any) -> None:
    page = chromium.new_page()
    page.goto(f"{stage.base}/#wrong")
    page.wait_for_selector("#gone:has-text('another session')")
    # Another page, and one whose name was rebound to this machine.
    page.goto("data:text/html,<title>evil</title>")
    tried = page.evaluate(
        """async ([base, token]) => {
            const socket = new Promise((done) => {
                const s = new WebSocket(base.replace("http", "ws") + "/live", ["rtgan", "token." + token]);
                s.onopen = () => done("open");
                s.onerror = () => done("refused");
            });
            const read = fetch(base + "/api/values", { headers: { Authorization: "Bearer " + token } })
                .then(() => "read", () => "refused");
            const post = await fetch(base + "/api/panic", { method: "POST", mode: "no-cors", body: "{}" })
                .then((a) => a.type, () => "refused");
            return [await socket, await read, post];
        }""",
        [stage.base, stage.token],
    )
    assert tried[:2] == ["refused", "refused"]
    page.close()


def violations(page: Page) -> list[str]:
    found = page.evaluate("axe.run()")
    return [f"{v['id']}: {[n['html'][:120] for n in v['nodes']][:4]}" for v in found["violations"]]


# Whoever looks for devices is a client that comes and goes, which a server that waits for everybody waits for too.
@pytest.mark.parametrize("stage", [False], indirect=True)
def test_nobody_is_shut_out(stage: Stage, open_page: Callable[..., Page], tmp_path: Path) -> None:
    """No violation by axe-core, in any view, dark and light, wide and narrow."""
    try:
        with urllib.request.urlopen(AXE, timeout=20) as answer:
            (tmp_path / "axe.tgz").write_bytes(answer.read())
    except (urllib.error.URLError, TimeoutError) as problem:
        pytest.skip(f"axe-core cannot be had from {AXE}: {problem}")
    with tarfile.open(tmp_path / "axe.tgz") as archive:
        file = archive.extractfile("package/axe.min.js")
        assert file is not None
        script = file.read().decode()
    stage.do("save", name="Mine")
    for theme, width in (("dark", 1280), ("light", 1280), ("dark", 390)):
        page = open_page(color_scheme=theme, viewport={"width": width, "height": 844})
        page.evaluate(script)
        for view in ("now", "play", "presets", "devices", "midi"):
            page.click(f"#tab-{view}")
            if view == "play":
                # Whatever is folded away, or shown for other chains only, too.
                page.click("#rebuild")
                page.click("#pad summary")
                page.click(".card summary")
                page.evaluate("document.querySelector('#keyboard').hidden = false")
            found = violations(page)
            assert found == [], (theme, width, view)
            if view == "play":
                page.click("#add")
                page.wait_for_selector("#known b")
                assert violations(page) == [], (theme, width, "add")
                page.click("#enough")
            if view == "devices" and theme == "light":
                page.click("#examine")
                page.wait_for_selector("#findings li", timeout=60000)
                assert violations(page) == [], (theme, width, "doctor")
        page.close()
