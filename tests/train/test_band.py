"""Music composed by chance: what is written, what a real sound font makes of it, and how it ends in a data folder."""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import mido
import numpy as np
import pytest
import soundfile
from support import speechlike

from rtgan.errors import UsageError
from rtgan.train import band
from rtgan.train.data import scan
from rtgan.train.tag_data import TagDataSettings, load_tag_corpus


def _chunk(name: bytes, content: bytes) -> bytes:
    return name + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)


def _list(name: bytes, *chunks: bytes) -> bytes:
    return _chunk(b"LIST", name + b"".join(chunks))


def make_font(path: Path) -> Path:
    """A sound font (SoundFont 2.04) whose one instrument is a sine that rings while its key is held."""
    rate, key, period = 44100, 69, 441
    comment = b"For tests.\nTwo lines\0\0"
    sine = (20000 * np.sin(2 * np.pi * 4.4 * np.arange(20 * period) / 441)).astype("<i2")
    loop_end = 11 * period  # 44 of its waves

    def name(text: str) -> bytes:
        return text.encode().ljust(20, b"\0")

    info = _list(
        b"INFO", _chunk(b"ifil", struct.pack("<HH", 2, 4)), _chunk(b"isng", b"EMU8000\0"),
        _chunk(b"INAM", b"Sine\0\0"), _chunk(b"ICOP", b"Nobody 2026,\0\0"), _chunk(b"ICMT", comment),
    )  # fmt: skip
    samples = _list(b"sdta", _chunk(b"smpl", sine.tobytes() + bytes(92)))
    shape = (0, len(sine), period, loop_end, rate, key, 0, 0, 1)
    presets = _list(
        b"pdta",
        _chunk(b"phdr", name("Sine") + struct.pack("<HHHIII", 0, 0, 0, 0, 0, 0)
               + name("EOP") + struct.pack("<HHHIII", 0, 0, 1, 0, 0, 0)),
        _chunk(b"pbag", struct.pack("<HHHH", 0, 0, 1, 0)),
        _chunk(b"pmod", bytes(10)),
        _chunk(b"pgen", struct.pack("<HHHH", 41, 0, 0, 0)),
        _chunk(b"inst", name("Sine") + struct.pack("<H", 0) + name("EOI") + struct.pack("<H", 1)),
        _chunk(b"ibag", struct.pack("<HHHH", 0, 0, 2, 0)),
        _chunk(b"imod", bytes(10)),
        _chunk(b"igen", struct.pack("<HHHHHH", 54, 1, 53, 0, 0, 0)),
        _chunk(b"shdr", name("sine") + struct.pack("<IIIIIBbHH", *shape)
               + name("EOS") + struct.pack("<IIIIIBbHH", *[0] * 9)),
    )  # fmt: skip
    path.write_bytes(_chunk(b"RIFF", b"sfbk" + info + samples + presets))
    return path


