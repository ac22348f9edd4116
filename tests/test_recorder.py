"""What a take holds: time stays true where the disk was too slow, and what was heard before it was asked for."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
from planted import Delay
from support import speechlike

import rtgan
from rtgan import Host, batch, events, offline, presets
from rtgan.engine import Engine
from rtgan.errors import RtganError, UsageError
from rtgan.graph import ChainItem, Graph
from rtgan.plugin import plugin_class
from rtgan.recorder import Heard, Recorder, parts


def wait_for(condition: object, seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.01)


def replayed(take: Path) -> int:
    return batch.replay(argparse.Namespace(take=take, output=None, allow_code=False))


@pytest.mark.parametrize("block", [64, 997])
def test_a_stem_is_the_sound_behind_a_plugin_and_fades_with_the_chain(block: int) -> None:
    """The stem of a chain that has no such plugin is silence."""
    sound = (0.4 * np.sin(np.arange(40000) * 0.02)).astype(np.float32)[:, None]
    engine = Engine(48000, 1, tape_frames=1 << 16, stems=2)
    half = ChainItem(plugin_class("gain")(), {"gain_db": 20 * np.log10(0.5)}, "half")
    more = ChainItem(plugin_class("gain")(), {"gain_db": 20 * np.log10(0.5)}, "more")
    engine.publish(Graph([half, ChainItem(Delay()), more], 48000, 1024, 1, stems=("delay", "half")))
    assert engine.tape is not None
    for start in range(0, len(sound), block):
        if start <= 20000 < start + block:
            engine.publish(Graph([half], 48000, 1024, 1, stems=("delay", "half")))
        engine.render(np.ascontiguousarray(sound[start : start + block]))
    dry, wet, delay, first = engine.tape.read().T
    before = slice(100, 19000)
    assert np.array_equal(dry, sound[:, 0])
    assert np.allclose(first[before], 0.5 * dry[before], atol=1e-6)
    assert np.array_equal(delay[before], first[0:18900])
    assert np.allclose(wet[before], 0.5 * delay[before], atol=1e-6)
    assert not delay[-10000:].any() and np.allclose(first[-10000:], 0.5 * dry[-10000:], atol=1e-6)
    assert np.abs(np.diff(delay)).max() <= 0.2 * 0.02 * 1.1 and np.abs(np.diff(first)).max() <= 0.4 * 0.02
    assert engine.memory_intact


def test_what_finds_no_room_on_the_tape_is_silence_of_the_same_length(rng: np.random.Generator) -> None:
    engine = Engine(48000, 1, tape_frames=1024)
    engine.publish(Graph([], 48000, 1024, 1))
    assert engine.tape is not None
    heard = Heard(engine.tape, keep_frames=3000)
    sound = rng.standard_normal((20000, 1)).astype(np.float32) * 0.1
    taken, done = [], 0
    for piece, drain in zip([300] * 60, ([True] * 5 + [False] * 7) * 5, strict=True):
        engine.render(sound[done : done + piece])
        done += piece
        if drain:
            ready = heard.ready
            for record in engine.poll():
                if record.kind == events.TAPING:
                    heard.begin(record.when)
                elif record.kind == events.TAPE_LOST:
                    heard.lost(record.b, record.a)
            taken.append(heard.read(ready))
            assert np.array_equal(np.concatenate(taken)[-3000:], heard.kept)
            assert heard.begin_kept == max(0, sum(map(len, taken)) - 3000)
    frames = np.concatenate(taken)
    lost = int((frames[:, 0] == 0).sum())
    # What was lost after the last frame that found room is told only once there is room again.
    assert 0 < lost <= engine.counters.tape_dropped_frames
    assert lost > 0.2 * len(frames)
    there = frames[:, 0] != 0
    assert np.array_equal(frames[there, 0], sound[: len(frames), 0][there])
    assert np.array_equal(frames[there, 1], frames[there, 0])


def test_pre_roll_holds_what_was_heard_and_done_before(tmp_path: Path) -> None:
    sound = speechlike(30.0)
    with Host(preset="bypass", source=sound[None], pre_roll_s=1.0) as host:
        assert host.wait_first_block()
        host.set("host.volume_db", -6)
        wait_for(lambda: host.engine.counters.position_samples > 72000)
        host.load("voice-basic")
        host.set("gate.threshold_db", -41)
        wait_for(lambda: host.values["gate.threshold_db"] == -41)
        before = host.engine.counters.position_samples
        host.record(tmp_path / "take.wav")
        recorder = host._recorder
        assert isinstance(recorder, Recorder)
        assert before - 52000 < recorder.origin <= before - 40000, "about a second before"
        assert host.mark() == "1"
        wait_for(lambda: host.engine.counters.position_samples > before + 9600)
        assert host.mark("coda", position=recorder.origin + 50000) == "coda"
        host.stop_recording()
        with pytest.raises(RtganError, match="a marker needs a recording"):
            host.mark()
        host.record(tmp_path / "more.wav")
    dry, _ = soundfile.read(tmp_path / "take.dry.wav", dtype="float32")
    assert len(dry) > 48000
    assert np.array_equal(dry, sound[recorder.origin : recorder.origin + len(dry)])
    preset, values, steps, *_ = offline.read_log(tmp_path / "take.events.jsonl")
    assert preset.name == "Bypass" and values["host.volume_db"] == -6, "what was done long ago is where it begins"
    assert [s.preset.name for s in steps if s.preset] == ["Voice without a model"]
    assert any(s.param == "gate.threshold_db" and s.value == -41 and s.graph == 1 for s in steps)
    settings = {name.replace(".", "__", 1): value for name, value in values.items()}
    again = offline.process(dry, 48000, preset, keep_latency=True, steps=steps, **settings)
    wet, _ = soundfile.read(tmp_path / "take.wav", dtype="float32")
    assert np.array_equal(again[4800:], wet[4800:]), "once the volume has gone where it was"
    more, _ = soundfile.read(tmp_path / "more.dry.wav", dtype="float32")
    assert len(more) > 40000, "the next take has its pre-roll too"


def test_a_split_take_is_performed_again_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rtgan.recorder.Recorder.__init__.__defaults__", (16384 + 4 * 9600, (), (), 0))
    take = tmp_path / "take.wav"
    with Host(preset="voice-basic", source=speechlike(5.0)[None], record=take) as host:
        wait_for(lambda: host.engine.counters.position_samples > 24000)
    names = [p.name for p in parts(take)]
    assert names[:3] == ["take.wav", "take-2.wav", "take-3.wav"]
    assert soundfile.info(tmp_path / "take-2.dry.wav").frames == 9600
    assert replayed(take) == 0


def test_a_flac_take(tmp_path: Path) -> None:
    with Host(preset="bypass", source=speechlike(5.0)[None], record=tmp_path / "take.flac") as host:
        wait_for(lambda: host.engine.counters.position_samples > 9600)
    wet, _ = soundfile.read(tmp_path / "take.flac", dtype="float32")
    dry, _ = soundfile.read(tmp_path / "take.dry.flac", dtype="float32")
    assert np.array_equal(wet, dry)
    assert np.abs(dry - speechlike(5.0)[: len(dry)]).max() <= 2.0**-23
    with pytest.raises(UsageError, match="rounded to 24 bits"):
        replayed(tmp_path / "take.flac")


@pytest.mark.parametrize("seconds", [-1.0, 61.0, float("nan")])
def test_a_pre_roll_out_of_range(seconds: float) -> None:
    with pytest.raises(UsageError, match="allowed: 0 to 60"):
        Host(preset="bypass", source=speechlike(1.0)[None], pre_roll_s=seconds)


def test_stems_are_files_of_their_own(tmp_path: Path) -> None:
    take = tmp_path / "take.wav"
    with Host(preset="voice-basic", source=speechlike(20.0)[None], record=take, stems=("highpass", "gate")) as host:
        assert host.wait_first_block()
        wait_for(lambda: host.stats().seconds > 0.5)
        host.mark("here")
        host.load("bypass")
        wait_for(lambda: host.stats().seconds > 1.0)
    dry, wet, first, second = (
        soundfile.read(tmp_path / f"take{part}.wav", dtype="float32")[0] for part in (".dry", "", ".highpass", ".gate")
    )
    assert len(dry) == len(wet) == len(first) == len(second)
    entry = presets.load("voice-basic").chain[0]
    alone = rtgan.process(dry, 48000, presets.Preset("x", (entry,)), keep_latency=True)
    assert np.array_equal(alone[:20000], first[:20000])
    assert np.abs(second[:20000]).max() > 0 and not first[-2000:].any(), "the other preset has no such plugin"
    with pytest.raises(UsageError, match="there is no 'eq' in the preset Voice without a model; it holds: highpass,"):
        Host(preset="voice-basic", source=speechlike(1.0)[None], stems=("eq",))
    with pytest.raises(UsageError, match="a stem cannot be called gate"):
        Host(preset="voice-basic", source=speechlike(1.0)[None], stems=("gate", "gate"))
