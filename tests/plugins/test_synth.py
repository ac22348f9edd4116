"""The synthesiser as people play it: notes at their sample, in tune, without clicks, and none that hangs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from rtgan import events, notes, offline, presets
from rtgan.control import mapping
from rtgan.engine import Engine
from rtgan.errors import UsageError
from rtgan.events import Record
from rtgan.generators import library
from rtgan.graph import ChainItem, Graph
from rtgan.plugins.synth import Synth

RATE = 48000
Sound = NDArray[np.float32]
ON, OFF, CONTROL, BEND, PRESSURE = 0x90, 0x80, 0xB0, 0xE0, 0xD0


@dataclass
class Played:
    """A synthesiser alone in an engine, and what it played."""

    timbre: str = "grand"
    towards: str = ""
    values: dict[str, float] | None = None
    rate: int = RATE
    max_block: int = 512

    def __post_init__(self) -> None:
        self.engine = Engine(self.rate, 1, max_block=self.max_block)
        plugin = Synth(timbre=self.timbre, towards=self.towards)
        self.graph = Graph([ChainItem(plugin, dict(self.values or {}), "it")], self.rate, self.max_block, 1)
        self.engine.publish(self.graph)

    def send(self, *message: int, when: int = events.NOW, port: int = 0) -> None:
        assert self.engine.midi(bytes(message), when, port)

    def set(self, name: str, value: float, when: int = events.NOW) -> None:
        assert self.engine.set_param(self.graph, self.graph.find(f"it.{name}")[0], value, when)

    def run(self, seconds: float, block: int = 256) -> Sound:
        silence = np.zeros((round(seconds * self.rate), 1), np.float32)
        out = [self.engine.render(silence[i : i + block])[:, 0] for i in range(0, len(silence), block)]
        assert self.engine.memory_intact and self.graph.faults == {"it": 0}
        return np.concatenate(out)

    @property
    def voices(self) -> float:
        return self.graph.readings["it.voices"]


def hertz_of(sound: Sound, near_hz: float) -> float:
    """Frequency of the partial next to ``near_hz``, to a small part of a cent."""
    size = 1 << 20
    level = np.abs(np.fft.rfft(sound * np.hanning(len(sound)), size))
    low, high = (int(near_hz * 2**s * size / RATE) for s in (-0.04, 0.04))
    k = low + int(level[low:high].argmax())
    a, b, c = np.log(level[k - 1 : k + 2])
    return float((k + 0.5 * (a - c) / (a - 2 * b + c)) * RATE / size)


def cents(hertz: float, note: float) -> float:
    return float(1200 * np.log2(hertz / (440 * 2 ** ((note - 69) / 12))))


def roughness(sound: Sound) -> float:
    """The largest step from one second difference to the next: what a click is, and music hardly."""
    return float(np.abs(np.diff(sound.astype(np.float64), 2)).max())


@pytest.mark.parametrize("rate", [44100, 48000, 96000])
def test_a_note_begins_at_its_own_sample(rate: int) -> None:
    played = Played(rate=rate)
    assert played.graph.latency_samples == 0
    played.run(0.01)
    at = 3333
    played.send(ON, 60, 100, when=at)
    before = played.engine.counters.position_samples
    sound = played.run(0.2, 64)
    first = int(np.flatnonzero(sound)[0]) + before
    assert at <= first <= at + 2
    level = np.abs(sound[at - before :])
    assert int(np.flatnonzero(level > 0.1 * level.max())[0]) < 0.02 * rate


@pytest.mark.parametrize("note", [33, 45, 60, 69, 81, 93])
@pytest.mark.parametrize("timbre", ["grand", "sax"])
def test_it_is_in_tune(timbre: str, note: int) -> None:
    # One partial's level says nothing of pitch, but moves what is measured of a weak fundamental.
    played = Played(timbre, values={"noise_db": -40, "waver": 0})
    played.send(ON, note, 90)
    sound = played.run(0.8)[RATE // 10 :]
    assert abs(cents(hertz_of(sound, 440 * 2 ** ((note - 69) / 12)), note)) < 2


def test_a_bend_moves_as_far_as_its_range_says_and_no_click_is_heard() -> None:
    played = Played("sax")
    played.send(ON, 60, 90)
    still = played.run(0.5)
    for k in range(64):
        bend = 8192 + 128 * k + 127
        played.send(BEND, bend & 127, bend >> 7, when=played.engine.counters.position_samples + 200 * k)
    moving = played.run(0.4)
    assert roughness(moving) < 3 * roughness(still[RATE // 4 :])
    assert abs(cents(hertz_of(played.run(0.5), 293.66), 62)) < 2
    for message in ((101, 0), (100, 0), (6, 12)):
        played.send(CONTROL, *message)
    played.run(0.1)
    assert abs(cents(hertz_of(played.run(0.5), 523.25), 72)) < 2


def test_a_zone_bends_each_note_by_itself() -> None:
    played = Played("sax")
    for message in ((101, 0), (100, 6), (6, 5)):
        played.send(CONTROL, *message)
    played.send(ON | 1, 60, 90)
    played.send(ON | 2, 67, 90)
    bend = 8192 + 8191 * 4 // 48
    played.send(BEND | 1, bend & 127, bend >> 7)
    played.run(0.3)
    sound = played.run(0.8)
    assert abs(cents(hertz_of(sound, 329.63), 64)) < 5
    assert abs(cents(hertz_of(sound, 392.0), 67)) < 2


def test_how_blocks_are_cut_shows_in_no_bit() -> None:
    rng = np.random.default_rng(4)
    plan = []
    for when in np.sort(rng.integers(0, 20000, 150)).tolist():
        status = int(rng.choice([ON, ON, ON, OFF, BEND, PRESSURE, CONTROL]))
        one = int(rng.choice([64, 66])) if status == CONTROL else int(rng.integers(128))
        plan.append((when, (status, one, int(rng.integers(128)))))
    outs = []
    for block in (256, 64, 1, 997):
        played = Played(values={"vibrato": 0.3, "walk": 0.5, "portamento_ms": 50, "drone": 1}, max_block=1024)
        for when, message in plan:
            played.send(*message, when=when)
        played.set("morph", 1.0, 5000)
        outs.append(played.run(0.5, block))
    assert np.abs(outs[0]).max() > 0.01
    assert all(np.array_equal(out.view(np.int32), outs[0].view(np.int32)) for out in outs)


def test_a_struck_key_dies_away_and_a_blown_one_lasts_until_it_is_let_go() -> None:
    levels = {}
    for timbre in ("grand", "sax"):
        played = Played(timbre)
        played.send(ON, 72, 100)
        sound = played.run(6.0)
        levels[timbre] = np.sqrt([np.mean(sound[i * RATE : (i + 1) * RATE] ** 2) for i in range(6)])
        played.send(OFF, 72, 0)
        played.run(3.0)
        assert played.voices == 0 and not played.run(0.1).any()
    assert levels["grand"][5] < 0.2 * levels["grand"][0]
    assert levels["sax"][5] > 0.5 * levels["sax"][1]


def test_pedals_hold_what_they_are_to_hold() -> None:
    played = Played("sax")
    played.send(ON, 60, 90)
    played.run(0.01)
    played.send(CONTROL, 66, 127)
    played.send(ON, 64, 90)
    played.send(OFF, 60, 0)
    played.send(OFF, 64, 0)
    played.run(1.5)
    assert played.voices == 1, "sostenuto holds the key that was down, not the later one"
    played.send(CONTROL, 66, 0)
    played.run(1.5)
    assert played.voices == 0
    played.send(CONTROL, 64, 127)
    played.send(ON, 60, 90)
    played.send(OFF, 60, 0)
    played.run(1.5)
    assert played.voices == 1
    played.send(CONTROL, 64, 0)
    played.run(1.5)
    assert played.voices == 0


@pytest.mark.parametrize(
    "end", [(CONTROL, 120, 0), (CONTROL, 123, 0), (0xFF,), "panic", "reset", "lost", "overflow"], ids=str
)
def test_no_note_hangs(end: tuple[int, ...] | str) -> None:
    played = Played("sax")
    played.send(CONTROL, 64, 127)
    for note in range(50, 60):
        played.send(ON, note, 90)
        played.send(OFF, note, 0)
    played.send(ON, 70, 90)
    played.run(0.3)
    assert played.voices == 11
    match end:
        case "panic":
            played.engine.panic()
        case "reset":
            played.engine.send(Record(events.RESET, events.NOW))
        case "lost":
            played.engine.end_notes()
        case "overflow":
            while played.engine.native.push(Record(events.MIDI, 0, 0xF8)):
                pass
        case _:
            played.send(*end)
    played.run(1.5)
    assert played.voices == 0 and not played.run(0.1).any()


def test_a_port_that_is_unplugged_takes_its_own_notes_along_and_no_others() -> None:
    played = Played("sax")
    for port in (1, 2):
        played.send(ON, 60 + port, 90, port=port)
        played.send(CONTROL, 64, 127, port=port)
    played.run(0.3)
    played.send(notes.LET_GO, port=1)
    played.run(1.5)
    assert played.voices == 1 and played.run(0.1).any()
    played.send(notes.LET_GO, port=2)
    played.run(1.5)
    assert played.voices == 0


def test_all_keys_at_once_and_floods_of_notes_make_no_click_and_leave_nothing_behind() -> None:
    played = Played("grand", values={"level_db": -20})
    for note in range(128):
        played.send(ON, note, 100)
    chord = played.run(0.5)
    assert played.voices <= 16 and 0.001 < np.abs(chord).max() < 1
    for note in range(128):
        played.send(OFF, note, 0)
    start = played.engine.counters.position_samples
    rng = np.random.default_rng(1)
    for k in range(1500):
        played.send(ON, int(rng.integers(128)), 1 + int(rng.integers(127)), when=start + 7 * k)
        played.send(OFF, int(rng.integers(128)), 0, when=start + 7 * k + 3)
    flood = played.run(0.4)
    assert np.isfinite(flood).all() and np.abs(flood).max() < 1
    played.engine.end_notes()
    played.run(3.0)
    assert played.voices == 0


def test_stealing_and_letting_go_make_no_step_larger_than_the_sound_has() -> None:
    played = Played("sax", values={"level_db": -12})
    for k in range(16):
        played.send(ON, 60 - k, 90)
    played.run(0.5)
    steady = roughness(played.run(0.5))
    played.send(ON, 30, 1)  # the seventeenth, soft and low: what is heard is the one that goes
    assert roughness(played.run(0.2)) < 2 * steady
    for k in range(16):
        played.send(OFF, 60 - k, 0)
    assert roughness(played.run(0.5)) < 1.5 * steady


def test_moving_from_timbre_to_timbre_makes_no_click() -> None:
    played = Played("sax", "strings")
    played.send(ON, 57, 90)
    one = played.run(0.6)[RATE // 10 :]
    played.set("morph", 1.0)
    between = played.run(0.3)
    other = played.run(0.6)
    assert roughness(between) < 1.5 * max(roughness(one), roughness(other))
    spectra = [np.log(np.abs(np.fft.rfft(s[:16384] * np.hanning(16384)))[100:4000] + 1e-3) for s in (one, other)]
    assert np.abs(spectra[0] - spectra[1]).mean() > 0.2, "the timbres differ"


def test_legato_goes_on_with_one_voice_and_comes_back_to_the_key_that_is_still_down() -> None:
    played = Played("sax", values={"mono": 1, "portamento_ms": 60})
    played.send(ON, 60, 90)
    played.run(0.4)
    played.send(ON, 67, 90)
    played.run(0.4)
    assert played.voices == 1
    assert abs(cents(hertz_of(played.run(0.5), 392.0), 67)) < 2
    played.send(OFF, 67, 0)
    played.run(0.4)
    assert abs(cents(hertz_of(played.run(0.5), 261.63), 60)) < 2
    played.send(OFF, 60, 0)
    played.run(1.5)
    assert played.voices == 0


def test_legato_with_keys_of_several_channels_or_ports_leaves_no_note_behind() -> None:
    # As MPE plays: each key has a channel of its own.
    played = Played("sax", values={"mono": 1})
    played.send(0x91, 60, 90)
    played.run(0.2)
    played.send(0x92, 64, 90)
    played.run(0.2)
    played.send(0x82, 64, 0)
    played.run(0.2)
    assert played.voices == 1
    played.send(0x81, 60, 0)
    played.run(1.5)
    assert played.voices == 0
    # A keyboard is pulled out while two of its keys are down: nothing goes back to the one that was silent.
    played.send(ON, 60, 90)
    played.send(ON, 64, 90)
    played.run(0.2)
    played.send(0xFF, port=0)
    played.run(1.5)
    assert played.voices == 0
    played.send(ON, 70, 90, port=1)
    played.run(0.2)
    played.send(OFF, 70, 0, port=1)
    played.run(1.5)
    assert played.voices == 0


def test_the_end_of_a_note_that_found_no_room_ends_one_that_still_waits() -> None:
    played = Played("sax")
    played.send(ON, 60, 90)
    played.engine.end_notes()
    played.run(1.5)
    assert played.voices == 0


def test_harder_is_louder_and_no_single_note_clips() -> None:
    for timbre in [t.name for t in library.load("tones").card.timbres]:
        for note in (24, 45, 60, 75, 90, 108):
            levels = []
            for velocity in (20, 70, 127):
                played = Played(timbre)
                played.send(ON, note, velocity)
                sound = played.run(0.4)
                levels.append(float(10 * np.log10(np.mean(sound[: RATE // 4] ** 2) + 1e-12)))
                assert np.abs(sound).max() < 0.9, (timbre, note)
            assert levels[0] + 6 < levels[1] < levels[2] - 4, (timbre, note, levels)


def test_repeated_notes_differ_and_the_same_performance_does_not() -> None:
    def performed(seed: float) -> list[Sound]:
        played = Played(values={"variation": 1.0, "seed": seed})
        out = []
        for _ in range(2):
            played.send(ON, 60, 90)
            out.append(played.run(0.4))
            played.send(CONTROL, 120, 0)
            played.run(0.1)
        return out

    first, again, other = performed(0), performed(0), performed(1)
    assert np.array_equal(first[0], again[0]) and np.array_equal(first[1], again[1])
    assert not np.allclose(first[0], first[1], atol=1e-3)
    assert not np.allclose(first[0], other[0], atol=1e-3)


def test_a_held_note_wavers_as_much_as_is_asked_for() -> None:
    def partial_levels(waver: float) -> Sound:
        played = Played("sax", values={"variation": 0.0, "waver": waver, "vibrato": 0.0})
        played.send(ON, 57, 90)
        sound = played.run(2.0)
        # The second and third partial of 220 Hz, in pieces of 1/22 s.
        pieces = sound[: len(sound) // 2182 * 2182].reshape(-1, 2182)
        turns = np.exp(-2j * np.pi * 220 * np.outer(np.arange(2182) / RATE, [2, 3]))
        return 20 * np.log10(np.abs((pieces * np.hanning(2182)) @ turns))

    steady, alive, wild = (partial_levels(w) for w in (0.0, 1.0, 2.0))
    assert not np.allclose(steady, alive, atol=0.5)
    assert np.diff(steady, axis=0).std() < np.diff(alive, axis=0).std() < np.diff(wild, axis=0).std()
    away = np.abs(alive - steady)
    assert away[0].max() < 2.5 < away.max(), "a note begins as the net says"


def test_what_is_no_number_leaves_it_playing() -> None:
    played = Played("sax")
    played.send(ON, 60, 90)
    played.run(0.2)
    for name in ("latent_1", "morph", "level_db", "tune", "walk"):
        played.engine.set_param(played.graph, played.graph.find(f"it.{name}")[0], float("nan"))
    assert np.isfinite(played.run(0.5)).all()


def test_a_drone_sounds_without_a_key_and_ends_when_it_is_turned_off() -> None:
    played = Played("strings", values={"drone": 3, "walk": 1, "walk_hz": 0.5})
    sound = played.run(2.0)
    assert played.voices == 3 and np.abs(sound[RATE:]).max() > 0.01
    played.set("drone", 0)
    played.run(3.0)
    assert played.voices == 0


def test_unknown_timbres_and_models_of_another_kind_are_refused() -> None:
    with pytest.raises(UsageError, match="has no timbre 'kazoo'; it has: grand, "):
        Synth(timbre="kazoo")
    with pytest.raises(Exception, match="is for 'denoise' and cannot play notes"):
        Synth(model="voice")


def test_a_performance_in_the_log_is_played_again_to_the_bit(tmp_path: Path) -> None:
    preset = presets.load("keys")
    first = offline.Renderer(preset, RATE, 1, prepare=mapping.preparing(()))
    found: list[Record] = []
    poll = first.engine.poll
    first.engine.poll = lambda: found.extend(poll()) or []  # type: ignore[func-returns-value, method-assign]
    messages = [(900, b"\x90\x3c\x64"), (5000, b"\xb0\x01\x40"), (7000, b"\xe0\x00\x50"), (20000, b"\x80\x3c\x00")]
    silence = np.zeros((1, 30000), np.float32)
    heard = first.perform(silence, midi=messages, port=mapping.FILE_PORT)
    lines = [offline.log_header(preset, RATE, 1, first.graph.values())]
    for record in found:
        if record.kind == events.HEARD:
            lines.append(offline.log_midi(record.when, record.a.to_bytes(3, "little"), record.b))
        elif record.kind == events.APPLIED:
            step = offline.Step(record.when, list(first.graph.index)[record.a], record.x, ramp_samples=int(record.y))
            lines.append(offline.log_step(step))
    log = tmp_path / "log.jsonl"
    log.write_text("\n".join(lines) + "\n", encoding="utf-8")
    again, _, steps, rate, _ = offline.read_log(log)
    assert any(step.param == "synth.morph" for step in steps) and np.abs(heard).max() > 0.01
    assert np.array_equal(offline.Renderer(again, rate, 1).perform(silence, steps), heard)