@pytest.fixture(scope="module")
def font(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("fluidsynth") is None:
        if os.environ.get("CI") == "true":
            pytest.fail("fluidsynth must be installed in CI")
        pytest.skip("fluidsynth is not installed")
    return make_font(tmp_path_factory.mktemp("font") / "sine.sf2")


def _held(file: mido.MidiFile) -> list[tuple[float, float, int, int]]:
    """Onset, length, key and channel of every note."""
    at, found = 0.0, []
    open_: dict[tuple[int, int], list[float]] = {}
    for message in file:
        at += message.time
        if message.type == "note_on":
            open_.setdefault((message.channel, message.note), []).append(at)
            assert 15 <= message.velocity <= 127
        elif message.type == "note_off":
            began = open_[message.channel, message.note].pop(0)
            found.append((began, at - began, message.note, message.channel))
    assert not any(open_.values())
    return found


def test_pieces_are_their_seeds_and_end_in_time() -> None:
    drums = 0
    for seed in range(40):
        file, again = band.piece(np.random.default_rng(seed)), band.piece(np.random.default_rng(seed))
        assert list(file.tracks[0]) == list(again.tracks[0])
        assert abs(file.length - band.PIECE_S) < 0.01
        notes = _held(file)
        assert notes, seed
        assert all(at >= 0 and length >= 0 and at + length <= band.PIECE_S + 0.01 for at, length, _, _ in notes)
        drums += any(channel == 9 for *_, channel in notes)
    assert 10 < drums < 35


def test_what_does_not_fit_is_not_written() -> None:
    notes = [band.Note(-0.1, 0.5, 60, 300), band.Note(0.5, 9, 61, 1), band.Note(2, 1, 62, 80), band.Note(0, 1, 130, 80)]
    file = band.written(notes, {0: 5}, {}, 1.0)
    found = _held(file)
    assert [(round(at, 2), round(length, 2), key) for at, length, key, _ in found] == [(0, 0.4, 60), (0.5, 0.5, 61)]
    assert file.length == pytest.approx(1.0, abs=0.01)


def test_a_font_says_whose_it_is_and_damage_is_told(tmp_path: Path) -> None:
    font = make_font(tmp_path / "sine.sf2")
    assert band.about(font) == {"name": "Sine", "copyright": "Nobody 2026", "comment": "For tests.\nTwo lines"}
    whole, rng = font.read_bytes(), np.random.default_rng(0)
    broken = tmp_path / "broken.sf2"
    for _ in range(300):
        head = bytearray(whole[: int(rng.integers(0, 300))])
        for place in rng.integers(0, max(1, len(head)), 4):
            head[place : place + 1] = bytes([int(rng.integers(256))])
        broken.write_bytes(head)
        try:
            band.about(broken)
        except UsageError as told:
            assert "is not a sound font" in str(told)
    with pytest.raises(UsageError, match="cannot be read"):
        band.about(tmp_path / "nowhere.sf2")


def test_a_font_is_played(font: Path, tmp_path: Path) -> None:
    notes = [band.Note(0.1, 1.6, 81, 100)]
    sound = band.played(band.written(notes, {0: 0}, {}, 2.0), font)
    assert sound.dtype == np.float32 and len(sound) == 2 * band.RATE_HZ
    assert np.abs(sound).max() == pytest.approx(0.5)
    part = sound[band.RATE_HZ // 2 : band.RATE_HZ] * np.hanning(band.RATE_HZ // 2)
    assert abs(2 * np.abs(np.fft.rfft(part)).argmax() - 880) <= 2
    assert np.abs(sound[: band.RATE_HZ // 20]).max() < 0.01
    assert not band.played(band.written([], {}, {}, 1.0), font).any()
    broken = tmp_path / "broken.sf2"
    broken.write_bytes(font.read_bytes()[:2000])
    with pytest.raises(UsageError, match=r"fluidsynth cannot play with .*broken.sf2': SoundFont file size mismatch\."):
        band.played(band.written(notes, {0: 0}, {}, 2.0), broken)


def test_music_comes_into_a_data_folder(font: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(band, "INSTRUMENTS", 2)
    monkeypatch.setattr(band, "PIECE_S", 2.0)
    folder = tmp_path / "data"
    (folder / "speech").mkdir(parents=True)
    for k in range(3):
        soundfile.write(folder / f"speech/voice{k}x.wav", speechlike(0.5, 16000, seed=k), 16000)
    mine = {"file": "speech/voice0x.wav", "licence": "CC0", "source": "me"}
    (folder / "manifest.json").write_text(json.dumps([mine]))

    count = band.compose(font, folder, "MIT", "sine", pieces=3, notes=2, effects=1, progress=False)
    assert count == 3 + 2 * 2 + len(band.EFFECTS)
    entries = json.loads((folder / "manifest.json").read_text())
    assert entries[0] == mine and len(entries) == 1 + count
    assert {(e["licence"], e["source"], e["only"]) for e in entries[1:]} == {
        ("MIT", "rtgan compose, Sine, Nobody 2026", "train")
    }
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*.flac")}
    assert files == {e["file"] for e in entries[1:]}
    assert {p.name for p in folder.iterdir()} == {"manifest.json", "music", "noise", "speech"}

    # By none of it anything is measured.
    listed = [item for item in scan(folder) if item["file"] in files]
    assert len(listed) == count and not any(item["held_out"] for item in listed)
    corpus = load_tag_corpus(folder, TagDataSettings(test_share=0.6), tmp_path / "cache", progress=False)
    found = {clip.file: (clip.kind, clip.side) for clip in corpus.clips if clip.file in files}
    assert set(found.values()) == {("music", "train"), ("instrument", "train"), ("noise", "train")}
    assert len({c.group for c in corpus.clips if c.kind == "music"}) == 1
    assert len({c.group for c in corpus.clips if c.kind == "instrument"}) == 2

    with pytest.raises(UsageError, match="makes no sound with these numbers; nothing was changed"):
        band.compose(font, folder, "MIT", "other", pieces=0, notes=0, effects=0, progress=False)
    with pytest.raises(UsageError, match="is there already"):
        band.compose(font, folder, "MIT", "sine", pieces=1, notes=0, effects=0, progress=False)
    other = tmp_path / "other"
    band.compose(font, other, "MIT", "sine", pieces=1, notes=0, effects=0, progress=False)
    (name,) = (path.relative_to(other) for path in other.rglob("*.flac"))
    assert np.array_equal(soundfile.read(other / name)[0], soundfile.read(folder / name)[0])


def test_an_interruption_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    font, folder = make_font(tmp_path / "sine.sf2"), tmp_path / "data"
    count = 0

    def stopped(file: mido.MidiFile, font: Path, room: bool = False) -> np.ndarray:
        nonlocal count
        count += 1
        if count > 3:
            raise KeyboardInterrupt
        return np.full(1000, 0.1, np.float32)

    monkeypatch.setattr(band, "played", stopped)
    with pytest.raises(KeyboardInterrupt):
        band.compose(font, folder, "MIT", "sine", pieces=50, notes=0, effects=0, progress=False)
    assert list(folder.iterdir()) == []
    (folder / "manifest.json").write_text("{}")
    with pytest.raises(UsageError, match="is not a JSON list; nothing was changed"):
        band.compose(font, folder, "MIT", "sine", progress=False)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--pieces", "-1"], "--pieces is -1 but must lie in 0..9999."),
        (["--name", "../up"], "--name is '../up' but must be letters, digits and hyphens."),
        ([], "fluidsynth plays sound fonts and is not installed"),
    ],
)
def test_the_command_says_what_is_wrong(tmp_path: Path, arguments: list[str], told: str) -> None:
    font = make_font(tmp_path / "sine.sf2")
    command = [sys.executable, "-m", "rtgan", "compose", str(font), "--data", str(tmp_path / "d"), "--licence", "MIT"]
    there = os.environ | {"PATH": str(tmp_path)}
    done = subprocess.run([*command, *arguments], env=there, capture_output=True, text=True, check=False)
    assert done.returncode != 0 and told in done.stderr and "Traceback" not in done.stderr
