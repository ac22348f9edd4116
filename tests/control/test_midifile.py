"""A standard MIDI file drives the host: live and offline with the same timing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mido
import numpy as np
import pytest
import soundfile
from support import speechlike

from rtgan import Host, offline
from rtgan.control.desk import Desk
from rtgan.control.mapping import FILE_PORT, preparing
from rtgan.control.midifile import FilePlayer, preset_steps, read
from rtgan.errors import RtganError, UsageError
from rtgan.setlist import SetList, Slot

RATE = 48000
PRESET = """\
schema: 2
name: Played
chain:
- plugin: gain
- plugin: highpass
midi:
- {control: cc 7, port: midi file, target: gain.gain_db, range: [-20, 0]}
- {control: cc 1, target: highpass.cutoff_hz, smoothing_ms: 40}
- {control: note 60, target: host.mute, mode: momentary}
"""


@pytest.fixture
def played(tmp_path: Path) -> tuple[Path, Path]:
    """A preset and a file with two tempos, faders, notes, a system exclusive message and a burst."""
    preset = tmp_path / "played.yaml"
    preset.write_text(PRESET)
    file = mido.MidiFile(ticks_per_beat=480)
    first, second = mido.MidiTrack(), mido.MidiTrack()
    file.tracks += [first, second]
    first.append(mido.MetaMessage("set_tempo", tempo=500_000))
    first.append(mido.MetaMessage("set_tempo", tempo=250_000, time=480))
    for k in range(64):
        first.append(mido.Message("control_change", control=7, value=127 - k, time=7 if k else 0))
    first += [mido.Message("control_change", control=1, value=k) for k in range(64)]
    second.append(mido.Message("sysex", data=(1, 2, 3)))
    second.append(mido.Message("note_on", note=60, velocity=99, time=700))
    second.append(mido.Message("note_off", note=60, time=100))
    path = tmp_path / "song.mid"
    file.save(path)
    return preset, path


def test_tempo_changes_are_worked_in_and_sysex_is_left_out(played: tuple[Path, Path]) -> None:
    messages = read(played[1], RATE)
    assert len(messages) == 64 + 64 + 2
    assert messages[0] == (RATE // 2, b"\xb0\x07\x7f"), "one beat at 120"
    assert messages[1][0] == round((0.5 + 7 * 0.25 / 480) * RATE), "then at 240"
    assert [p for p, d in messages if d[0] == 0x90] == [round((0.5 + 220 * 0.25 / 480) * RATE)]


def test_live_and_offline_are_the_same_to_the_bit(played: tuple[Path, Path], tmp_path: Path) -> None:
    preset, path = played
    messages = read(path, RATE)
    host = Host(preset=str(preset), source=speechlike(2.0)[None], record=tmp_path / "take")
    player = FilePlayer(host.engine, messages)
    player.start()
    with Desk(host, ports=False), host:
        while not host.source_ended:
            pass
    player.close()
    log = [json.loads(line) for line in (tmp_path / "take" / "take.events.jsonl").read_text().splitlines()[1:]]
    assert [(e["position"], bytes.fromhex(e["midi"])) for e in log if "midi" in e] == messages
    dry, _ = soundfile.read(tmp_path / "take" / "take.dry.wav", dtype="float32")
    wet, _ = soundfile.read(tmp_path / "take" / "take.wav", dtype="float32")
    again = offline.process(
        dry, RATE, str(preset), keep_latency=True, midi=messages, port=FILE_PORT, prepare=preparing(())
    )
    assert np.array_equal(again.view(np.int32), wet.view(np.int32))
    assert not np.array_equal(wet, offline.process(dry, RATE, str(preset), keep_latency=True))


def test_more_messages_than_the_inbox_holds(tmp_path: Path) -> None:
    preset = tmp_path / "played.yaml"
    preset.write_text(PRESET)
    midi = [(1000 + k, bytes([0xB0, 7, k % 128])) for k in range(20_000)]
    renderer = offline.Renderer(offline.presets.load(str(preset)), RATE, 1, prepare=preparing(()))
    heard: list[int] = []
    poll = renderer.engine.poll

    def listening() -> Any:
        records = poll()
        heard.extend(r.when for r in records if r.kind == offline.events.HEARD)
        return records

    renderer.engine.poll = listening  # type: ignore[method-assign]
    renderer.perform(np.zeros((1, RATE), np.float32), midi=midi, port=FILE_PORT)
    assert heard == [p for p, _ in midi]


def test_program_changes_become_presets() -> None:
    order = SetList((Slot("bypass", 3), Slot("stage", 3, 130)))
    messages = [(10, b"\xc1\x03"), (20, b"\xb1\x00\x01"), (21, b"\xb1\x20\x02"), (30, b"\xc1\x03"), (40, b"\xc0\x63")]
    steps = preset_steps(messages, order)
    assert [(s.position, s.preset.name) for s in steps if s.preset] == [(10, "Bypass"), (30, steps[1].preset.name)]  # type: ignore[union-attr]
    assert len(steps) == 2


def test_on_the_command_line(played: tuple[Path, Path], tmp_path: Path, cli: Callable[..., Any]) -> None:
    preset, path = played
    soundfile.write(tmp_path / "in.wav", speechlike(1.0), RATE, "FLOAT")
    done = cli("process", tmp_path / "in.wav", "-o", tmp_path / "out.wav", "--preset", preset, "--midi", path)
    assert done.returncode == 0, done.stderr
    dry, _ = soundfile.read(tmp_path / "in.wav")
    wet, _ = soundfile.read(tmp_path / "out.wav")
    muted = round((0.5 + 270 * 0.25 / 480) * RATE)
    assert np.abs(wet[:20000]).max() > 0.05 < np.abs(dry[muted - 100 : muted + 100]).max() + 0.05
    assert np.abs(wet[muted - 200 : muted + 200]).max() == 0


def test_an_instrument_needs_no_sound_file(played: tuple[Path, Path], tmp_path: Path, cli: Callable[..., Any]) -> None:
    done = cli("process", "-o", tmp_path / "out.wav", "--preset", "keys", "--midi", played[1])
    assert done.returncode == 0, done.stderr
    sound, rate = soundfile.read(tmp_path / "out.wav")
    first = round((0.5 + 220 * 0.25 / 480) * rate)
    assert not sound[: first - 1].any(), "nothing before the note"
    assert np.abs(sound[first : first + rate // 10]).max() > 0.01
    assert np.abs(sound[-rate // 10 :]).max() < 1e-4, "the note has died away"
    done = cli("process", "-o", tmp_path / "none.wav", "--preset", "keys")
    assert done.returncode == 2 and "nothing to process" in done.stderr


def test_times_in_frames_of_a_film_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "film.mid"
    track = bytes([0, 0x90, 60, 90, 40, 0x80, 60, 0, 0, 0xFF, 0x2F, 0])
    path.write_bytes(b"MThd\0\0\0\6\0\0\0\1\xe7\x28MTrk" + len(track).to_bytes(4, "big") + track)
    with pytest.raises(UsageError, match=r"film\.mid: its times are frames of a film \(SMPTE\)"):
        read(path, 48000)


def test_what_is_no_midi_file_is_one_sentence(tmp_path: Path, rng: np.random.Generator) -> None:
    with pytest.raises(RtganError, match="cannot be read: No such file"):
        read(tmp_path / "none.mid", RATE)
    good = mido.MidiFile()
    good.tracks.append(mido.MidiTrack([mido.Message("note_on", note=60, time=100)] * 20))
    good.save(tmp_path / "good.mid")
    data = (tmp_path / "good.mid").read_bytes()
    bad = tmp_path / "bad.mid"
    for _ in range(300):
        mutated = bytearray(data)
        for at in rng.integers(0, len(data), 3):
            mutated[at] = rng.integers(256)
        bad.write_bytes(mutated[: rng.integers(1, len(data) + 1)])
        try:
            found = read(bad, RATE)
        except RtganError as problem:
            assert "bad.mid" in str(problem)
        else:
            assert all(position >= 0 and 0x80 <= m[0] < 0xF0 for position, m in found)
    asynchronous = mido.MidiFile(type=2)
    asynchronous.save(tmp_path / "two.mid")
    with pytest.raises(UsageError, match="type 2"):
        read(tmp_path / "two.mid", RATE)
