"""What a person does on the page beyond turning: the chain, devices, notes, two parameters at once, a phone."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from stage import Stage, playing, shown
from support import Jack

from rtgan import presets

pytestmark = [pytest.mark.jack, pytest.mark.slow]

Page = Any


def labels(page: Page) -> list[str]:
    return list(page.locator("#strips > .strip").evaluate_all("boxes => boxes.map((b) => b.dataset.label)"))


def test_the_chain_is_edited_by_mouse_and_keyboard(stage: Stage, open_page: Callable[..., Page]) -> None:
    page, other = open_page(), open_page()
    for each in (page, other):
        each.click("#tab-play")
    assert labels(page) == ["highpass", "denoise", "limiter"]
    assert not page.locator(".strip .move").first.is_visible()
    stage.do("set", name="highpass.cutoff_hz", value=111)
    page.click("#rebuild")
    # Drag the first behind the second.
    grip, target = (page.locator(f"[data-label={name}]") for name in ("highpass", "denoise"))
    box, to = grip.locator(".grip").bounding_box(), target.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(to["x"] + to["width"] / 2, to["y"] + 60, steps=8)
    page.mouse.up()
    for each in (page, other):
        each.wait_for_selector("#strips > :first-child[data-label=denoise]")
    # By the keyboard: the button keeps the focus wherever its strip goes.
    later = page.locator("[data-label=denoise] .later")
    later.focus()
    page.keyboard.press("Enter")
    for each in (page, other):
        each.wait_for_selector("#strips > :first-child[data-label=highpass]")
    assert later.evaluate("(b) => b === document.activeElement")
    page.click("#add")
    page.select_option("#place", "1")
    page.locator("#known button", has_text="Equaliser").or_(page.locator("#known button", has_text="EQ")).first.click()
    for each in (page, other):
        each.wait_for_selector("#strips > :first-child[data-label=eq]")
    page.click("[data-label=limiter] .remove")
    page.wait_for_selector("[data-label=limiter]", state="detached")
    assert page.locator(".strip .remove:focus").count() == 1
    stage.wait("/api/values", lambda v: v["highpass.cutoff_hz"] == 111 and "limiter.drive_db" not in v)
    for each in (page, other):
        shown(each, "#edited").to_be_visible()
    page.click("#tab-presets")
    page.fill("#save-name", "Rebuilt")
    page.click("text=Save as")
    other.wait_for_selector("#edited", state="hidden")
    assert presets.labels(presets.load("rebuilt").chain) == ["eq", "highpass", "denoise"]
    assert presets.load("rebuilt").values()["highpass.cutoff_hz"] == 111
    stage.do("lock", on=True)
    page.click("#tab-play")
    shown(page, "#rebuild").to_be_disabled()
    shown(page, "#add").to_be_hidden()


# Clients come and go: a server that waits for everybody waits for those that are leaving too.
@pytest.mark.parametrize("stage", [False], indirect=True)
def test_other_devices_are_chosen_live(stage: Stage, open_page: Callable[..., Page]) -> None:
    page, other = open_page(), open_page()
    page.click("#tab-devices")
    page.wait_for_selector("#end-input option[value^='mic ']", state="attached", timeout=30000)
    page.select_option("#end-input", label="mic [JACK Audio Connection Kit]")
    page.click("#end-go")
    other.click("#tab-devices")
    shown(other, "#end-input").to_have_value("mic [JACK Audio Connection Kit]", timeout=30000)
    stage.wait("/api/stats", lambda s: s["running"] and not s["device"])
    # Another block, and one that the device refuses: the sound stays where it is.
    page.select_option("#end-block", "128")
    page.click("#end-go")
    stage.wait("/api/devices", lambda d: d["block"] == 128)
    stage.wait("/api/stats", lambda s: s["running"] and not s["device"])
    page.select_option("#end-rate", "44100")
    page.click("#end-go")
    page.wait_for_selector("#toasts p:has-text('44100')", timeout=30000)
    shown(page, "#end-rate").to_have_value("48000")
    stage.wait("/api/stats", lambda s: s["running"] and not s["device"])
    page.click("#examine")
    page.wait_for_selector("#findings h3:has-text('Real-time priority')", timeout=90000)
    shown(page, "#verdict").to_contain_text("Live audio")


@pytest.mark.parametrize("stage", [False], indirect=True)
def test_a_device_that_goes_and_comes_back_is_shown(stage: Stage, open_page: Callable[..., Page]) -> None:
    page = open_page()
    stage.jack.close()
    shown(page, "#device").to_contain_text("has gone; waiting for it")
    shown(page, "#input-state").to_have_text("gone")
    stage.jack.rate = 32000
    stage.jack.start()
    shown(page, "#device").to_contain_text("has come back at 32000 Hz")
    shown(page, "#input-state").to_have_text("wrong rate")
    stage.jack.close()
    stage.jack.rate = 48000
    stage.jack.start()
    shown(page, "#device").to_be_hidden()
    shown(page, "#input-state").to_have_text(re.compile("silent|present"))


def test_two_parameters_follow_one_hand(stage: Stage, open_page: Callable[..., Page]) -> None:
    page = open_page()
    page.click("#tab-play")
    page.click("#pad summary")
    page.select_option("#pad-x", "denoise.amount_db")
    page.select_option("#pad-y", "limiter.drive_db")
    params = {k: p for s in stage.ask("/api/chain")[1]["strips"] for k, p in s["params"].items()}
    amount, drive = params["denoise.amount_db"], params["limiter.drive_db"]
    page.locator("#pad-area").scroll_into_view_if_needed()
    box = page.locator("#pad-area").bounding_box()
    page.mouse.move(box["x"] + 5, box["y"] + 5)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] - 1, box["y"] + 1, steps=5)
    page.mouse.up()
    near = lambda value, limit, param: abs(value - limit) < 0.02 * (param["high"] - param["low"])  # noqa: E731
    stage.wait("/api/values", lambda v: near(v["denoise.amount_db"], amount["high"], amount)
               and near(v["limiter.drive_db"], drive["high"], drive))  # fmt: skip
    page.locator("#pad-area").dblclick()
    stage.wait("/api/values", lambda v: v["denoise.amount_db"] == amount["default"])
    # The same by the keyboard, and remembered.
    page.locator("#pad-sliders [data-name='limiter.drive_db'] input[type=range]").press("End")
    page.reload()
    page.click("#pad summary")
    shown(page, "#pad-y").to_have_value("limiter.drive_db")


def test_notes_are_played_and_none_is_left_hanging(stage: Stage, open_page: Callable[..., Page]) -> None:
    page = open_page()
    page.click("#tab-play")
    assert not page.locator("#keyboard").is_visible(), "this chain plays no notes"
    page.evaluate("document.querySelector('#keyboard').hidden = false")

    def heard(words: str) -> None:
        stage.wait("/api/midi", lambda m: m["last"]["port"] == "panel" and words in m["last"]["text"])

    key = page.locator("#piano [aria-label=E3]")
    key.scroll_into_view_if_needed()
    box = key.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] - 4)
    page.mouse.down()
    heard("note on 52 9")  # far to the front: loud
    page.wait_for_selector("#piano .down[aria-label=E3]")
    page.mouse.up()
    heard("note on 52 0")
    key.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.down("Enter")
    heard("note on 53 100")
    page.keyboard.up("Enter")
    heard("note on 53 0")
    page.keyboard.down("j")
    heard("note on 59 100")
    page.keyboard.up("j")
    page.click("#computer")
    page.locator("h1").click()
    page.keyboard.down("a")
    heard("note on 48 100")
    # Who leaves lets go.
    page.close()
    heard("note on 48 0")


@pytest.fixture
def outside(jack: Callable[..., Jack], tmp_path: Path) -> Iterator[Stage]:
    """A panel that other machines reach."""
    server = jack(512)
    server.env["RTGAN_PANEL_PASSWORD"] = "correct horse"
    with playing(server, tmp_path, "--panel-host", "0.0.0.0") as found:
        yield found


def test_a_phone_comes_in_by_the_password(outside: Stage, chromium: Any) -> None:
    page = chromium.new_page(viewport={"width": 390, "height": 844}, has_touch=True)
    page.goto(outside.base.replace("127.0.0.1", "127.0.0.2"))
    page.wait_for_selector("#login:visible")
    page.fill("#password", "wrong horse")
    page.click("#enter")
    page.wait_for_selector("#gone-text:has-text('the password is wrong')")
    page.fill("#password", "correct horse")
    page.keyboard.press("Enter")
    page.wait_for_selector("#gone", state="hidden")
    page.wait_for_selector("#strips .control", state="attached")
    for view in ("now", "play", "presets", "devices", "midi"):
        page.click(f"#tab-{view}")
        assert page.evaluate("Math.max(...['html', 'main'].map((e) => document.querySelector(e).scrollWidth))") <= 390
    page.click("#mute")
    outside.wait("/api/values", lambda v: v["host.mute"] == 1)
    page.reload()
    page.wait_for_selector("#mute[aria-pressed=true]")
    assert outside.token not in page.url
    page.close()
