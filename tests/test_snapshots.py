from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from support import speechlike

from rtgan import Host, offline, presets
from rtgan.engine import Engine
from rtgan.errors import RtganError, UsageError
from rtgan.params import Param
from rtgan.presets import Entry, Preset, Snapshot
from rtgan.snapshots import Morph, Scenes, between, morph, recall, same_chain, take

RATE = 48000
FIRST = Preset(
    "First",
    (Entry("highpass", {"cutoff_hz": 50}), Entry("gain", {"gain_db": -20})),
    snapshots=(Snapshot("Loud", {"gain.gain_db": 6}), Snapshot("Thin", {"highpass.cutoff_hz": 800})),
)
SECOND = Preset("Second", (Entry("highpass", {"cutoff_hz": 200}), Entry("gain", {"gain_db": 0, "bypass": 1})))
OTHER = Preset("Other", (Entry("gain", {"gain_db": 10}), Entry("limiter", {"ceiling_db": -3})))


class Rig:
    """A real engine that is fed by hand and can be driven like a host."""

    def __init__(self, preset: Preset) -> None:
        self.engine = Engine(RATE, 1)
        self.loads = 0
        self.load(preset)
        self.run(np.zeros(64, np.float32))

    def load(self, preset: str | Preset) -> None:
        self.preset = presets.load(preset) if isinstance(preset, str) else preset
        self.graph = offline.build(self.preset, RATE, self.engine.max_block, 1)
        self.engine.publish(self.graph)
        self.loads += 1

    def set(self, name: str, value: object) -> None:
        graph = None if name.startswith("host.") else self.graph
        index, param = offline.find(graph, name)
        self.engine.set_param(graph, index, param.check(value, name))

    @property
    def values(self) -> Mapping[str, float]:
        return {**self.graph.values(), **{f"host.{k}": v for k, v in self.engine.host_values.items()}}

    def run(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        pieces = []
        for at in range(0, len(samples), 1024):
            pieces.append(self.engine.render(np.ascontiguousarray(samples[at : at + 1024, None])).copy())
            self.engine.poll()
        return np.concatenate(pieces)[:, 0]


# --- values ---


def test_a_snapshot_gives_every_value_of_the_chain() -> None:
    assert recall(FIRST, 1) == FIRST.values() | {"gain.gain_db": 6.0}
    assert recall(FIRST, "Thin") == FIRST.values() | {"highpass.cutoff_hz": 800.0}
    with pytest.raises(UsageError, match="First has no snapshot 3; it has: 1 Loud, 2 Thin"):
        recall(FIRST, 3)


def test_taking_a_snapshot_keeps_what_differs_and_it_is_saved_with_the_preset() -> None:
    values = FIRST.values() | {"gain.gain_db": -3.0, "other.thing": 1.0}
    taken = take(FIRST, "Mine", values)
    assert taken.snapshots[2] == Snapshot("Mine", {"gain.gain_db": -3.0})
    assert recall(taken, "Mine") == FIRST.values() | {"gain.gain_db": -3.0}
    again = take(taken, "Mine", FIRST.values())
    assert len(again.snapshots) == 3 and again.snapshots[2].values == {}
    assert presets.parse(presets.dump(taken)) == taken
    full = FIRST
    for number in range(2, 16):
        full = take(full, str(number), values)
    with pytest.raises(UsageError, match="16 snapshots already"):
        take(full, "one more", values)


def test_values_move_as_they_are_heard_and_switches_change_in_the_middle() -> None:
    hz = Param("f_hz", "F", 20, 20000, 1000, scale="log")
    db = Param("g_db", "G", -60, 12, 0)
    switch = Param("s", "S", 0, 1, 0, scale="switch")
    assert between(hz, 100, 10000, 0.5) == pytest.approx(1000)
    assert between(db, -40, 0, 0.25) == pytest.approx(-30)
    assert [between(switch, 0, 1, x) for x in (0, 0.49, 0.5, 1)] == [0, 0, 1, 1]
    for param, a, b in ((hz, 33.3, 7777.7), (db, -7.1, 11.9), (switch, 1, 0)):
        assert (between(param, a, b, 0.0), between(param, a, b, 1.0)) == (a, b), "the ends are exact"
        way = [between(param, a, b, x) for x in np.linspace(0, 1, 101)]
        assert all(min(a, b) <= v <= max(a, b) for v in way)
        assert way == sorted(way, reverse=a > b)
        assert between(param, a, a, 0.3) == a


def test_a_morph_of_equal_chains_moves_every_value_and_never_loads() -> None:
    assert same_chain(FIRST, SECOND) and not same_chain(FIRST, OTHER)
    for position in (0.0, 0.3, 0.5, 1.0):
        side, values = morph(FIRST, SECOND, position)
        assert side == 0 and set(values) == set(FIRST.values())
    assert morph(FIRST, SECOND, 0.0)[1] == FIRST.values()
    assert morph(FIRST, SECOND, 1.0)[1] == SECOND.values()
    middle = morph(FIRST, SECOND, 0.5)[1]
    assert middle["gain.gain_db"] == pytest.approx(-10)
    assert middle["highpass.cutoff_hz"] == pytest.approx(100)
    assert middle["gain.bypass"] == 1


def test_a_morph_of_different_chains_moves_what_both_hold_and_changes_chain_in_the_middle() -> None:
    side, values = morph(FIRST, OTHER, 0.4)
    assert side == 0 and values["gain.gain_db"] == pytest.approx(-8) and values["highpass.cutoff_hz"] == 50
    side, values = morph(FIRST, OTHER, 0.6)
    assert side == 1 and values["gain.gain_db"] == pytest.approx(-2) and values["limiter.ceiling_db"] == -3
    assert "highpass.cutoff_hz" not in values
    for position, home in ((0.0, FIRST), (1.0, OTHER)):
        assert morph(FIRST, OTHER, position)[1] == home.values()


# --- driving an engine ---


def test_the_fader_goes_over_to_another_chain_once_and_without_a_click() -> None:
    rig = Rig(FIRST)
    fader = Morph(rig, FIRST, OTHER)
    tone = (0.1 * np.sin(2 * np.pi * 200 * np.arange(RATE // 10) / RATE)).astype(np.float32)
    heard = []
    for position in [*np.linspace(0, 0.5, 8), 0.49, 0.51, 0.495, 0.505, *np.linspace(0.55, 1, 8)]:
        fader.move(float(position))
        heard.append(rig.run(tone))
    assert rig.loads == 2, "a hand that trembles in the middle loads nothing"
    assert rig.values["gain.gain_db"] == 10 and rig.values["limiter.ceiling_db"] == -3
    sound = np.concatenate(heard)
    assert np.abs(np.diff(sound)).max() < 1.2 * np.abs(np.diff(heard[-1])).max(), "no step but the tone's own"
    quiet = np.sqrt(np.convolve(sound**2, np.ones(480) / 480, "valid")).min()
    assert quiet > 0.5 * np.sqrt(np.mean(heard[0] ** 2)), "and no gap"
    fader.move(0.0)
    rig.run(tone)
    assert rig.loads == 3 and rig.values["gain.gain_db"] == -20


def test_the_fader_sends_again_what_somebody_else_has_moved() -> None:
    rig = Rig(FIRST)
    fader = Morph(rig, FIRST, SECOND)
    fader.move(0.5)
    rig.run(np.zeros(64, np.float32))
    rig.set("highpass.cutoff_hz", 500)
    rig.run(np.zeros(64, np.float32))
    fader.move(0.5)
    rig.run(np.zeros(64, np.float32))
    assert rig.values["highpass.cutoff_hz"] == pytest.approx(100)
    assert rig.loads == 1


def test_scenes_recall_snapshots_and_morph_to_the_preset_that_is_named() -> None:
    presets.save(OTHER, presets.user_folder() / "other.yaml")
    home = Preset("Home", FIRST.chain, snapshots=FIRST.snapshots, morph="other")
    rig = Rig(home)
    scenes = Scenes(rig)

    def now(name: str) -> float:
        rig.run(np.zeros(4800, np.float32))
        return rig.values[name]

    scenes.snapshot(1)
    assert now("gain.gain_db") == 6 and rig.loads == 1
    scenes.snapshot(16)
    assert now("gain.gain_db") == -20 and now("highpass.cutoff_hz") == 800
    scenes.morph(1.0)
    assert now("limiter.ceiling_db") == -3 and rig.loads == 2
    scenes.morph(0.9)
    assert now("gain.gain_db") == pytest.approx(7) and rig.loads == 2, "still between the same two"
    scenes.snapshot("Loud")
    assert now("highpass.cutoff_hz") == 50 and now("gain.gain_db") == 6 and rig.loads == 3
    rig.load(SECOND)
    rig.run(np.zeros(4800, np.float32))
    with pytest.raises(UsageError, match="Second names no preset to morph to; write morph: NAME"):
        scenes.morph(0.5)
    with pytest.raises(UsageError, match="Second has no snapshot 1; it has: none"):
        scenes.snapshot(1)


def test_the_fader_runs_no_code_that_nobody_gave_by_its_path(tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    (tmp_path / "evil.py").write_text(f"open({str(ran)!r}, 'w')\n")
    (tmp_path / "far.yaml").write_text("schema: 2\nname: Far\nchain:\n- plugin: evil.py\n")
    folder = presets.user_folder()
    folder.mkdir(parents=True)
    for where in (tmp_path, folder):
        (where / "home.yaml").write_text(f"schema: 2\nname: H\nchain:\n- plugin: gain\nmorph: {tmp_path}/far.yaml\n")
    with pytest.raises(UsageError, match=r"evil.py is code, and runs only for a preset that is given by its path"):
        Scenes(Rig(presets.load("home"))).morph(1.0)
    assert not ran.exists()
    with pytest.raises(RtganError, match="defines 0 Plugin classes"):
        Scenes(Rig(presets.load(str(tmp_path / "home.yaml")))).morph(1.0)
    assert ran.exists()


def test_a_host_plays_scenes() -> None:
    with Host(preset="clean", source=speechlike(10.0)[None]) as host:
        assert host.wait_first_block()
        scenes = Scenes(host)
        scenes.snapshot("Street")
        scenes.morph(1.0)
        gentle = presets.load("gentle").values()
        while not all(host.values[name] == value for name, value in gentle.items()):
            assert host.running, "it never came to that"
    assert host.stats().problems == ()
