"""The chain that plays, changed from a page, the shell or a network: shown at once, saved when somebody says so."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from stage import Inside

from rtgan import presets
from rtgan.control.osc import Osc, _packet

Until = Callable[..., None]


def chain_of(stage: Inside) -> list[str]:
    return [strip["label"] for strip in stage.ask("/api/chain")[1]["strips"]]


def test_a_chain_is_changed_shown_and_saved(playing: Inside, until: Until) -> None:
    host = playing.host
    before = chain_of(playing)
    assert before == ["highpass", "gate", "limiter"]
    playing.do("browse")
    known = playing.wait("/api/plugins", lambda found: len(found) >= 12)
    assert {"id", "name", "description"} == set(known[0])
    playing.do("set", name="gate.threshold_db", value=-41)
    playing.do("chain", what="move", name="gate", position=1)
    playing.do("chain", what="add", name="eq", position=3)
    playing.do("chain", what="add", name="gain")
    playing.do("chain", what="remove", name="limiter")
    wanted = ["gate", "highpass", "eq", "gain"]
    chain = playing.wait("/api/chain", lambda c: [s["label"] for s in c["strips"]] == wanted)
    assert chain["edited"]
    assert host.values["gate.threshold_db"] == -41
    # What is said of a preset does not save another chain unasked.
    playing.do("save", name="Mine")
    assert not playing.wait("/api/chain", lambda c: c["id"] == "mine")["edited"]
    assert presets.labels(presets.load("mine").chain) == wanted
    assert presets.load("mine").values()["gate.threshold_db"] == -41
    playing.do("chain", what="remove", name="eq")
    assert "save it first" in playing.refused("keep", name="Loud")
    playing.do("save")
    playing.do("keep", name="Loud")
    assert presets.labels(presets.load("mine").chain) == ["gate", "highpass", "gain"]
    assert host.running
    assert host.stats().faults == {"gate": 0, "highpass": 0, "gain": 0}


def test_what_cannot_be_changed_is_one_sentence(playing: Inside) -> None:
    assert "there is no plugin 'nothing'" in playing.refused("chain", what="add", name="nothing")
    assert "there is no plugin '/tmp/x.py'" in playing.refused("chain", what="add", name="/tmp/x.py")
    assert "it holds: highpass, gate, limiter" in playing.refused("chain", what="remove", name="eq")
    assert "allowed: add, remove, move" in playing.refused("chain", what="swap", name="gate")
    assert "allowed: 1 to 3" in playing.refused("chain", what="move", name="gate", position=9)
    playing.do("lock", on=True)
    assert "lock is on" in playing.refused("chain", what="remove", name="gate")
    assert chain_of(playing) == ["highpass", "gate", "limiter"]


def test_the_shell_and_a_network_change_it_too(playing: Inside, cli: Callable[..., Any], until: Until) -> None:
    def ctl(*words: str) -> Any:
        return cli("ctl", "--panel", playing.url, *words)

    assert ctl("chain", "add", "gain", "1").returncode == 0
    assert chain_of(playing)[0] == "gain"
    assert ctl("chain", "move", "gain", "2").returncode == 0
    refused = ctl("chain", "remove", "eq")
    assert (refused.returncode, "there is no 'eq' in this chain" in refused.stderr) == (2, True)
    osc = Osc(playing.panel._desk, ("127.0.0.1", 0))
    try:
        osc.take(_packet("/host/chain", "remove", "gain"), ("127.0.0.1", 9))
        until(lambda: chain_of(playing) == ["highpass", "gate", "limiter"])
        osc.take(_packet("/host/chain", "add", "gain", 1.0), ("127.0.0.1", 9))
        until(lambda: chain_of(playing) == ["gain", "highpass", "gate", "limiter"])
        osc.take(_packet("/host/chain", "add"), ("127.0.0.1", 9))
        osc.take(_packet("/host/chain", "add", "/tmp/x.py", 0.0), ("127.0.0.1", 9))
        assert osc.refused == 2
    finally:
        osc.close()


def test_the_model_that_plays_shows_its_card(playing: Inside, tmp_path: Path) -> None:
    playing.do("load", name="stage")
    strips = playing.wait("/api/chain", lambda c: c["id"] == "stage")["strips"]
    card = next(strip["card"] for strip in strips if strip["label"].startswith("denoise"))
    facts = {what for what, _ in card[1:]}
    assert card[0][0]
    assert {"licence", "latency", "trained on", "sha256"} <= facts
    assert all(strip["card"] == [] for strip in strips if not strip["label"].startswith("denoise"))


def test_a_note_goes_in_as_midi(playing: Inside, until: Until) -> None:
    assert not playing.ask("/api/chain")[1]["notes_in"]
    playing.do("note", number=60)
    midi = playing.wait("/api/midi", lambda m: "note" in m["last"]["text"].lower())
    assert midi["last"]["port"] == "panel"
    assert "panel" not in midi["ports"]
    assert "out of range" in playing.refused("note", number=128)
