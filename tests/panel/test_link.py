"""The panel and its host: one truth, whoever changes it, and a sound that nothing of this ends."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from stage import Asking, Inside
from support import ROOT, speechlike

from rtgan import Host, bindings, presets
from rtgan.control.desk import Desk
from rtgan.errors import RtganError
from rtgan.panel import link

Until = Callable[..., None]


def test_what_is_changed_here_is_heard_and_what_is_changed_elsewhere_is_shown(playing: Inside, until: Until) -> None:
    host = playing.host
    playing.do("set", name="highpass.cutoff_hz", value=300)
    until(lambda: host.values["highpass.cutoff_hz"] == 300)
    playing.do("set", name="host.mute", value=True)
    until(lambda: host.values["host.mute"] == 1)
    host.set("gate.threshold_db", -33)
    playing.wait("/api/values", lambda v: v["gate.threshold_db"] == -33 and v["highpass.cutoff_hz"] == 300)
    host.load("bypass")
    playing.wait("/api/chain", lambda c: c["id"] == "bypass" and c["strips"] == [])
    playing.wait("/api/values", lambda v: set(v) == {"host.volume_db", "host.mute", "host.bypass"})
    playing.do("load", name="stage")
    chain = playing.wait("/api/chain", lambda c: c["id"] == "stage")
    declared = {name for strip in chain["strips"] for name in strip["params"]}
    playing.wait("/api/values", lambda v: declared <= set(v))
    assert [s["label"] for s in chain["strips"]] == [label for label, _, _ in host.strips]
    assert chain["strips"][0]["params"]["denoise.amount_db"]["unit"] == "dB"
    stats = playing.wait("/api/stats", lambda s: "denoise" in s["latency_ms"])
    assert stats["running"]
    assert 0 < stats["load"] < 1
    assert {p["id"] for p in playing.ask("/api/presets")[1]} == set(presets.names())


def test_presets_are_saved_as_one_s_own_and_over_them(playing: Inside, until: Until) -> None:
    host = playing.host
    assert "under a name of your own" in playing.refused("save")
    assert "under a name of your own" in playing.refused("keep", name="Loud")
    playing.do("set", name="highpass.cutoff_hz", value=123)
    until(lambda: host.values["highpass.cutoff_hz"] == 123)
    before = host.latency_samples, len(host._adopted)
    playing.do("save", name="My voice")
    mine = presets.load("my-voice")
    assert (mine.name, mine.values()["highpass.cutoff_hz"], mine.program) == ("My voice", 123.0, None)
    playing.wait("/api/chain", lambda c: c["id"] == "my-voice" and c["own"])
    playing.wait("/api/presets", lambda found: any(p["id"] == "my-voice" and p["own"] for p in found))
    assert "there is a preset my-voice already" in playing.refused("save", name="my VOICE")
    playing.do("set", name="limiter.drive_db", value=4)
    until(lambda: host.values["limiter.drive_db"] == 4)
    playing.do("save")
    playing.do("keep", name="Loud")
    playing.do("set", name="limiter.drive_db", value=1)
    until(lambda: host.values["limiter.drive_db"] == 1)
    playing.do("keep", name="Soft")
    mine = presets.load("my-voice")
    assert mine.values()["limiter.drive_db"] == 4
    assert [s.name for s in mine.snapshots] == ["Loud", "Soft"]
    playing.do("snapshot", number=1)
    until(lambda: host.values["limiter.drive_db"] == 4)
    assert "no snapshot 3" in playing.refused("snapshot", number=3)
    # A file that the host itself has written is no reason to fade: the same graph has played all along.
    time.sleep(1.0)
    assert (host.latency_samples, len(host._adopted)) == before


def test_the_lock_refuses_edits_and_lets_the_show_go_on(playing: Inside, until: Until) -> None:
    playing.do("lock", on=True)
    assert playing.wait("/api/lock", lambda lock: lock["on"])
    for command, given in (
        ("set", {"name": "gate.threshold_db", "value": -20}),
        ("save", {"name": "x"}),
        ("keep", {"name": "x"}),
        ("learn", {"target": "host.mute"}),
        ("forget", {"target": "host.mute"}),
    ):
        assert "lock is on" in playing.refused(command, **given)
    playing.do("set", name="host.bypass", value=1)
    playing.do("panic")
    playing.do("load", name="stage")
    until(lambda: playing.host.preset.name == "Stage" and playing.host.values["host.bypass"] == 1)
    playing.do("lock", on=False)
    playing.do("set", name="denoise.amount_db", value=3)


def test_panic_waits_for_no_edit_that_waits_for_a_preset(playing: Inside, until: Until) -> None:
    host = playing.host
    playing.do("save", name="Mine")
    begun, go = threading.Event(), threading.Event()

    def slowly(preset: presets.Preset) -> presets.Preset:
        begun.set()
        assert go.wait(60)
        return preset

    building = threading.Thread(target=host.change, args=(slowly,))
    keeping = threading.Thread(target=playing.do, args=("keep",), kwargs={"name": "Later"})
    try:
        building.start()
        assert begun.wait(20)
        keeping.start()
        time.sleep(0.3)
        playing.do("panic")
        playing.do("set", name="host.mute", value=True)
        until(lambda: host.values["host.mute"] == 1)
        assert keeping.is_alive()
    finally:
        go.set()
        building.join()
        keeping.join()
    assert [s.name for s in presets.load("mine").snapshots] == ["Later"]


def test_a_control_is_learned_and_forgotten(playing: Inside, until: Until) -> None:
    host = playing.host
    assert "under a name of your own" in playing.refused("learn", target="gate.threshold_db")
    assert "no target" in playing.refused("learn", target="gate.nothing")
    playing.do("save", name="Mine")
    playing.do("set", name="limiter.drive_db", value=2.5)
    until(lambda: host.values["limiter.drive_db"] == 2.5)

    def move(number: int) -> None:
        for value in (10, 20, 30):
            host.engine.midi(bytes([0xB0, number, value]))

    playing.do("learn", target="gate.threshold_db")
    playing.wait("/api/midi", lambda m: m["learning"] == "gate.threshold_db")
    move(21)
    rows = playing.wait("/api/midi", lambda m: not m["learning"])["map"]
    found = [(r["control"], r["where"]) for r in rows if r["target"] == "gate.threshold_db"]
    assert found == [("cc 21 on channel 1", "preset")]
    host.engine.midi(bytes([0xB0, 21, 127]))
    until(lambda: host.values["gate.threshold_db"] == host.params["gate.threshold_db"].maximum)
    assert host.values["limiter.drive_db"] == 2.5, "what was turned and not saved stays"
    assert presets.load("mine").midi[-1].targets == ("gate.threshold_db",)
    assert presets.load("mine").values()["limiter.drive_db"] != 2.5
    playing.do("learn", target="host.mute")
    move(22)
    playing.wait("/api/midi", lambda m: ("global", "host.mute") in [(r["where"], r["target"]) for r in m["map"]])
    assert bindings.load_map()[0].targets == ("host.mute",)
    for target in {row["target"] for row in playing.ask("/api/midi")[1]["map"]}:
        playing.do("forget", target=target)
    assert playing.wait("/api/midi", lambda m: not m["map"])["last"]["text"]
    assert bindings.load_map() == presets.load("mine").midi == ()


def test_a_recording_runs_and_ends(playing: Inside, tmp_path: Path) -> None:
    playing.do("record", on=True)
    stats = playing.wait("/api/stats", lambda s: s["recording"] and s["recording"]["seconds"] >= 1)
    playing.do("mark")
    playing.do("record", on=False)
    playing.wait("/api/stats", lambda s: s["recording"] is None)
    assert (tmp_path / "takes" / stats["recording"]["file"]).stat().st_size > 48000
    assert "a marker needs a recording" in playing.refused("mark")


def test_a_panel_that_dies_comes_back_at_the_same_address_and_the_sound_goes_on(playing: Inside) -> None:
    process = playing.panel._process
    assert process is not None
    before = playing.host.engine.counters.position_samples
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    playing.wait("/api/values", lambda v: "gate.threshold_db" in v)
    playing.do("set", name="gate.threshold_db", value=-44)
    playing.wait("/api/values", lambda v: v["gate.threshold_db"] == -44)
    assert playing.host.running
    assert playing.host.engine.counters.position_samples > before
    assert playing.panel._process is not process


def test_a_panel_that_hangs_keeps_nobody_from_ending(until: Until) -> None:
    host = Host(preset="voice-basic", source=speechlike(30.0)[None])
    with Desk(host, ports=False) as desk:
        panel = link.Panel(host, desk)
        panel.start()
        with host:
            until(lambda: panel._process is not None)
            assert panel._process is not None
            os.kill(panel._process.pid, signal.SIGSTOP)
            assert host.wait_first_block()
            panel.close()
            assert host.running
    assert panel._process.poll() is not None
    assert not link.address_file().exists()
    assert np.isfinite(host.output_so_far()).all()


def test_a_port_that_is_taken(playing: Inside) -> None:
    port = int(playing.base.rpartition(":")[2])
    with pytest.raises(RtganError, match=f"cannot listen on 127.0.0.1:{port}"):
        link._listen(port)
    with link._listen(None)[0] as other:
        assert other.getsockname()[1] != port


@pytest.mark.parametrize("absent", ["uvicorn", "starlette"])
def test_without_its_parts_there_is_no_panel_and_a_sentence(absent: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert link.missing() is None
    found = lambda name: None if name == absent else SimpleNamespace()  # noqa: E731
    monkeypatch.setattr("importlib.util.find_spec", found)
    assert link.missing() == f"no panel without {absent}: pip install {absent}"


def test_live_serves_a_panel_unless_it_is_told_not_to(cli: Callable[..., Any], tmp_path: Path) -> None:
    none = {"JACK_NO_START_SERVER": "1"}
    done = cli("live", "--seconds", "0.5", cwd=tmp_path, env=none)
    assert done.returncode == 0, done.stderr
    assert "panel: http://127.0.0.1:" in done.stdout
    assert "panel:" not in cli("live", "--seconds", "0.5", "--no-panel", cwd=tmp_path, env=none).stdout
    refused = cli("live", "--no-panel", "--panel-port", "8021", cwd=tmp_path, env=none)
    assert (refused.returncode, "--no-panel leaves none" in refused.stderr) == (2, True)


def test_only_this_machine_is_listened_to_and_only_its_owner_reads_the_token(playing: Inside) -> None:
    assert playing.panel._listeners[0].getsockname()[0] == "127.0.0.1"
    file = link.address_file()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert json.loads(file.read_text())["url"] == playing.url
    assert len(playing.token) >= 32
    command = "\0".join(playing.panel._process.args)  # type: ignore[union-attr,arg-type]
    assert playing.token not in command


def test_presets_and_takes_stay_in_their_folders(playing: Inside) -> None:
    for name in ("../clean", "/etc/passwd", "clean.yaml", "a/b", "./clean"):
        assert "by name, not by path" in playing.refused("load", name=name)
    for name in ("nothing", "..", "~", "C:\\x", "x" * 200):
        assert "there is no preset" in playing.refused("load", name=name)
    assert "no letter" in playing.refused("save", name="../..")
    playing.do("save", name="../../../evil/../x.yaml")
    assert [p.name for p in presets.user_folder().iterdir()] == ["evil-x-yaml.yaml"]


def test_a_host_that_is_killed_leaves_no_panel_behind(tmp_path: Path, until: Until) -> None:
    host = subprocess.Popen(
        [sys.executable, "-m", "rtgan", "live", "--preset", "voice-basic"], cwd=tmp_path, stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT), "JACK_NO_START_SERVER": "1"}, text=True,
    )  # fmt: skip
    assert host.stdout is not None
    # It says more as time goes on, and would end if nobody were there to read it.
    with host.stdout:
        url = next(line.split()[1] for line in host.stdout if line.startswith("panel: "))
        stage = Asking(url)
        stage.wait("/api/values", lambda values: "host.mute" in values, 60)
        host.kill()
        host.wait()

    def gone() -> bool:
        try:
            stage.ask("/api/values")
        except OSError:
            return True
        return False

    until(gone)
