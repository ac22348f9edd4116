"""A and B, on a host that is fed by hand: at one loudness, without a click, each with its own edits."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray
from support import speechlike

from rtgan import Host, cli, presets
from rtgan.control.comparison import Comparison
from rtgan.engine import E_ACTIVE, E_BESIDE, E_NEXT
from rtgan.graph import TRIM
from rtgan.kernels import loudness
from rtgan.presets import Entry, Preset

RATE = 48000
A = Preset("Plain", (Entry("highpass", {"cutoff_hz": 50}), Entry("gain", {"gain_db": -14})))
LOUD = A.with_values({"gain.gain_db": -8})
OTHER = Preset("Other", (Entry("gain", {"gain_db": -4}), Entry("limiter")), crossfade_ms=600)
SLOW = Preset("Slow", (Entry("gain", {"gain_db": -4}), Entry("limiter"), Entry("gate", {"bypass": 1})))


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.005)


class Rig:
    """A host with its comparison, and hands to feed it."""

    def __init__(self, preset: Preset) -> None:
        self.host = Host(preset=preset, source=np.zeros((1, 1), np.float32), out_channels=[1])
        self.compare = Comparison(self.host)
        self.host.listen(self.compare.heard)
        self.run(np.zeros(RATE // 10, np.float32))

    def run(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        pieces = []
        for at in range(0, len(samples), 500):
            pieces.append(self.host.engine.render(np.ascontiguousarray(samples[at : at + 500, None])).copy())
            self.host._poll()
        return np.concatenate(pieces)[:, 0]

    def change(self, preset: Preset) -> None:
        """Make the side that sounds another one."""
        self.host.load(preset)
        self.run(np.zeros(RATE, np.float32))


@pytest.fixture
def rig() -> Iterator[Rig]:
    return Rig(A)


def lufs(samples: NDArray[np.float32]) -> float:
    meter = loudness.build(RATE, 1)
    loudness.measure_array(meter, np.ascontiguousarray(samples[None]))
    return float(meter.view(np.float64)[loudness.INTEGRATED])


@pytest.mark.parametrize("other", [LOUD, OTHER], ids=["same chain", "other chain"])
def test_both_sides_are_heard_at_one_loudness_whatever_is_said_meanwhile(rig: Rig, other: Preset) -> None:
    voice = speechlike(4.0)
    rig.compare.play(1)
    rig.change(other)
    levels = {}
    # While A sounds somebody speaks 12 dB softer.
    for which in (0, 1, 0, 1):
        rig.compare.play(which)
        heard = rig.run(voice * (0.25 if which == 0 else 1.0))
        levels[which] = lufs(heard[-2 * RATE :])
    trims = rig.compare.state["trim_db"]
    assert trims[0] == 0, "the softer side is never turned up"
    assert trims[1] == pytest.approx(-6 if other is LOUD else -10, abs=0.3)
    assert levels[1] - levels[0] == pytest.approx(20 * np.log10(4), abs=0.5)
    assert rig.compare.state["known"]
    assert rig.host.values["host.volume_db"] == 0, "the performer's volume is left alone"
    rig.compare.match(False)
    assert lufs(rig.run(voice)[-2 * RATE :]) == pytest.approx(levels[1] - trims[1], abs=0.3)
    assert rig.compare.state["trim_db"] == [0, 0]


@pytest.mark.parametrize("other", [LOUD, OTHER], ids=["same chain", "other chain"])
def test_changing_sides_makes_no_click_and_no_gap(rig: Rig, other: Preset) -> None:
    rig.compare.play(1)
    rig.change(other)
    tone = (0.2 * np.sin(2 * np.pi * 200 * np.arange(3 * RATE) / RATE)).astype(np.float32)
    for which in (0, 1):
        rig.compare.play(which)
        rig.run(tone)
    pieces = []
    for k in range(12):
        rig.compare.play(k % 2)
        # A hand that is faster than the fade, too.
        pieces.append(rig.run(tone[: RATE // 4 if k % 3 else 960]))
    heard = np.concatenate(pieces)
    assert rig.compare.state["trim_db"][1] < -5
    own = 2 * np.pi * 200 / RATE * np.abs(heard).max()
    assert np.abs(np.diff(heard)).max() < 1.5 * own
    quiet = np.sqrt(np.convolve(heard**2, np.ones(480) / 480, "valid"))
    assert quiet.min() > 0.5 * np.median(quiet)


def test_edits_go_to_the_side_that_sounds_and_are_found_there_again(rig: Rig) -> None:
    host, nothing = rig.host, np.zeros(4800, np.float32)
    rig.compare.play(1)
    host.set("gain.gain_db", 3)
    rig.run(nothing)
    rig.compare.toggle()
    rig.run(nothing)
    assert (rig.compare.state["side"], host.values["gain.gain_db"]) == ("A", -14)
    # What was asked for just before belongs to the side that sounded then.
    host.set("highpass.cutoff_hz", 300)
    host.engine.render(nothing[:64, None])
    rig.compare.toggle()
    rig.run(nothing)
    assert (host.values["gain.gain_db"], host.values["highpass.cutoff_hz"]) == (3, 50)
    rig.compare.toggle()
    rig.run(nothing)
    assert (host.values["gain.gain_db"], host.values["highpass.cutoff_hz"]) == (-14, 300)
    rig.compare.copy()
    rig.compare.toggle()
    rig.run(nothing)
    assert (host.values["gain.gain_db"], host.values["highpass.cutoff_hz"]) == (-14, 300)
    assert len(host._adopted) == 1, "values alone load no graph"


def test_whole_presets_keep_their_names_and_their_files(rig: Rig) -> None:
    path = presets.user_folder() / "other.yaml"
    presets.save(OTHER, path)
    rig.compare.play(1)
    rig.change(presets.load("other"))
    rig.host.set("gain.gain_db", 5)
    rig.run(np.zeros(4800, np.float32))
    for _ in range(2):
        rig.compare.play(0)
        rig.run(np.zeros(9600, np.float32))
        assert (rig.host.preset.name, rig.host.preset.path) == ("Plain", None)
        rig.compare.play(1)
        rig.run(np.zeros(9600, np.float32))
    assert rig.compare.state["names"] == ["Plain", "Other"]
    assert rig.host.preset == OTHER and rig.host.preset.path == path, "what was turned is no part of what is saved"
    assert rig.host.values["gain.gain_db"] == 5
    rig.compare.play(0)
    path.unlink()
    rig.compare.play(1)
    assert rig.host.preset.path is None, "its file has gone: the sound is kept"


def test_silence_says_nothing_and_what_makes_its_own_sound_is_weighed_by_that(rig: Rig) -> None:
    rig.compare.play(1)
    rig.host.set("gain.gain_db", -2)
    for which in (0, 1):
        rig.compare.play(which)
        rig.run(np.zeros(3 * RATE, np.float32))
    assert rig.compare.state["lufs"] == [None, None]
    assert not rig.compare.state["known"]
    # Too soft to count where it comes in, not where it comes out.
    hiss = (1.3e-4 * np.random.default_rng(0).standard_normal(3 * RATE)).astype(np.float32)
    for which, db in ((0, 10.0), (1, 16.0)):
        rig.compare.play(which)
        rig.host.set("gain.gain_db", db)
        rig.run(np.tile(hiss, 2))
    assert rig.compare.state["trim_db"] == [0, pytest.approx(-6, abs=0.3)]


def test_what_somebody_loads_plays_as_it_is_until_it_has_been_heard(rig: Rig) -> None:
    rig.compare.play(1)
    rig.change(LOUD)
    voice = speechlike(3.0)
    for which in (0, 1):
        rig.compare.play(which)
        rig.run(voice)
    assert rig.compare.state["trim_db"][1] < -5
    rig.change(OTHER)
    rig.run(np.zeros(RATE, np.float32))
    assert rig.compare.state["trim_db"] == [0, 0]
    rig.run(voice)
    assert rig.compare.state["trim_db"][1] < -9
    rig.host.set("host.bypass", 1)
    before = rig.compare.state
    rig.run(0.01 * voice)
    assert rig.compare.state == before, "a bypassed side is not heard"


def test_the_other_side_runs_on_so_that_it_is_heard_at_once_and_weighed_without_being_heard(rig: Rig) -> None:
    host, voice = rig.host, speechlike(3.0)
    rig.compare.play(1)
    rig.compare.load(SLOW)
    rig.run(np.zeros(RATE, np.float32))
    rig.run(voice)
    assert rig.compare.state["trim_db"] == [0, pytest.approx(-10, abs=0.3)], "A was weighed beside B"
    steps = []
    for which in (0, 1, 0, 1):
        rig.compare.play(which)
        rig.run(np.zeros(RATE // 10, np.float32))
        steps.append((host.preset.name, host.serial))
    assert len(set(steps)) == 2 and len(host._adopted) == 2, "nothing was built"
    # Heard within the fade of 30 ms, though the preset settles for as long as a second.
    tone = (0.1 * np.sin(2 * np.pi * 200 * np.arange(RATE // 2) / RATE)).astype(np.float32)
    rig.compare.match(False)
    rig.run(tone)
    rig.compare.play(0)
    heard = rig.run(tone)
    assert np.abs(heard[:960]).max() > np.abs(heard[RATE // 20 : RATE // 10]).max() * 1.5
    assert np.abs(heard[RATE // 10 :]).max() == pytest.approx(np.abs(heard[RATE // 20 : RATE // 10]).max(), rel=0.02)
    # A copy makes both alike: the other graph is let go.
    rig.compare.copy()
    rig.run(np.zeros(4800, np.float32))
    assert len(host._serials) == 1 and host.engine._words[E_BESIDE] == 0
    rig.compare.play(1)
    assert (host.preset.name, len(host._adopted)) == ("Plain", 2)


def test_a_hand_faster_than_the_fade_leaves_what_it_asked_for_last(rig: Rig) -> None:
    host = rig.host
    rig.compare.play(1)
    rig.compare.load(SLOW)
    rig.run(np.zeros(2 * RATE, np.float32))
    rng = np.random.default_rng(3)
    for _ in range(60):
        rig.compare.toggle()
        for _ in range(int(rng.integers(0, 3))):
            host.engine.render(np.zeros((480, 1), np.float32))
    host._poll()
    rig.run(np.zeros(RATE, np.float32))
    assert host.engine._words[E_NEXT] == 0
    playing = next(g for g in host.engine._graphs.values() if g.address == host.engine._words[E_ACTIVE])
    assert playing.serial == host.serial and host.preset.name == rig.compare.state["names"][rig.compare.side]
    assert len(host.engine._graphs) == len(host._serials) == 2
    host.load(OTHER)
    rig.run(np.zeros(RATE, np.float32))
    assert len(host.engine._graphs) == 2 and host.engine.memory_intact


def test_trims_and_recalls_are_part_of_a_take_and_of_no_preset(tmp_path: Path) -> None:
    file = tmp_path / "take.wav"
    with Host(preset=A, source=speechlike(6.0)[None], record=file) as host:
        assert host.wait_first_block()
        host.trim(-9)
        host.catch_up()
        first = host.serial
        host.load(OTHER, trim_db=-4.5, keep=True)
        host.catch_up()
        host.trim(-1, ramp_ms=300)
        host.catch_up()
        until(lambda: host.engine._words[E_BESIDE] != 0)
        assert host.recall(first)
        host.catch_up()
        until(lambda: host.engine._words[E_NEXT] == 0)
        host.set("gain.gain_db", -3)
        host.catch_up()
        assert TRIM.id not in host.values and len(host._adopted) == 2
    assert '"trim_db"' in file.with_suffix(".events.jsonl").read_text()
    assert cli.main(["replay", str(file), "-o", str(tmp_path / "again.wav")]) == 0
    again, _ = soundfile.read(tmp_path / "again.wav", dtype="float32")
    taken, _ = soundfile.read(file, dtype="float32")
    assert len(taken) > RATE // 10
    assert np.array_equal(again, taken)


def test_a_take_begun_while_two_are_compared_can_be_replayed(tmp_path: Path) -> None:
    file = tmp_path / "take.wav"
    with Host(preset=A, source=speechlike(6.0)[None]) as host:
        assert host.wait_first_block()
        first = host.serial
        host.load(LOUD, keep=True)
        until(lambda: host.engine._words[E_BESIDE] != 0)
        second = host.serial
        host.record(file)
        assert host.recall(first)
        until(lambda: host.engine._words[E_NEXT] == 0)
        host.trim(-3)
        host.catch_up()
        assert host.recall(second)
        until(lambda: host.engine._words[E_NEXT] == 0)
        host.set("gain.gain_db", -20)
        host.catch_up()
        host.stop_recording()
    steps = [json.loads(line) for line in file.with_suffix(".events.jsonl").read_text().splitlines()[1:]]
    assert [(s.get("recall"), s.get("keep")) for s in steps if "preset" in s] == [(None, True), (0, None)]
    assert [(s["param"], s["graph"]) for s in steps if "param" in s] == [("trim_db", 1), ("gain.gain_db", 0)]
    # Rendered from rest, which is not what was heard, but all of it.
    cli.main(["replay", str(file), "-o", str(tmp_path / "again.wav")])
    assert soundfile.info(tmp_path / "again.wav").frames == soundfile.info(file).frames
