"""A and B, undo and the presets' files, asked for as a page, the shell, OSC and MIDI ask."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from typing import Any

from pythonosc.osc_message_builder import OscMessageBuilder
from stage import Inside

from rtgan import bindings, presets
from rtgan.bindings import Binding, parse_control
from rtgan.control.desk import Desk
from rtgan.control.osc import Osc

Until = Callable[..., None]


def side(name: str) -> Callable[[Any], bool]:
    return lambda compare: compare["side"] == name


def test_a_and_b_from_everywhere(playing: Inside, cli: Callable[..., Any], until: Until) -> None:
    host, desk = playing.host, playing.panel._desk
    playing.do("set", name="limiter.drive_db", value=3)
    playing.do("compare", side="b")
    compare = playing.wait("/api/compare", side("B"))
    assert compare["names"] == ["Voice without a model", "Voice without a model"]
    playing.do("set", name="limiter.drive_db", value=9)
    playing.do("compare")
    playing.wait("/api/compare", side("A"))
    assert host.values["limiter.drive_db"] == 3
    assert cli("ctl", "compare", "other").returncode == 0
    playing.wait("/api/compare", side("B"))
    until(lambda: host.values["limiter.drive_db"] == 9)
    assert "allowed: a, b, other" in playing.refused("compare", side="c")
    # OSC says how it is, whoever changed it.
    told: list[tuple[str, float]] = []
    osc = Osc(desk, ("127.0.0.1", 0))
    desk.on_change(lambda name, value: told.append((name, value)))
    for address, value in (("/host/compare", 0.0), ("/host/match", 0.0)):
        builder = OscMessageBuilder(address)
        builder.add_arg(value, "f")
        osc.take(builder.build().dgram, ("127.0.0.1", 9))
    playing.wait("/api/compare", lambda c: (c["side"], c["match"]) == ("A", False))
    assert osc.refused == 0 and ("host.compare", 0.0) in told and ("host.match", 0.0) in told
    osc.close()
    # A key turns it round, whatever others have done meanwhile.
    bindings.save_map([Binding(parse_control("note 60"), ("host.compare",), "toggle")])
    desk.reload()
    press(desk)
    playing.wait("/api/compare", side("B"))
    playing.do("compare", side="a")
    playing.wait("/api/compare", side("A"))
    press(desk)
    playing.wait("/api/compare", side("B"))
    playing.do("copy")
    playing.do("compare", side="a")
    until(lambda: host.values["limiter.drive_db"] == 9)
    assert host.stats().warnings == ()


def press(desk: Desk) -> None:
    for velocity in (127, 0):
        assert desk.host.engine.midi(bytes([0x90, 60, velocity]))


def test_two_presets_are_compared_at_one_loudness(playing: Inside, until: Until) -> None:
    host = playing.host
    playing.do("set", name="limiter.drive_db", value=12)
    playing.do("compare", side="b")
    playing.wait("/api/compare", side("B"))
    playing.do("load", name="bypass")
    playing.wait("/api/compare", lambda c: c["names"] == ["Voice without a model", "Bypass"])
    # Both run: B is heard, and A is weighed beside it.
    found = playing.wait("/api/compare", lambda c: c["known"] and None not in c["lufs"], 30)
    built = len(host._adopted)
    for name, expected in (("a", "Voice without a model"), ("b", "Bypass"), ("a", "Voice without a model")):
        playing.do("compare", side=name)
        until(lambda expected=expected: host.preset.name == expected)
    assert len(host._adopted) == built, "nothing is built to change sides"
    assert found["trim_db"][0] < -3 and found["trim_db"][1] == 0


def test_what_was_done_is_undone_and_done_again(playing: Inside, until: Until) -> None:
    host = playing.host
    assert "nothing to undo" in playing.refused("undo")
    playing.do("set", name="highpass.cutoff_hz", value=222)
    playing.wait("/api/history", lambda h: h == {"undo": "change highpass.cutoff_hz", "redo": ""})
    playing.do("load", name="stage")
    playing.wait("/api/history", lambda h: h["undo"] == "load Stage")
    playing.do("undo")
    until(lambda: host.preset.name == "Voice without a model" and host.values["highpass.cutoff_hz"] == 222)
    playing.do("undo")
    playing.wait("/api/history", lambda h: h == {"undo": "", "redo": "change highpass.cutoff_hz"})
    until(lambda: host.values["highpass.cutoff_hz"] != 222)
    playing.do("redo")
    playing.wait("/api/history", lambda h: h["redo"] == "load Stage")
    until(lambda: host.values["highpass.cutoff_hz"] == 222)
    playing.do("lock", on=True)
    assert "lock is on" in playing.refused("undo")
    assert "lock is on" in playing.refused("delete", name="x")
    playing.do("compare")
    playing.do("lock", on=False)


def test_presets_are_renamed_deleted_and_brought_back(playing: Inside, until: Until) -> None:
    host = playing.host
    playing.do("save", name="Club")
    playing.do("rename", name="club", new="The Bar")
    assert (host.preset.name, host.preset.path) == ("The Bar", presets.own_path("The Bar"))
    playing.wait("/api/chain", lambda c: c["id"] == "the-bar")
    playing.do("set", name="highpass.cutoff_hz", value=150)
    until(lambda: host.values["highpass.cutoff_hz"] == 150)
    playing.do("save")
    playing.do("delete", name="the-bar")
    chain = playing.wait("/api/chain", lambda c: not c["own"])
    assert chain["name"] == "The Bar" and host.values["highpass.cutoff_hz"] == 150, "the sound goes on"
    assert "under a name of your own" in playing.refused("save")
    playing.wait("/api/presets", lambda rows: "the-bar" not in {r["id"] for r in rows})
    playing.do("undo")
    until(lambda: presets.own_path("The Bar").exists() and host.preset.path is not None)
    for expected in ("change highpass.cutoff_hz", "rename club", "save Club"):
        playing.do("undo")
        playing.wait("/api/history", lambda h, expected=expected: h["undo"] == expected)
    playing.do("undo")
    until(lambda: host.preset.name == "Voice without a model")
    assert [p.name for p in presets.user_folder().iterdir()] == []
    for words, given in (
        ("stays as it is", {"name": "clean"}),
        ("no preset of your own", {"name": "../../etc/passwd"}),
    ):
        assert words in playing.refused("delete", **given)
        assert words in playing.refused("rename", **given, new="Mine")
    # One's own of a factory preset's name stands in front of it.
    playing.do("save", name="Clean")
    rows = playing.wait("/api/presets", lambda rows: any(r["hides"] for r in rows))
    assert [(r["id"], r["own"]) for r in rows if r["hides"]] == [("clean", True)]
    playing.do("delete", name="clean")
    assert presets.load("clean").path == presets.FACTORY / "clean.yaml"
    assert host.stats().warnings == ()


def test_what_was_turned_before_saving_is_undone_after_it(playing: Inside, until: Until) -> None:
    """Also when the host has not been told of the turn when it is asked to save."""
    host = playing.host
    playing.do("save", name="Club")
    with host._polling:
        playing.do("set", name="highpass.cutoff_hz", value=150)
        until(lambda: host.values["highpass.cutoff_hz"] == 150)
        saving = threading.Thread(target=playing.do, args=("save",))
        saving.start()
        time.sleep(0.3)
    saving.join()
    assert presets.load("club").values()["highpass.cutoff_hz"] == 150
    for expected in ("save Club", "change highpass.cutoff_hz", "save Club", ""):
        playing.wait("/api/history", lambda h, expected=expected: h["undo"] == expected)
        if expected:
            playing.do("undo")


def test_the_shell_names_what_there_is(served: Inside, cli: Callable[..., Any]) -> None:
    done = cli("ctl", "--panel", served.url, "tell", "compare")
    assert set(json.loads(done.stdout)) == {"side", "names", "match", "trim_db", "lufs", "known"}
