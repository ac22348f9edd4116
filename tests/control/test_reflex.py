"""Rules at work on a host that plays to the built-in clocked device."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from support import speechlike

from rtgan import Host, presets
from rtgan.control.desk import Desk
from rtgan.control.reflex import Reflex
from rtgan.rules import Rule

PRESET = """\
schema: 2
name: Reflex
chain:
- plugin: tags
- plugin: gain
rules:
- {when: tags.silence, below: 0.5, for_ms: 100, until_ms: 100, do: gain.gain_db, to: -20, back: 3}
- {when: tags.silence, below: 0.5, for_ms: 100, until_ms: 100, do: host.marker}
- {when: tags.silence, below: 0.5, for_ms: 100, until_ms: 100, do: host.mute, to: on}
"""


def wait_for(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.01)


def test_sound_begins_and_ends_a_rule_and_marks_the_recording(tmp_path: Path) -> None:
    sound = np.concatenate([np.zeros(48000, np.float32), speechlike(2.5), np.zeros(20 * 48000, np.float32)])
    path = tmp_path / "reflex.yaml"
    path.write_text(PRESET)
    take = tmp_path / "take.wav"
    host = Host(preset=presets.load(str(path)), source=sound[None], record=take)
    values: list[float] = []
    with Desk(host, ports=False, takes=tmp_path / "takes") as desk:
        desk.on_change(lambda name, value: values.append(value) if name == "gain.gain_db" else None)
        with host:
            wait_for(lambda: 3.0 in values)
            assert values == [-20.0, 3.0]
            assert host.engine.host_values["mute"] == 1.0, "what has no way back stays"
    log = take.with_suffix(".events.jsonl").read_text()
    assert log.count('"marker": "silence"') == 1 and "gain.gain_db" in log


def test_a_rule_of_a_preset_called_by_name_runs_no_code(tmp_path: Path) -> None:
    folder = presets.user_folder()
    folder.mkdir(parents=True)
    ran = folder / "ran"
    (folder / "evil.py").write_text(f"open({str(ran)!r}, 'w')\n")
    (folder / "evil.yaml").write_text("schema: 2\nname: Evil\nchain:\n- plugin: evil.py\n")
    rule = "rules:\n- {when: tags.silence, above: 0.5, for_ms: 100, until_ms: 100, load: ./evil.yaml}\n"
    (folder / "door.yaml").write_text("schema: 2\nname: Door\nchain:\n- plugin: tags\n" + rule)
    host = Host(preset=presets.load("door"), source=np.zeros((1, 20 * 48000), np.float32))
    with Desk(host, ports=False), host:
        wait_for(
            lambda: "is code, and runs only for a preset that is given by its path" in " ".join(host.stats().warnings)
        )
        assert host.preset.name == "Door"
    assert not ran.exists()


def test_a_rule_without_its_reading_is_told_once() -> None:
    preset = presets.Preset("X", (presets.Entry("gain"),), rules=(Rule("gain.level", 1.0, do="host.panic"),))
    host = Host(preset=preset, source=np.zeros((1, 480), np.float32))
    acts: list[str] = []
    rules = Reflex(host, lambda action, value: acts.append(action), threading.Event())
    rules.look()
    rules.look()
    assert [w for w in host.stats().warnings if "gain.level" in w] == [
        "a rule waits for 'gain.level', which nothing in this chain tells"
    ]
    assert not acts
